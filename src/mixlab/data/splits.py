"""Orders of names and stratified splits, as functions of their arguments alone."""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from mixlab.errors import UsageError

Split = Literal["train", "validation", "test"]
Classes = dict[str, list[str]]  # class name -> its files

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def natural_key(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Return a sort key that puts 2 before 10, and is plain string order where there are no digits.

    Distinct names have distinct keys, so the order never depends on the order of the input.
    """
    parts: list[str | tuple[int, str]] = []
    for position, part in enumerate(re.split(r"([0-9]+)", name)):
        # As a string beside its length, because int() refuses more than 4,300 digits.
        digits = part.lstrip("0")
        parts.append((len(digits), digits) if position % 2 else part)
    return parts, name


def carve(labels: np.ndarray, fractions: Sequence[float], generator: np.random.Generator) -> list[np.ndarray]:
    """Split `range(len(labels))` class by class into one part per fraction, with the rest as the last part.

    A class with at least as many images as there are parts is in each of them; a smaller one is in the rest first.

    Args:
        labels: class indices, integers (images,).
        fractions: share of each part, each in [0, 1), together below 1. A share of 0 gives an empty part.
        generator: draws which image goes where.

    Returns:
        Sorted, disjoint int64 index arrays that together hold every index once.

    Raises:
        UsageError: for fractions out of range.
    """
    if not all(fraction >= 0 for fraction in fractions) or not sum(fractions) < 1:
        raise UsageError(f"split fractions {list(fractions)}: each must be at least 0, together below 1")
    parts: list[list[np.ndarray]] = [[] for _ in range(len(fractions) + 1)]
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum(_counts(len(members), fractions))
        for part, chosen in zip(parts, np.split(members, ends), strict=True):
            part.append(chosen)
    return [np.sort(np.concatenate([np.empty(0, np.int64), *part])) for part in parts]


def _counts(images: int, fractions: Sequence[float]) -> list[int]:
    """Return how many of a class's images each part gets, leaving at least one for the rest."""
    asked = sum(fraction > 0 for fraction in fractions)
    least = 1 if images > asked else 0
    counts = [max(least, int(images * fraction + 0.5)) if fraction > 0 else 0 for fraction in fractions]
    while sum(counts) > max(images - 1, 0):
        counts[counts.index(max(counts))] -= 1
    return counts
