"""A data set of shards as its three splits, with the classes of the training pictures."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mixlab.data.folder import SPLITS, check_spelling, explain_unknown
from mixlab.data.shard_index import Part, read_index
from mixlab.data.splits import Split
from mixlab.errors import DataError


@dataclass(frozen=True, eq=False)
class ShardListing:
    """As `FolderListing`: classes from training alone, each split in its order; one without pictures is missing."""

    classes: tuple[str, ...]
    parts: dict[Split, Part]
    ignored: int  # samples without a picture, or of no training class
    empty_classes: tuple[str, ...]  # without pictures in any split


def list_shards(place: Path, ignore_unknown_classes: bool = False) -> ShardListing:
    """List the pictures in a tar, in a brace list of tars, or in a folder of them.

    Raises:
        DataError: in one line, for whatever cannot be listed without guessing.
    """
    index = read_index(place)
    check_spelling(index.classes)
    present = np.unique(index.parts["train"].labels)
    classes = tuple(index.classes[label] for label in present)
    if len(classes) < 2:
        found = f"pictures of one class only, {classes[0]!r}" if classes else "no pictures to train on"
        raise DataError(f"{place} holds {found}; expected at least two classes")
    unknown: dict[tuple[Split, str], int] = {
        (split, index.classes[label]): count
        for split in SPLITS[1:]
        if split in index.parts
        for label, count in Counter(index.parts[split].labels.tolist()).items()
        if label not in present
    }
    if unknown and not ignore_unknown_classes:
        raise DataError(explain_unknown(unknown))
    known = np.full(len(index.classes), -1)
    known[present] = np.arange(len(present))
    parts: dict[Split, Part] = {split: _of_known(part, known) for split, part in index.parts.items() if len(part.names)}
    held = {label for part in index.parts.values() for label in np.unique(part.labels).tolist()}
    empty = tuple(name for label, name in enumerate(index.classes) if label not in held)
    return ShardListing(classes, parts, sum(unknown.values()) + index.without_picture, empty)


def _of_known(part: Part, known: np.ndarray) -> Part:
    """Return the pictures of known classes, with their new labels; `known` has -1 for the others."""
    labels = known[part.labels]
    if (labels >= 0).all():
        return replace(part, labels=labels)
    kept = np.flatnonzero(labels >= 0)
    names = tuple(part.names[place] for place in kept.tolist())
    return Part(names, labels[kept], part.slices.select(kept))
