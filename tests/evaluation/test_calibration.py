"""Claims about temperature scaling, against a grid and a known truth."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional

from mixlab.errors import DataError, UsageError
from mixlab.evaluation.calibration import COLDEST, HOTTEST, fit_temperature, softmax
from mixlab.evaluation.metrics import reliability

Logits = tuple[NDArray[np.float64], NDArray[np.int64]]


def drawn(images: int, classes: int, temperature: float, seed: int = 0) -> Logits:
    """Return logits (images, classes) and labels (images,) drawn from softmax(logits / temperature)."""
    generator = np.random.default_rng(seed)
    logits = 3 * temperature * generator.normal(size=(images, classes))
    gumbel = generator.gumbel(size=logits.shape)  # the largest of logits + Gumbel noise is a draw from their softmax
    return logits, (logits / temperature + gumbel).argmax(axis=1)


def loss(logits: NDArray[np.float64], labels: NDArray[np.int64], temperature: float) -> float:
    scores, targets = torch.from_numpy(logits / temperature), torch.from_numpy(labels)
    return float(functional.cross_entropy(scores, targets, label_smoothing=1 / (len(labels) + 2)))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_recovers_the_temperature_that_labels_were_drawn_with(temperature: float) -> None:
    logits, labels = drawn(20_000, 10, temperature)
    fitted = fit_temperature(logits, labels)
    assert fitted == pytest.approx(temperature, rel=0.03)
    assert reliability(softmax(logits, fitted), labels).ece < 0.015


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(2, 8), st.floats(0.02, 50), st.integers(0, 2**32 - 1))
def test_no_temperature_of_a_grid_has_a_lower_loss(images: int, classes: int, temperature: float, seed: int) -> None:
    logits, labels = drawn(images, classes, temperature, seed)
    found = fit_temperature(logits, labels)
    assert COLDEST <= found <= HOTTEST
    hottest = 1.0 if found == 1 else HOTTEST  # where the labels alone ask for more confidence
    lowest = min(loss(logits, labels, each) for each in np.geomspace(COLDEST, hottest, 200))
    assert loss(logits, labels, found) <= lowest + 1e-12


@settings(max_examples=40, deadline=None)
@given(st.floats(COLDEST, HOTTEST), st.integers(0, 2**32 - 1))
def test_temperature_changes_no_answer(temperature: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(20, 7))
    probabilities = softmax(logits, temperature)
    assert np.array_equal(probabilities.argmax(axis=1), logits.argmax(axis=1))
    assert probabilities.sum(axis=1) == pytest.approx(1)


def test_scaling_logits_scales_the_temperature() -> None:
    logits, labels = drawn(500, 5, 1.0)
    assert fit_temperature(4 * logits, labels) == pytest.approx(4 * fit_temperature(logits, labels), rel=1e-8)


def test_the_fit_in_single_precision_is_the_same() -> None:
    logits, labels = drawn(500, 5, 2.0)
    assert fit_temperature(logits.astype(np.float32), labels) == pytest.approx(fit_temperature(logits, labels))


def test_all_right_is_no_certainty_but_more_of_it_is_surer() -> None:
    few, many = drawn(20, 4, 1.0)[0], drawn(200, 4, 1.0)[0]
    surest = [fit_temperature(logits, logits.argmax(axis=1)) for logits in (few, many)]
    assert COLDEST < surest[1] < surest[0] < 1


def test_doubt_takes_no_confidence_away_where_every_answer_is_right() -> None:
    logits = 12 * np.eye(8)[np.arange(16) % 8]
    wary = min(np.geomspace(COLDEST, HOTTEST, 200), key=lambda each: loss(logits, np.arange(16) % 8, each))
    assert wary > 1
    assert fit_temperature(logits, np.arange(16) % 8) == 1


def test_all_wrong_ends_at_the_hot_bound() -> None:
    logits, _ = drawn(50, 4, 1.0)
    assert fit_temperature(logits, logits.argmin(axis=1)) == HOTTEST


def test_logits_that_are_all_equal_keep_the_temperature_one() -> None:
    assert fit_temperature(np.full((5, 3), 7.0), np.array([0, 1, 2, 0, 1])) == 1


def test_softmax_of_huge_logits_neither_overflows_nor_loses_its_sum() -> None:
    probabilities = softmax(np.array([[1e6, 0.0, -1e6], [1000.0, 1000.0, -1000.0]]))
    assert probabilities.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]


def test_softmax_gives_double_precision_from_single() -> None:
    assert softmax(np.ones((2, 3), dtype=np.float32)).dtype == np.float64


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_refuses_a_temperature_that_is_not_above_zero(temperature: float) -> None:
    with pytest.raises(UsageError, match="expected a number above 0"):
        softmax(np.ones((1, 2)), temperature)


def test_refuses_no_images_and_logits_that_are_not_finite() -> None:
    with pytest.raises(DataError, match="nothing to measure"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int))
    with pytest.raises(DataError, match="not finite"):
        fit_temperature(np.array([[np.inf, 0.0]]), np.array([0]))
