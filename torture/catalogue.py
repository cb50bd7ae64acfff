"""All checks, in the order of the score sheet."""

from torture import exact_resume, ranks, sabotage

CHECKS = [*exact_resume.CHECKS, *ranks.CHECKS, *sabotage.CHECKS]
