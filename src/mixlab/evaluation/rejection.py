"""Rejection: the confidence from which an answer is one to act on.

A threshold that looks good on some images was chosen by looking, so it looks better than it is. Here the thresholds are
fixed by their ranks before anybody looks at what was right: those that leave the surest twentieth of the images, the
surest two twentieths, and so on to all. The images above the confidence of a given rank are a fair sample of what is
above it, so Clopper and Pearson's bound (1934) holds for each; at a level of 5 % / 20 it holds for all twenty at once
(Bonferroni). Whatever precision is asked for, and however often, the bound of the chosen threshold then holds with a
probability of 95 %, for pictures of the same kind, and but for this: the temperature was fitted, and the epoch chosen,
on the same images, which no bound covers. Geifman and El-Yaniv (2017) search for one threshold with fewer looks, for
one wish only.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mixlab.config import Config
from mixlab.errors import RunError, UsageError
from mixlab.evaluation.metrics import Estimate, share
from mixlab.run.bundle import Accepted, BundleDescription

RANKS = 20  # thresholds that are looked at
LEVEL = 0.05  # probability that any of their bounds does not hold
MOST_TIMES = 100  # as many images, beyond which it is not said how many
FORM = "expected a confidence such as 0.7, or precision=0.95"


class Acceptance(Config):
    """What a threshold does on images that it was not chosen on."""

    threshold: float  # confidence below which an answer is unknown
    coverage: Estimate  # share of the images that get an answer
    accuracy: Estimate | None  # share right of those answers; None: there is none


def with_rejection(description: BundleDescription, text: str) -> BundleDescription:
    """Return a description whose answers of too little confidence are unknown.

    Args:
        text: a confidence such as "0.7", or a wished precision such as "precision=0.95"; "": as it is.

    Raises:
        UsageError: for any other text.
        RunError: where the validation images cannot vouch for that precision.
    """
    if not text:
        return description
    word, equals, number = text.strip().rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if word != ("precision" if equals else "") or not (0 < value < 1 if equals else 0 <= value <= 1):
        raise UsageError(f"reject below {text}: {FORM}, each between 0 and 1")
    threshold = choose(description.accepted, value).threshold if equals else value
    return description.model_copy(update={"reject_below": threshold})


def accepted_by_rank(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[Accepted, ...]:
    """Return how many images each threshold accepts, and how many of those are right, the strictest first.

    Args:
        confidence: (n,), in [0, 1], of images that the model was not trained on.
        right: (n,), whether the answer was.
    """
    falling, found = -np.sort(-confidence), []
    for rank in sorted({len(falling) * step // RANKS for step in range(1, RANKS)} - {0}):
        threshold = np.nextafter(falling[rank], 2)  # above the confidence of that rank, the image itself not included
        is_above = confidence >= threshold
        if is_above.any():
            found.append(_accepted(float(threshold), right[is_above]))
    return *dict.fromkeys(found), _accepted(0.0, right)


def choose(points: Sequence[Accepted], precision: float) -> Accepted:
    """Return the threshold that accepts most of those whose accepted answers surely are as often right as wished.

    Raises:
        RunError: where there is none; says how many validation images it would take.
    """
    if not points:
        raise RunError(
            f"precision={precision:g}: there are no validation images that could vouch for it; "
            "give a confidence, such as --reject-below 0.7"
        )
    sure = [point for point in points if _is_enough(point, 1, precision)]
    if not sure:
        raise RunError(_why_none(points, precision))
    return max(sure, key=lambda point: point.accepted)


def precision_bound(point: Accepted) -> float:
    """Return the share of accepted answers that are right at least, with 95 % for all twenty thresholds at once."""
    if point.right == 0:
        return 0.0
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        is_too_rare = _probability_of(point.accepted, point.accepted - point.right, middle) <= LEVEL / RANKS
        low, high = (middle, high) if is_too_rare else (low, middle)
    return low


def measure_accepted(confidence: NDArray[np.float64], right: NDArray[np.bool_], threshold: float) -> Acceptance:
    """Measure a threshold; intervals are Wilson's at 95 %."""
    answered = right[confidence >= threshold]
    accuracy = share(int(answered.sum()), len(answered)) if len(answered) else None
    return Acceptance(threshold=threshold, coverage=share(len(answered), len(right)), accuracy=accuracy)


def _accepted(threshold: float, right: NDArray[np.bool_]) -> Accepted:
    return Accepted(threshold=threshold, accepted=len(right), right=int(right.sum()))


def _probability_of(images: int, wrong: int, precision: float) -> float:
    """Return how probable it is that so many or fewer of the images are wrong, where `precision` are right."""
    each = np.arange(1, wrong + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log((images - each + 1) / each))])  # log of the binomial coefficients
    places = np.arange(wrong + 1)
    logs = ways + places * math.log1p(-precision) + (images - places) * math.log(precision)
    return float(np.exp(logs).sum())


def _why_none(points: Sequence[Accepted], precision: float) -> str:
    images = points[-1].accepted
    better = [point for point in points if point.right > precision * point.accepted]
    if not better:
        best = max(points, key=lambda point: point.right / point.accepted)
        return (
            f"no confidence gives precision={precision:g}: of {images:,} validation images the surest "
            f"{best.accepted:,} are right in {best.right / best.accepted:.1%}, and more images would not change that"
        )
    times = _times_needed(min(better, key=lambda point: _times_guessed(point, precision)), precision)
    needed = f"about {_rounded(images * times):,}" if times <= MOST_TIMES else f"more than {MOST_TIMES} times as many"
    vouched = math.floor(1000 * max(map(precision_bound, points))) / 1000
    return (
        f"{images:,} validation images cannot vouch for precision={precision:g}, only for precision={vouched:g}; "
        f"{needed} could, if as large a share of them is right"
    )


def _times_needed(point: Accepted, precision: float) -> float:
    """Return how many times as many images it takes, where as large a share of them is right, to be sure of it.

    Above MOST_TIMES it is not looked for.
    """
    low, high = 1.0, 2 + _times_guessed(point, precision)
    if high > 2 * MOST_TIMES:
        return math.inf
    while not _is_enough(point, high, precision):
        low, high = high, 2 * high
    while high - low > low / 1000:
        middle = (low + high) / 2
        low, high = (low, middle) if _is_enough(point, middle, precision) else (middle, high)
    return high


def _times_guessed(point: Accepted, precision: float) -> float:
    """Return about the same by the normal approximation."""
    above = point.right / point.accepted - precision
    return NormalDist().inv_cdf(LEVEL / RANKS) ** 2 * precision * (1 - precision) / (point.accepted * above**2)


def _is_enough(point: Accepted, times: float, precision: float) -> bool:
    images, wrong = round(times * point.accepted), math.ceil(times * (point.accepted - point.right))
    return _probability_of(images, wrong, precision) <= LEVEL / RANKS


def _rounded(number: float) -> int:
    """Return a number rounded up to two digits."""
    unit = 10 ** max(math.floor(math.log10(number)) - 1, 0)
    return math.ceil(number / unit) * unit
