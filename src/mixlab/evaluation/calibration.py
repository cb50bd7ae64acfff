"""Temperature scaling: the one number that makes a model's confidence honest and leaves its answers alone."""

import math

import numpy as np
from numpy.typing import NDArray

from mixlab.errors import UsageError
from mixlab.evaluation.metrics import check_scores

COLDEST, HOTTEST = 0.05, 20.0  # bounds of the temperature
TOLERANCE = 1e-10  # relative, of the temperature


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the probabilities softmax(logits / temperature) along the last axis.

    Raises:
        UsageError: unless the temperature is above 0.
    """
    if not temperature > 0:
        raise UsageError(f"temperature={temperature}: expected a number above 0")
    return _softmax(_below_largest(logits) / temperature)


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Return the temperature T in [0.05, 20] that minimises the mean loss of softmax(logits / T) (Guo et al., 2017).

    Labels count as 1 / (n + 2) uncertain, spread over all classes (after Platt, 1999): n right answers out of n are no
    proof that the next one is right too, and without it the temperature would fall to its bound. Where the labels alone
    ask for more confidence, that doubt never takes some away: T is 1 at most. The loss is convex in 1 / T, so Newton's
    method on its slope, held between the bounds, finds the minimum to ten digits. It ends at the upper bound where the
    answers are no better than chance, and is 1 where all logits of an image are equal and no temperature matters.

    Args:
        logits: (n, classes), of images that the model was not trained on.
        labels: (n,), indices of the true classes.

    Raises:
        DataError: where there is no image, or shapes or labels do not fit.
    """
    check_scores(logits, labels)
    shifted = _below_largest(logits)
    if not shifted.any():
        return 1.0
    doubt = 1 / (len(labels) + 2)
    labels_ask_for_more = _slope(shifted, labels, scale=1.0, doubt=0.0)[0] < 0
    return min(_minimum(shifted, labels, doubt), 1.0 if labels_ask_for_more else HOTTEST)


def _minimum(logits: NDArray[np.float64], labels: NDArray[np.int64], doubt: float) -> float:
    if _slope(logits, labels, 1 / HOTTEST, doubt)[0] >= 0:
        return HOTTEST
    if _slope(logits, labels, 1 / COLDEST, doubt)[0] <= 0:
        return COLDEST
    return 1 / _root(logits, labels, 1 / HOTTEST, 1 / COLDEST, doubt)


def _root(logits: NDArray[np.float64], labels: NDArray[np.int64], low: float, high: float, doubt: float) -> float:
    """Return the scale in (low, high) at which the slope, below 0 at `low` and above 0 at `high`, is 0.

    A Newton step that leaves the bracket, or is not half as long as the step before, is replaced by a bisection, so
    that the search cannot circle.
    """
    scale, step = 1.0, math.inf
    while high - low > TOLERANCE * low:
        slope, curvature = _slope(logits, labels, scale, doubt)
        low, high = (low, scale) if slope > 0 else (scale, high)
        newton = scale - slope / max(curvature, 1e-300)
        if abs(newton - scale) <= TOLERANCE * scale:
            return scale
        shrinks = abs(newton - scale) < step / 2
        goal = newton if shrinks and low < newton < high else math.sqrt(low * high)
        scale, step = goal, abs(goal - scale)
    return scale


def _slope(logits: NDArray[np.float64], labels: NDArray[np.int64], scale: float, doubt: float) -> tuple[float, float]:
    """Return the first and second derivative of the mean loss of softmax(scale * logits) by the scale.

    Args:
        doubt: share of each label that is spread over all classes.
    """
    probabilities = _softmax(scale * logits)
    mean = (probabilities * logits).sum(axis=1)
    variance = (probabilities * (logits - mean[:, None]) ** 2).sum(axis=1)
    true = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    expected = (1 - doubt) * true + doubt * logits.mean(axis=1)
    return float((mean - expected).mean()), float(variance.mean())


def _below_largest(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Shift each row so that its largest logit is 0, which no exponential of it can overflow."""
    wide = logits.astype(np.float64)
    return wide - wide.max(axis=-1, keepdims=True)


def _softmax(shifted: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(shifted)
    return weights / weights.sum(axis=-1, keepdims=True)
