"""All checks, in the order of the score sheet."""

from torture import exact_resume

CHECKS = [*exact_resume.CHECKS]
