"""Orders and splits hold for every input."""

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import numpy as np
import pytest

from mixlab.data.splits import carve, natural_key
from mixlab.errors import UsageError

LABELS = st.lists(st.integers(0, 5), max_size=120).map(lambda labels: np.array(labels, np.int64))
FRACTIONS = st.lists(st.floats(0, 0.33), max_size=2)


def test_numbers_sort_by_value():
    names = ["img10", "img2", "img1", "b", "a", "10", "2", "01", "1", "10a2", "10a10"]
    ordered = ["01", "1", "2", "10", "10a2", "10a10", "a", "b", "img1", "img2", "img10"]
    assert sorted(names, key=natural_key) == ordered


@hypothesis.given(st.sets(st.text("ab01 é", max_size=6)), st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_the_order_of_the_input(names, random):
    shuffled = list(names)
    random.shuffle(shuffled)
    assert sorted(shuffled, key=natural_key) == sorted(names, key=natural_key)


@hypothesis.given(st.lists(st.text(st.characters(blacklist_characters="0123456789"))))
def test_names_without_digits_sort_as_strings(names):
    assert sorted(names, key=natural_key) == sorted(names)


def test_a_very_long_number_has_a_key():
    assert natural_key("9" * 10_000) < natural_key("1" + "0" * 10_000)


@hypothesis.given(LABELS, FRACTIONS, st.integers(0, 9))
def test_parts_are_disjoint_sorted_and_complete(labels, fractions, seed):
    parts = carve(labels, fractions, np.random.default_rng(seed))
    assert len(parts) == len(fractions) + 1
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))


@hypothesis.given(LABELS, FRACTIONS, st.integers(0, 9))
def test_each_class_is_in_training_and_in_every_part_it_can_fill(labels, fractions, seed):
    *parts, rest = carve(labels, fractions, np.random.default_rng(seed))
    asked = [part for part, fraction in zip(parts, fractions, strict=True) if fraction > 0]
    for label, images in zip(*np.unique(labels, return_counts=True), strict=True):
        assert label in labels[rest]
        if images >= len(asked) + 1:
            assert all(label in labels[part] for part in asked)


def test_shares_are_those_asked_for():
    labels = np.repeat([0, 1], [100, 40])
    validation, test, train = carve(labels, [0.15, 0.1], np.random.default_rng(0))
    assert np.bincount(labels[validation]).tolist() == [15, 6]
    assert np.bincount(labels[test]).tolist() == [10, 4]
    assert np.bincount(labels[train]).tolist() == [75, 30]


def test_a_share_of_zero_is_empty():
    assert [len(part) for part in carve(np.zeros(9, np.int64), [0.0, 0.2], np.random.default_rng(0))] == [0, 2, 7]


def test_the_same_seed_gives_the_same_parts_and_another_does_not():
    labels = np.repeat(np.arange(4), 50)
    first, again, other = (carve(labels, [0.2], np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("fractions", [[0.5, 0.5], [-0.1], [1.0], [float("nan")]])
def test_impossible_fractions_are_refused(fractions):
    with pytest.raises(UsageError, match="split fractions"):
        carve(np.zeros(4, np.int64), fractions, np.random.default_rng(0))
