"""All checks, in the order of the score sheet."""

from torture import (
    bombs,
    changed_data,
    class_mapping,
    exact_resume,
    forbidden_calls,
    fuzz,
    hostile_archives,
    hostile_artefacts,
    mutated_files,
    odd_files,
    ranks,
    sabotage,
    shards,
)

CHECKS = [
    *exact_resume.CHECKS,
    *ranks.CHECKS,
    *shards.CHECKS,
    *odd_files.CHECKS,
    *mutated_files.CHECKS,
    *bombs.CHECKS,
    *class_mapping.CHECKS,
    *hostile_archives.CHECKS,
    *changed_data.CHECKS,
    *hostile_artefacts.CHECKS,
    *forbidden_calls.CHECKS,
    *fuzz.CHECKS,
    *sabotage.CHECKS,
]
