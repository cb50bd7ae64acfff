"""Counts of each class, and mean and deviation of the training pixels."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mixlab.data.catalogue import DataConfig
from mixlab.data.images import FileImages, Images
from mixlab.data.loading import batches, in_order


def stats(config: DataConfig, workers: int, seed: int = 0, carve_validation: bool = True) -> dict[str, Any]:
    """Count classes, and measure mean and standard deviation per channel of the readable training pictures.

    Splits are those of an experiment with this seed.
    """
    data = config.load(seed, carve_validation)
    train = replace(data.train, canvas_size=data.spec.image_size) if isinstance(data.train, FileImages) else data.train
    pixels, total, squares = 0, torch.zeros(data.spec.channels).double(), torch.zeros(data.spec.channels).double()
    for batch in batches(train, in_order(train, 256), workers):
        values = batch.images.double() / 255
        pixels += values[:, 0].numel()
        total += values.sum((0, 2, 3))
        squares += (values**2).sum((0, 2, 3))
    mean = total / max(pixels, 1)
    return {
        "classes": data.spec.classes,
        "splits": {
            name: count_classes(images, data.spec.classes) for name, images in data.splits.items() if len(images)
        },
        "mean": mean.tolist(),
        "std": (squares / max(pixels, 1) - mean**2).clamp(min=0).sqrt().tolist(),
        "unreadable": train.unreadable,
    }


def count_classes(images: Images, classes: tuple[str, ...]) -> dict[str, int]:
    counts = np.bincount(images.labels, minlength=len(classes))
    return {name: int(count) for name, count in zip(classes, counts, strict=True)}
