"""Claims about metrics, against scikit-learn, published tables and slow forms."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mixlab.errors import DataError
from mixlab.evaluation.metrics import BINS, BOOTSTRAP_SEED, RESAMPLES, Estimate, Metrics, measure, reliability, wilson

Sample = tuple[NDArray[np.float64], NDArray[np.int64]]


def sample(images: int, classes: int, seed: int = 0) -> Sample:
    """Return random probabilities (images, classes), better than chance, and labels (images,)."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=images)
    logits = generator.normal(size=(images, classes))
    logits[np.arange(images), labels] += 1
    weights = np.exp(2 * logits)
    return weights / weights.sum(axis=1, keepdims=True), labels


def names(count: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(count))


@pytest.mark.parametrize("classes", [2, 3, 10, 40])
def test_agrees_with_scikit_learn(classes: int) -> None:
    oracle = pytest.importorskip("sklearn.metrics")
    probabilities, labels = sample(400, classes)
    found, predictions = measure(probabilities, labels, names(classes)), probabilities.argmax(axis=1)
    everything = range(classes)
    assert found.confusion == tuple(map(tuple, oracle.confusion_matrix(labels, predictions, labels=everything)))
    assert found.loss.value == pytest.approx(oracle.log_loss(labels, probabilities, labels=everything))
    assert found.top1.value == pytest.approx(oracle.accuracy_score(labels, predictions))
    precision, recall, f1, images = oracle.precision_recall_fscore_support(labels, predictions, labels=everything)
    for each, *expected in zip(found.per_class, precision, recall, f1, images, strict=True):
        assert each.precision is not None
        assert each.recall is not None
        measured = [each.precision.value, each.recall.value, each.f1, each.images]
        assert measured == pytest.approx(expected)


@pytest.mark.parametrize("classes", [6, 40])
def test_top_five_agrees_with_scikit_learn(classes: int) -> None:
    oracle = pytest.importorskip("sklearn.metrics")
    probabilities, labels = sample(400, classes)
    expected = oracle.top_k_accuracy_score(labels, probabilities, k=5, labels=range(classes))
    assert measure(probabilities, labels, names(classes)).top5.value == pytest.approx(expected)


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_top_five_of_up_to_five_classes_is_always_right(classes: int) -> None:
    assert measure(*sample(20, classes), names(classes)).top5.value == 1


def test_equal_probabilities_rank_in_the_order_of_the_classes() -> None:
    found = measure(np.full((8, 8), 1 / 8), np.arange(8), names(8))
    assert found.top1.value == 1 / 8
    assert found.top5.value == 5 / 8
    assert [row[0] for row in found.confusion] == [1] * 8


def test_calibration_error_of_a_case_worked_by_hand() -> None:
    # Confidences 0.9 0.9 (one right), 0.6 (right), 0.6 (wrong): |0.5 - 0.9| * 2/4 + |0.5 - 0.6| * 2/4 = 0.25
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 1])
    assert measure(probabilities, labels, names(2)).ece.value == pytest.approx(0.25)
    bins = reliability(probabilities, labels)
    assert bins.ece == pytest.approx(0.25)
    assert np.flatnonzero(bins.count).tolist() == [8, 13]
    assert bins.accuracy[[8, 13]].tolist() == [0.5, 0.5]
    assert np.isnan(bins.confidence[0])


def test_bins_are_open_below_and_closed_above() -> None:
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]])
    assert reliability(probabilities, np.zeros(3, dtype=int), bins=4).count.tolist() == [0, 1, 1, 1]


# Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 100_000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilson_holds_the_share_and_mirrors(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert low < high
    assert wilson(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_counts_that_cannot_be(successes: int, trials: int) -> None:
    with pytest.raises(DataError, match="expected 0 <= successes <= trials"):
        wilson(successes, trials)


def test_bootstrap_is_the_slow_form() -> None:
    probabilities, labels = sample(60, 4)
    generator, losses, errors = np.random.default_rng(BOOTSTRAP_SEED), [], []
    for _ in range(RESAMPLES):
        drawn = generator.integers(60, size=60)
        losses.append(-np.log(probabilities[drawn, labels[drawn]]).mean())
        errors.append(reliability(probabilities[drawn], labels[drawn], BINS).ece)
    found = measure(probabilities, labels, names(4))
    assert [found.loss.low, found.loss.high] == pytest.approx(np.percentile(losses, [2.5, 97.5]))
    assert [found.ece.low, found.ece.high] == pytest.approx(np.percentile(errors, [2.5, 97.5]))


def test_interval_of_the_loss_covers_the_truth_about_95_times_in_a_hundred() -> None:
    probabilities, labels = sample(200_000, 3, seed=999)
    truth = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    found = [measure(*sample(100, 3, seed), names(3)).loss for seed in range(100)]
    assert 88 <= sum(each.low <= truth <= each.high for each in found) <= 100


def estimates(metrics: Metrics) -> list[Estimate]:
    shares = [share for each in metrics.per_class for share in (each.precision, each.recall) if share]
    return [metrics.top1, metrics.top5, metrics.loss, metrics.ece, *shares]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_every_number_fits_every_other(images: int, classes: int, seed: int) -> None:
    probabilities, labels = sample(images, classes, seed)
    found = measure(probabilities, labels, names(classes))
    assert all(each.low <= each.value <= each.high for each in estimates(found))
    assert found.images == images == np.sum(found.confusion) == sum(each.images for each in found.per_class)
    assert found.top1.value == pytest.approx(np.trace(found.confusion) / images)
    assert found.top1.value <= found.top5.value <= 1
    assert found.ece.value == pytest.approx(reliability(probabilities, labels).ece)
    assert all((each.recall is None) == (each.images == 0) for each in found.per_class)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_images_changes_no_value(seed: int) -> None:
    probabilities, labels = sample(30, 5, seed)
    order = np.random.default_rng(seed).permutation(30)
    found, shuffled = (measure(probabilities[rows], labels[rows], names(5)) for rows in (slice(None), order))
    assert found.confusion == shuffled.confusion
    assert [each.value for each in estimates(found)] == pytest.approx([each.value for each in estimates(shuffled)])


def test_a_class_without_images_or_predictions_says_so() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1]])
    right, never_predicted, absent = measure(probabilities, np.array([0, 1]), names(3)).per_class
    assert right.recall is not None
    assert right.recall.value == 1
    assert never_predicted.precision is None
    assert never_predicted.recall is not None
    assert never_predicted.f1 == 0
    assert absent.precision is None
    assert absent.recall is None
    assert absent.f1 is None


def test_a_true_class_of_probability_zero_has_a_finite_loss() -> None:
    found = measure(np.array([[1.0, 0.0]]), np.array([1]), names(2))
    assert 700 < found.loss.value < 710


def test_survives_json_unchanged() -> None:
    found = measure(*sample(50, 12), names(12))
    assert Metrics.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("probabilities", "labels", "complaint"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=int), "nothing to measure"),
        (np.full((3, 2), 0.5), np.zeros(2, dtype=int), "expected .images, classes. and .images,."),
        (np.full((2, 2), 0.5), np.array([0, 2]), "labels from 0 to 2"),
        (np.full((2, 2), 0.5), np.array([-1, 1]), "labels from -1 to 1"),
        (np.array([[np.nan, 1.0]]), np.array([0]), "not finite"),
        (np.array([[3.0, -1.0]]), np.array([0]), "were logits given"),
        (np.full((2, 4), 0.25), np.array([0, 1]), "4 probabilities an image, but 2 class names"),
    ],
)
def test_refuses_what_does_not_fit(probabilities: NDArray, labels: NDArray, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        measure(probabilities, labels, names(2))


def test_ten_thousand_images_take_under_a_second() -> None:
    probabilities, labels = sample(10_000, 10)
    start = time.process_time()
    measure(probabilities, labels, names(10))
    assert time.process_time() - start < 1
