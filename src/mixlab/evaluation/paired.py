"""Is one model better than another? Paired on the same images and, where they suffice, on the same seeds."""

import math
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

    For one seed the interval is `score_interval`. For more it is that of a hierarchical bootstrap. Images are drawn
    again with replacement, all seeds together, for every seed sees the same ones. The seeds' own deviations get random
    normal weights (a wild bootstrap, Wu, 1986), widened to Student's t: drawing three seeds again with replacement
    would claim a difference between equal models one time in four. Below three seeds only images are drawn, and the
    interval says nothing of training.

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
    only_first, only_second = int((by_image > 0).sum()), int((by_image < 0).sum())
    if seeds == 1:
        low, high = score_interval(only_first, only_second, images)
    else:
        low, high = _bootstrap(gains, value, by_image)
    return Difference(
        value=value,
        low=min(low, value),
        high=max(high, value),
        seeds=seeds,
        images=images,
        only_first=only_first,
        only_second=only_second,
    )


def score_interval(only_first: int, only_second: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two accuracies on the same images (Tango, 1998).

    With a correction for continuity, so that it is not too narrow where few images differ: where none does it is not
    empty, and it leaves out 0 no sooner than McNemar's corrected test. A bootstrap would draw what was never seen
    never.

    Args:
        only_first: images that only the first model gets right; `only_second` likewise.
    """
    return _score_bound(only_first, only_second, images), -_score_bound(only_second, only_first, images)


def _score_bound(first: int, second: int, images: int) -> float:
    """Return the lower bound: the difference from which what was seen is 1.96 standard errors away, by bisection."""
    low, high = -1.0, (first - second) / images
    for _ in range(50):
        middle = (low + high) / 2
        away = first - second - 1 - images * middle
        is_too_far = away > NORMAL * math.sqrt(images * _variance(first, second, images, middle))
        low, high = (middle, high) if is_too_far else (low, middle)
    return low


def _variance(first: int, second: int, images: int, difference: float) -> float:
    """Return an image's variance where this is the difference, with the share of `second` that is then most likely."""
    b = (2 * images - first + second) * difference - first - second
    c = -second * difference * (1 - difference)
    share = (math.sqrt(max(b * b - 8 * images * c, 0)) - b) / (4 * images)
    return max(2 * share + difference * (1 - difference), 0)


def _bootstrap(gains: NDArray[np.float64], value: float, by_image: NDArray[np.float64]) -> tuple[float, float]:
    seeds, images = gains.shape
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    gain, count = np.unique(by_image, return_counts=True)  # few values: images that count alike are drawn together
    drawn = generator.multinomial(images, count / images, RESAMPLES) @ gain / images
    if seeds >= FEWEST_SEEDS:
        deviations = gains.mean(axis=1) - value
        widened = student(seeds - 1) / NORMAL / np.sqrt(seeds * (seeds - 1))
        drawn = drawn + generator.standard_normal((RESAMPLES, seeds)) @ deviations * widened
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, for freedom >= 1."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    return NORMAL + 2.372 / freedom + 2.823 / freedom**2  # Cornish and Fisher's expansion
