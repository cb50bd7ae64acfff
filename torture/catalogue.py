"""All checks, in the order of the score sheet."""

from torture import (
    class_mapping,
    disk_full,
    exact_resume,
    lost_workers,
    not_finite,
    odd_places,
    out_of_memory,
    ranks,
    sabotage,
    saving,
    shards,
    stops,
)

TRAINING = (exact_resume, shards, ranks, saving, disk_full, stops, not_finite, lost_workers, out_of_memory, odd_places)
DATA = (class_mapping,)

CHECKS = [check for group in (*TRAINING, *DATA, sabotage) for check in group.CHECKS]
