import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import multinomial

from mixlab.errors import DataError
from mixlab.evaluation.paired import paired_difference, score_interval, student


def answers(generator: np.random.Generator, seeds: int, images: int, spread: float, skill: float = 0.0) -> list:
    """Simulate a model: images differ in difficulty, trainings in skill, and each answer has some luck."""
    difficulty = np.random.default_rng(0).normal(1.0, 1.5, images)
    return [
        difficulty + skill + generator.normal(0, spread) + generator.normal(0, 0.7, images) > 0 for _ in range(seeds)
    ]


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("spread", [0.0, 0.05, 0.2])
def test_equal_models_are_called_different_in_at_most_one_of_twenty(seeds: int, spread: float):
    generator = np.random.default_rng(1)
    claims = [
        paired_difference(
            answers(generator, seeds, 300, spread), answers(generator, seeds, 300, spread)
        ).verdict != "within noise"
        for _ in range(200)
    ]  # fmt: skip
    assert np.mean(claims) <= 0.05


def test_a_real_difference_is_found():
    generator = np.random.default_rng(2)
    found = [
        paired_difference(answers(generator, 5, 1000, 0.02, skill=0.3), answers(generator, 5, 1000, 0.02))
        for _ in range(20)
    ]
    assert all(each.verdict == "better" for each in found)
    turned = paired_difference(answers(generator, 5, 1000, 0.02), answers(generator, 5, 1000, 0.02, skill=0.3))
    assert turned.verdict == "worse"


def test_without_seeds_that_differ_the_interval_is_that_of_the_images():
    """One seed: the percentile interval of a mean nears the normal one of the paired gains."""
    generator = np.random.default_rng(3)
    first, second = generator.random(2000) < 0.8, generator.random(2000) < 0.7
    found = paired_difference([first], [second])
    gains = first.astype(float) - second
    half = 1.96 * gains.std() / np.sqrt(2000)
    assert found.value == pytest.approx(gains.mean())
    assert found.low == pytest.approx(gains.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(gains.mean() + half, abs=0.1 * half)
    assert not found.speaks_of_training
    assert found.only_first == (gains > 0).sum()
    assert found.only_second == (gains < 0).sum()


def test_where_only_seeds_differ_the_interval_is_students():
    """Every image behaves alike within a seed, so that seeds are all there is."""
    shares = [0.10, 0.16, 0.13, 0.12]
    images = 1000
    first = [np.arange(images) < images * (0.5 + share) for share in shares]
    second = [np.arange(images) < images * 0.5 for _ in shares]
    found = paired_difference(first, second)
    expected = stats.t.interval(0.95, 3, loc=np.mean(shares), scale=stats.sem(shares))
    by_image = np.mean(first, axis=0) - np.mean(second, axis=0)
    half = np.hypot((expected[1] - expected[0]) / 2, 1.96 * by_image.std() / np.sqrt(images))
    assert found.high - found.low == pytest.approx(2 * half, rel=0.06)


@pytest.mark.parametrize("freedom", [1, 2, 3, 10, 11, 20, 100])
def test_quantiles_are_students(freedom: int):
    assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-3)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 10**6))
def test_turning_the_pair_round_turns_the_interval_round(seeds: int, images: int, seed: int):
    generator = np.random.default_rng(seed)
    first, second = (list(generator.random((seeds, images)) < 0.6) for _ in range(2))
    found, turned = paired_difference(first, second), paired_difference(second, first)
    assert found.value == pytest.approx(-turned.value)
    assert found.low <= found.value <= found.high
    assert -1 <= found.value <= 1
    assert (found.only_first, found.only_second) == (turned.only_second, turned.only_first)
    assert paired_difference(first, first).verdict == "within noise"


@pytest.mark.parametrize(
    ("first", "second"),
    [([], []), ([np.zeros(3, bool)], []), ([np.zeros(3, bool)], [np.zeros(4, bool)]), ([np.zeros(0, bool)],) * 2],
)
def test_what_cannot_be_paired_is_refused(first: list, second: list):
    with pytest.raises(DataError, match="compared"):
        paired_difference(first, second)


@pytest.mark.parametrize("shares", [(0.02, 0.0), (0.02, 0.02), (0.05, 0.1), (0.3, 0.1), (0.5, 0.3), (0.01, 0.05)])
def test_the_interval_of_one_pair_holds_the_truth_as_often_as_it_says(shares: tuple[float, float]):
    """Counted over all outcomes of 30 images, with their probabilities."""
    cells = [(first, second) for first in range(31) for second in range(31 - first)]
    chances = multinomial.pmf([(a, b, 30 - a - b) for a, b in cells], 30, [*shares, 1 - sum(shares)])
    low, high = np.array([score_interval(a, b, 30) for a, b in cells]).T
    truth = shares[0] - shares[1]
    assert chances[low > truth].sum() <= 0.025
    assert chances[high < truth].sum() <= 0.025


def test_the_interval_of_one_pair_is_that_of_the_normal_approximation_where_many_images_differ():
    low, high = score_interval(1000, 800, 10_000)
    assert (low + high) / 2 == pytest.approx(0.02, abs=2e-4)
    assert (high - low) / 2 == pytest.approx(1.96 * (1800 - 4) ** 0.5 / 10_000, rel=0.05)


def test_images_that_never_differ_leave_room_for_a_difference():
    assert score_interval(0, 0, 1000) == pytest.approx((-0.0056, 0.0056), abs=1e-4)
