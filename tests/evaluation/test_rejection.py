"""The threshold from which answers are accepted: exact bounds, honest promises, plain refusals."""

import contextlib

import numpy as np
import pytest

from mixlab.errors import RunError, UsageError
from mixlab.evaluation.rejection import LEVEL, RANKS, accepted_by_rank, choose, precision_bound, with_rejection
from mixlab.models.catalogue import parse_model
from mixlab.run.bundle import Accepted, BundleDescription
from mixlab.spec import DataSpec


def point(accepted: int, right: int) -> Accepted:
    return Accepted(threshold=0.5, accepted=accepted, right=right)


def drawn(seed: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences, uniform in [0, 1], and answers of which confidence**2 are right."""
    generator = np.random.default_rng(seed)
    confidence = generator.random(images)
    return confidence, generator.random(images) < confidence**2


def true_precision(threshold: float) -> float:
    return (1 - threshold**3) / 3 / (1 - threshold)


def test_the_bound_is_that_of_clopper_and_pearson():
    assert precision_bound(point(145, 145)) == pytest.approx((LEVEL / RANKS) ** (1 / 145))
    assert precision_bound(point(5000, 4700)) == pytest.approx(0.92997105)  # scipy.stats.beta.ppf(0.0025, 4700, 301)
    assert precision_bound(point(50, 0)) == 0


def test_each_threshold_accepts_what_it_says_and_the_last_accepts_all():
    confidence, right = drawn(0, 999)
    points = accepted_by_rank(confidence, right)
    for each in points:
        accepted = confidence >= each.threshold
        assert (accepted.sum(), right[accepted].sum()) == (each.accepted, each.right)
    assert [each.accepted for each in points] == [999 * step // 20 for step in range(1, 21)]
    assert points[-1].threshold == 0


@pytest.mark.parametrize("confidence", [[1.0] * 50, [0.9], [0.5] * 30 + [0.9] * 2])
def test_equal_confidences_are_accepted_together(confidence: list[float]):
    points = accepted_by_rank(np.array(confidence), np.ones(len(confidence), bool))
    counts = {0, *(confidence.count(value) for value in confidence), len(confidence)}
    assert {each.accepted for each in points} <= counts
    assert all(each.threshold <= 1 for each in points)


def test_the_promise_is_kept_though_a_naive_choice_would_break_it():
    wished, broken, naive = 0.7, 0, 0
    for seed in range(100):
        points = accepted_by_rank(*drawn(seed, 400))
        with contextlib.suppress(RunError):
            broken += true_precision(choose(points, wished).threshold) < wished
        seeming = [each.threshold for each in points if each.right >= wished * each.accepted]
        naive += bool(seeming) and true_precision(min(seeming)) < wished
    assert broken <= LEVEL * 100
    assert naive > 0.3 * 100


def test_with_more_images_the_best_threshold_is_found():
    threshold = choose(accepted_by_rank(*drawn(0, 100_000)), 0.8).threshold
    assert 0.784 < threshold < 0.841  # 0.8 is reached at 0.784; ranks are 0.05 apart


def test_what_cannot_be_promised_says_how_many_images_it_takes():
    with pytest.raises(
        RunError, match=r"^100 validation images cannot vouch for precision=0.99, only for .*about 600 "
    ):
        choose([point(100, 100)], 0.99)
    assert precision_bound(point(600, 600)) > 0.99 > precision_bound(point(580, 580))
    with pytest.raises(RunError, match="; more than 100 times as many could, if"):
        choose([point(20_000, 19_001)], 0.95)
    with pytest.raises(RunError, match="about 130,000 could"):  # 127,802 by the normal approximation
        choose([point(50_000, 37_670)], 0.75)
    with pytest.raises(RunError, match=r"the surest 100 are right in 90.0%, and more images would not change that"):
        choose([point(100, 90)], 0.9)
    with pytest.raises(RunError, match="there are no validation images that could vouch for it"):
        choose([], 0.9)


def test_a_wish_is_a_confidence_or_a_precision(spec: DataSpec):
    points = accepted_by_rank(*drawn(0, 1000))
    plain = BundleDescription(mixlab="", model=parse_model("convmixer"), spec=spec, accepted=points, reject_below=0.2)
    assert with_rejection(plain, "").reject_below == 0.2
    assert with_rejection(plain, "0").reject_below == 0
    assert with_rejection(plain, "precision=0.7").reject_below == choose(points, 0.7).threshold > 0.5
    for text in (
        "high",
        "1.1",
        "-0.1",
        "nan",
        "70%",
        "precision=1",
        "precision=",
        "recall=0.9",
        "=0.7",
        "precision=95",
    ):
        with pytest.raises(UsageError, match=r"expected a confidence such as 0\.7, or precision=0.95"):
            with_rejection(plain, text)
