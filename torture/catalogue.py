"""All checks, in the order of the score sheet."""

from torture import exact_resume, ranks

CHECKS = [*exact_resume.CHECKS, *ranks.CHECKS]
