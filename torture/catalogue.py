"""All checks, in the order of the score sheet."""

from torture import class_mapping, exact_resume, ranks, sabotage, shards

CHECKS = [*exact_resume.CHECKS, *ranks.CHECKS, *shards.CHECKS, *class_mapping.CHECKS, *sabotage.CHECKS]
