"""How good a classifier's probabilities are, each number with its 95 % interval."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mixlab.config import Config
from mixlab.errors import DataError

BINS = 15  # of the calibration error, as in Guo et al. (2017)
RESAMPLES = 1000  # of the bootstrap
BOOTSTRAP_SEED = 0  # fixed, so that the same probabilities always give the same interval
SMALLEST = float(np.finfo(np.float64).tiny)  # a probability of 0 counts as this one, which bounds a loss by 708 nats


class Estimate(Config):
    """A number measured on a sample, with its 95 % interval: low <= value <= high."""

    value: float
    low: float
    high: float


class ClassMetrics(Config):
    """One class against all others; shares are in [0, 1]."""

    name: str
    images: int  # whose true class this is
    precision: Estimate | None  # share right of the images given this class; None: never predicted
    recall: Estimate | None  # share found of the images of this class; None: no image of this class
    f1: float | None  # harmonic mean of precision and recall; None: neither an image nor a prediction


class Metrics(Config):
    """All that is measured of one set of predictions; shares are in [0, 1]."""

    images: int
    top1: Estimate  # share whose true class is the most probable one
    top5: Estimate  # share whose true class is among the five (or all, where fewer) most probable
    loss: Estimate  # mean negative log-likelihood of the true class, nats
    ece: Estimate  # expected calibration error over 15 bins
    per_class: tuple[ClassMetrics, ...]  # in the order of the classes
    confusion: tuple[tuple[int, ...], ...]  # images; rows: true class, columns: predicted class


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Predictions by confidence, in bins of equal width that are open below and closed above."""

    count: NDArray[np.int64]  # images, (bins,)
    confidence: NDArray[np.float64]  # mean in [0, 1], (bins,); nan in an empty bin
    accuracy: NDArray[np.float64]  # share right in [0, 1], (bins,); nan in an empty bin

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0, 1] (Naeini et al., 2015)."""
        filled = self.count > 0
        gap = np.abs(self.accuracy - self.confidence)[filled]
        return float(gap @ self.count[filled] / self.count.sum())


def measure(probabilities: NDArray[np.float64], labels: NDArray[np.int64], classes: tuple[str, ...]) -> Metrics:
    """Measure predictions against the truth.

    Equal probabilities rank in the order of the classes. Intervals are Wilson's for shares, and percentiles of 1000
    bootstrap resamples of the images (Efron, 1979) for loss and calibration error. Resampling inflates a calibration
    error that is near 0, so its interval is widened where needed to hold the value. Those of few images are a little
    narrow: of 300 simulated sets, the loss's interval held the truth in 90 % with 60 images, in 96 % with 1000.

    Args:
        probabilities: (n, classes), each row summing to 1.
        labels: (n,), indices into `classes`.

    Raises:
        DataError: where there is no image, or shapes, labels or probabilities do not fit.
    """
    check_scores(probabilities, labels)
    _check_probabilities(probabilities, classes)
    ranks = _ranks(probabilities, labels)
    loss, ece = _loss_and_ece(probabilities, labels)
    confusion = _confusion(probabilities.argmax(axis=1), labels, len(classes))
    return Metrics(
        images=len(labels),
        top1=share(int((ranks < 1).sum()), len(labels)),
        top5=share(int((ranks < 5).sum()), len(labels)),
        loss=loss,
        ece=ece,
        per_class=_per_class(confusion, classes),
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion, within [0, 1] (Wilson, 1927).

    Raises:
        DataError: unless 0 <= successes <= trials and trials >= 1.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise DataError(f"{successes} successes of {trials} trials: expected 0 <= successes <= trials and trials >= 1")
    z, share = NormalDist().inv_cdf(0.975), successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))  # rounding may miss 0, 1 and share


def reliability(probabilities: NDArray[np.float64], labels: NDArray[np.int64], bins: int = BINS) -> ReliabilityBins:
    """Sort predictions (n, classes) into `bins` by their confidence, the highest probability (Guo et al., 2017).

    Raises:
        DataError: where there is no image, or shapes or labels do not fit.
    """
    check_scores(probabilities, labels)
    return reliability_of(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins)


def reliability_of(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> ReliabilityBins:
    """Sort predictions into `bins` by their confidence (n,) in [0, 1]; `right` (n,) says which were right."""
    place = _bins(confidence, bins)
    count = np.bincount(place, minlength=bins)
    divisor = np.where(count > 0, count, np.nan)
    return ReliabilityBins(
        count=count,
        confidence=np.bincount(place, weights=confidence, minlength=bins) / divisor,
        accuracy=np.bincount(place, weights=right, minlength=bins) / divisor,
    )


def check_scores(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> None:
    """Check that logits or probabilities (n, classes) and labels (n,) belong together.

    Raises:
        DataError: naming what does not fit.
    """
    if scores.ndim != 2 or labels.ndim != 1 or len(scores) != len(labels):
        raise DataError(f"scores {scores.shape} and labels {labels.shape}: expected (images, classes) and (images,)")
    if scores.size == 0:
        raise DataError(f"nothing to measure: {scores.shape[0]} images, {scores.shape[1]} classes")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise DataError(f"labels from {labels.min()} to {labels.max()}: expected 0 to {scores.shape[1] - 1}")
    if not np.isfinite(scores).all():
        raise DataError("the model's answers hold values that are not finite; was its training stable?")


def _check_probabilities(probabilities: NDArray[np.float64], classes: tuple[str, ...]) -> None:
    if probabilities.shape[1] != len(classes):
        raise DataError(f"{probabilities.shape[1]} probabilities an image, but {len(classes)} class names")
    if probabilities.min() < 0 or np.abs(probabilities.sum(axis=1) - 1).max() > 1e-3:
        raise DataError("probabilities must be at least 0 and sum to 1 for each image; were logits given?")


def _ranks(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many classes stand before the true one, (n,)."""
    true = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    return ((probabilities > true) | (earlier & (probabilities == true))).sum(axis=1)


