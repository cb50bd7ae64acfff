"""What makes up for classes of unequal size does so exactly."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixlab.data.balance import balanced_order, inverse_frequencies
from mixlab.errors import UsageError
from mixlab.experiment import parse_experiment

LABELS = np.repeat([0, 1, 3], [70, 25, 6])


def test_all_classes_weigh_the_same_and_an_image_weighs_1_in_the_mean():
    weights = inverse_frequencies(LABELS, num_classes=5)
    assert weights[LABELS].mean() == pytest.approx(1)
    assert [weights[LABELS][label == LABELS].sum() for label in (0, 1, 3)] == pytest.approx([101 / 3] * 3)
    assert weights[[2, 4]].tolist() == [0, 0]
    assert inverse_frequencies(np.array([0, 1, 1, 0]), 2).tolist() == [1, 1]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(0, 99))
def test_in_a_balanced_order_classes_differ_by_one_and_so_do_the_images_of_a_class(labels: list[int], seed: int):
    order = balanced_order(np.array(labels), np.random.default_rng(seed))
    assert len(order) == len(labels)
    classes = np.bincount(np.array(labels)[order])[np.unique(labels)]
    assert classes.max() - classes.min() <= 1
    for label in np.unique(labels):
        times = np.bincount(order, minlength=len(labels))[np.array(labels) == label]
        assert times.max() - times.min() <= 1


def test_an_epochs_order_is_a_function_of_seed_and_epoch_alone():
    experiment = parse_experiment({"data": "digits", "balanced": True, "batch_size": 8})
    first = experiment.order(LABELS, epoch=0)
    assert [len(batch) for batch in first] == [8] * 12
    assert np.array_equal(first, experiment.order(LABELS, epoch=0))
    assert not np.array_equal(first, experiment.order(LABELS, epoch=1))
    other = experiment.model_copy(update={"seed": 1})
    assert not np.array_equal(first, other.order(LABELS, epoch=0))
    seen = np.concatenate([np.concatenate(experiment.order(LABELS, epoch)) for epoch in range(20)])
    assert set(seen) == set(range(101)), "over epochs every image has its turn"
    shares = np.bincount(LABELS[seen])[[0, 1, 3]] / len(seen)
    assert shares == pytest.approx([1 / 3] * 3, abs=0.02)


def test_without_balance_the_order_is_a_permutation():
    order = np.concatenate(parse_experiment({"data": "digits", "batch_size": 1}).order(LABELS, epoch=0))
    assert sorted(order) == list(range(101))


def test_both_ways_at_once_are_refused():
    with pytest.raises(UsageError, match="class_weights and balanced both make up for"):
        parse_experiment({"class_weights": True, "balanced": True})


@pytest.mark.parametrize(("smoothing", "mixup"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.5), (0.2, 0.5)])
def test_the_loss_of_a_step_is_weighted_by_class(smoothing: float, mixup: float):
    """Oracles: torch's loss of class numbers where there is no mixing; the sum written out where there is."""
    from mixlab.evaluation.inference import as_training_input
    from mixlab.training.state import fresh_model, state_of
    from mixlab.training.step import train_step

    values = {"data": "digits", "model": {"name": "convmixer", "dim": 8, "depth": 1}, "precision": "float32"}
    values |= {"class_weights": True, "label_smoothing": smoothing, "augmentation": {"mix": {"mixup": mixup}}}
    experiment = parse_experiment(values)
    data = experiment.data.load(0, carve_validation=True)
    state = state_of(fresh_model(experiment, data.spec), experiment, data, torch.device("cpu"))
    batch = data.train.batch(np.arange(16))
    inputs, targets = as_training_input(experiment, data.spec, batch, step=0, epoch=0)
    state.train_mode()
    logits = fresh_model(experiment, data.spec).train()(inputs)
    weights = torch.from_numpy(inverse_frequencies(data.train.labels, 10)).float()
    smoothed = targets * (1 - smoothing) + smoothing / 10
    expected = -(weights * smoothed * logits.log_softmax(1)).sum()
    train_step(state, experiment, data.spec, batch, rate=0.1)
    assert state.sums[0].item() == pytest.approx(expected.item(), rel=1e-5)
    if not mixup:
        numbers = torch.nn.functional.cross_entropy(
            logits, batch.labels, weights, label_smoothing=smoothing, reduction="sum"
        )
        assert state.sums[0].item() == pytest.approx(numbers.item(), rel=1e-5)
    assert weights.max() - weights.min() > 0.01, "digits are not quite balanced, or this shows nothing"
