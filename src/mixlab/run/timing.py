"""What a clock says of a training: rows of timing.jsonl, one for each part of an epoch that was saved.

An epoch that is never interrupted, and saved no other time, is one part. What was trained after a save and lost, and so
had to be trained again, is in no row.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

Rows = Sequence[Mapping[str, Any]]


@dataclass
class Clock:
    """What has not been written into a row yet."""

    epoch: float = 0.0  # that is trained, counted as in metrics.jsonl
    step: int = 0  # steps that the rows have
    started: float = field(default_factory=perf_counter)
    trained: float = 0.0  # when the steps of the epoch were done and validation began; 0: not yet

    def row(self, images: int, trained: float, now: float) -> dict[str, float]:
        """Return the row of so many images, whose training ended at one time, and all that belongs to it at another."""
        training, seconds = trained - self.started, now - self.started
        return {
            "epoch": self.epoch,
            "images": images,
            "training_seconds": round(training, 4),
            "seconds": round(seconds, 4),
        }


def of_epoch(rows: Rows, epoch: float) -> Rows:
    """Return the rows of one epoch."""
    return [row for row in rows if row["epoch"] == epoch]


def seconds(rows: Iterable[Mapping[str, Any]]) -> float:
    """Return how long training and validation took together."""
    return sum(row["seconds"] for row in rows)


def speed(rows: Rows) -> float:
    """Return the images a second of the training, as if the rows were one; 0 where nothing was trained."""
    parts = [_images_and_seconds(row) for row in rows]
    images = sum(images for images, _ in parts)
    return images / max(sum(taken for images, taken in parts if images), 1e-9)  # what is left may be all validation


def median_speed(rows: Rows) -> float:
    """Return the median speed of the epochs; 0 where nothing was trained."""
    epochs: defaultdict[float, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        epochs[row["epoch"]].append(row)
    speeds = [found for parts in epochs.values() if (found := speed(parts))]
    return statistics.median(speeds) if speeds else 0.0


def _images_and_seconds(row: Mapping[str, Any]) -> tuple[float, float]:
    if "images" in row:
        return row["images"], row["training_seconds"]
    return row["images_per_second"], 1.0  # a row of an older mixlab: one epoch, by its speed alone
