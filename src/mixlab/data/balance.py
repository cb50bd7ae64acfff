"""Classes of unequal size: weights of the loss, or an order in which each class is equally frequent."""

import numpy as np


def inverse_frequencies(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return a weight for each class, one over its images, such that the mean over all images is 1; float64.

    A class without images has weight 0.
    """
    counts = np.bincount(labels, minlength=num_classes)
    filled = np.count_nonzero(counts)
    return np.where(counts > 0, len(labels) / filled / np.maximum(counts, 1), 0.0)


def balanced_order(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return as many indices as there are images, shuffled, of each class equally many (one more or less).

    No image of a class comes a second time before all others of it came once; of a large class only a part comes.
    """
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    members = [indices for indices in members if len(indices)]
    places = np.full(len(members), len(labels) // len(members))
    places[generator.permutation(len(members))[: len(labels) % len(members)]] += 1
    drawn = [_rounds(indices, count, generator) for indices, count in zip(members, places, strict=True)]
    return generator.permutation(np.concatenate(drawn))


def _rounds(indices: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    rounds = [generator.permutation(indices) for _ in range(-(-count // len(indices)))]
    return np.concatenate([indices[:0], *rounds])[:count]
