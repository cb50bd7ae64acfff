"""Is one model better than another? Paired on the same images and, where they suffice, on the same seeds."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mixlab.config import Config
from mixlab.errors import DataError

RESAMPLES = 4000
BOOTSTRAP_SEED = 0  # fixed, so that the same answers always give the same interval
FEWEST_SEEDS = 3  # below it nothing can be said of how much training varies
NORMAL = 1.96  # 97.5 % quantile of the normal distribution
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # of Student's t, by freedom from 1

Verdict = Literal["better", "worse", "within noise"]


class Difference(Config):
    """By how much the first model is better than the second, in accuracy (shares), with its 95 % interval."""

    value: float
    low: float
    high: float
    seeds: int
    images: int
    only_first: int  # images that the first gets right more often than the second, over the seeds
    only_second: int

    @property
    def verdict(self) -> Verdict:
        """What may be said of the first model."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "within noise"

    @property
    def speaks_of_training(self) -> bool:
        """Whether the interval covers another training, or only other images for these trained models."""
        return self.seeds >= FEWEST_SEEDS


def paired_difference(first: Sequence[NDArray[np.bool_]], second: Sequence[NDArray[np.bool_]]) -> Difference:
    """Compare which images two models get right: the same images in the same order, one row for each common seed.

    The interval is that of a hierarchical bootstrap. Images are drawn again with replacement, all seeds together,
    for every seed sees the same ones. The seeds' own deviations get random normal weights (a wild bootstrap, Wu,
    1986), widened to Student's t: drawing three seeds again with replacement would claim a difference between equal
    models one time in four. Below three seeds only images are drawn, and the interval says nothing of training.

    Args:
        first: (images,) for each seed, whether the first model is right.
        second: the same of the second model.

    Raises:
        DataError: where there is nothing to compare, or the shapes differ.
    """
    if not first or len(first) != len(second) or any(row.shape != first[0].shape for row in (*first, *second)):
        raise DataError("two models can be compared only on the same images and the same number of seeds")
    gains = np.stack(first).astype(np.float64) - np.stack(second)  # (seeds, images)
    seeds, images = gains.shape
    if images == 0:
        raise DataError("two models cannot be compared on no image")
    value, by_image = float(gains.mean()), gains.mean(axis=0)
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    gain, count = np.unique(by_image, return_counts=True)  # few values: images that count alike are drawn together
    drawn = generator.multinomial(images, count / images, RESAMPLES) @ gain / images
    if seeds >= FEWEST_SEEDS:
        deviations = gains.mean(axis=1) - value
        widened = student(seeds - 1) / NORMAL / np.sqrt(seeds * (seeds - 1))
        drawn = drawn + generator.standard_normal((RESAMPLES, seeds)) @ deviations * widened
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Difference(
        value=value,
        low=min(float(low), value),
        high=max(float(high), value),
        seeds=seeds,
        images=images,
        only_first=int((by_image > 0).sum()),
        only_second=int((by_image < 0).sum()),
    )


def student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, for freedom >= 1."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    return NORMAL + 2.372 / freedom + 2.823 / freedom**2  # Cornish and Fisher's expansion
