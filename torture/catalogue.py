"""All checks, in the order of the score sheet."""

from torture import (
    bombs,
    changed_data,
    class_mapping,
    disk_full,
    exact_resume,
    forbidden_calls,
    fuzz,
    hostile_archives,
    hostile_artefacts,
    lost_workers,
    mutated_files,
    not_finite,
    odd_files,
    odd_places,
    out_of_memory,
    ranks,
    sabotage,
    same_answers,
    saving,
    server,
    server_load,
    server_schema,
    shards,
    stops,
)

TRAINING = (exact_resume, shards, ranks, saving, disk_full, stops, not_finite, lost_workers, out_of_memory, odd_places)
DATA = (odd_files, mutated_files, bombs, class_mapping, hostile_archives, changed_data)
SECURITY = (hostile_artefacts, forbidden_calls, fuzz)
SHIPPING = (same_answers, server, server_load, server_schema)

CHECKS = [check for group in (*TRAINING, *DATA, *SECURITY, *SHIPPING, sabotage) for check in group.CHECKS]
