"""Looking at a whole data set: every picture decoded, classes counted, colours measured."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mixlab.data.catalogue import DataConfig, DataSet
from mixlab.data.decode import decode
from mixlab.data.images import FileImages, Images
from mixlab.data.loading import batches, in_order
from mixlab.errors import UnreadableImage

TINY = 10  # images of a training class below which it is reported


@dataclass(frozen=True)
class Check:
    """What was found."""

    counts: dict[str, dict[str, int]]  # split -> class -> images
    unreadable: dict[str, str]  # file -> reason
    sizes: tuple[tuple[int, int], tuple[int, int]]  # (width, height) of the smallest and the largest picture
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {"counts": self.counts, "unreadable": self.unreadable, "sizes": self.sizes, "notes": self.notes}

    def lines(self) -> list[str]:
        """Return the findings for people."""
        found = [f"{split:<10}  {sum(counts.values()):,} pictures" for split, counts in self.counts.items()]
        smallest, largest = self.sizes
        found.append(f"{'sizes':<10}  {smallest[0]} x {smallest[1]} to {largest[0]} x {largest[1]} pixels")
        found += [f"{'note':<10}  {note}" for note in self.notes]
        found += [f"unreadable  {name}: {reason}" for name, reason in self.unreadable.items()]
        return [*found, f"{len(self.unreadable)} pictures cannot be read"]


def check(config: DataConfig, workers: int) -> Check:
    """Decode every picture of every split.

    Raises:
        DataError: where the data set itself cannot be used.
    """
    data = config.load(seed=0, carve_validation=True)
    sizes, unreadable = [], {}
    for images in _splits(data).values():
        found, bad = _decode_all(images, workers)
        sizes, unreadable = sizes + found, unreadable | bad
    by_area = sorted(sizes, key=lambda size: size[0] * size[1]) or [(0, 0)]
    counts = {name: count_classes(images, data.spec.classes) for name, images in _splits(data).items()}
    tiny = [
        f"class {name!r} has only {count} training pictures" for name, count in counts["train"].items() if count < TINY
    ]
    return Check(counts, unreadable, (by_area[0], by_area[-1]), (*data.notes, *tiny))


def stats(config: DataConfig, workers: int) -> dict[str, Any]:
    """Count classes, and measure mean and standard deviation per channel of the readable training pictures."""
    data = config.load(seed=0, carve_validation=True)
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
        "splits": {name: count_classes(images, data.spec.classes) for name, images in _splits(data).items()},
        "mean": mean.tolist(),
        "std": (squares / max(pixels, 1) - mean**2).clamp(min=0).sqrt().tolist(),
        "unreadable": train.unreadable,
    }


def count_classes(images: Images, classes: tuple[str, ...]) -> dict[str, int]:
    counts = np.bincount(images.labels, minlength=len(classes))
    return {name: int(count) for name, count in zip(classes, counts, strict=True)}


def _splits(data: DataSet) -> dict[str, Images]:
    return {name: images for name, images in data.splits.items() if len(images)}


def _decode_all(images: Images, workers: int) -> tuple[list[tuple[int, int]], dict[str, str]]:
    if not isinstance(images, FileImages):
        height, width = images.images.shape[2:]
        return [(width, height)], {}

    def look(name: str) -> tuple[int, int] | UnreadableImage:
        try:
            height, width, _ = decode(images.root / name).shape
            return width, height
        except UnreadableImage as error:
            return error

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        found = dict(zip(images.names, pool.map(look, images.names), strict=True))
    sizes = {size for size in found.values() if isinstance(size, tuple)}
    return list(sizes), {name: str(error) for name, error in found.items() if isinstance(error, UnreadableImage)}