def _bins(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    return np.searchsorted(inner_edges, confidence, side="left")


def share(successes: int, trials: int) -> Estimate:
    """Return successes / trials with its 95 % interval; raises as `wilson`."""
    low, high = wilson(successes, trials)
    return Estimate(value=successes / trials, low=low, high=high)


def _loss_and_ece(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[Estimate, Estimate]:
    rows = np.arange(len(labels))
    losses = -np.log(np.maximum(probabilities[rows, labels], SMALLEST))
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    gaps = np.zeros((len(labels), BINS))
    gaps[rows, _bins(confidence, BINS)] = confidence - right
    means = _resampled_means(np.column_stack([losses, gaps]))  # (resamples, 1 + bins)
    # A bin's share of the images times its gap is the sum of its images' gaps over n: column means are all it takes.
    resampled_ece = np.abs(means[:, 1:]).sum(axis=1)
    ece = float(np.abs(gaps.mean(axis=0)).sum())
    return _interval(float(losses.mean()), means[:, 0]), _interval(ece, resampled_ece)


def _resampled_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the column means of `values` (n, columns) over each bootstrap resample, (resamples, columns)."""
    generator, n = np.random.default_rng(BOOTSTRAP_SEED), len(values)
    draws = (np.bincount(generator.integers(n, size=n), minlength=n) for _ in range(RESAMPLES))
    return np.stack([times_drawn @ values for times_drawn in draws]) / n


def _interval(value: float, resampled: NDArray[np.float64]) -> Estimate:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(value=value, low=min(value, float(low)), high=max(value, float(high)))


def _confusion(predictions: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    pairs = np.bincount(labels * classes + predictions, minlength=classes**2)
    return pairs.reshape(classes, classes)


def _per_class(confusion: NDArray[np.int64], classes: tuple[str, ...]) -> tuple[ClassMetrics, ...]:
    right, images, predicted = (
        counts.tolist() for counts in (confusion.diagonal(), confusion.sum(1), confusion.sum(0))
    )
    return tuple(map(_class_metrics, classes, right, images, predicted))


def _class_metrics(name: str, right: int, images: int, predicted: int) -> ClassMetrics:
    return ClassMetrics(
        name=name,
        images=images,
        precision=share(right, predicted) if predicted else None,
        recall=share(right, images) if images else None,
        f1=2 * right / (images + predicted) if images + predicted else None,
    )
