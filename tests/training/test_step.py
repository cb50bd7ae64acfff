"""One step: what it draws, and what the parts of a batch have in common."""

import copy

import numpy as np
import pytest
import torch

from mixlab.data.data_set import DataSet
from mixlab.data.images import MemoryImages
from mixlab.evaluation.inference import as_training_input
from mixlab.experiment import Experiment, parse_experiment
from mixlab.spec import DataSpec
from mixlab.training.state import TrainState, fresh_model, state_of
from mixlab.training.step import train_step

CPU = torch.device("cpu")


@pytest.fixture
def images() -> MemoryImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return MemoryImages(pixels, np.arange(12) % 3, tuple(map(str, range(12))))


def experiment(**fields) -> Experiment:
    model = {"name": "convmixer", "dim": 8, "depth": 1, "kernel_size": 3}
    return parse_experiment({"model": model, "batch_size": 12, "precision": "float32", **fields})


def fresh(chosen: Experiment, images: MemoryImages, spec: DataSpec) -> TrainState:
    data = DataSet(spec, train=images, validation=images, test=images)
    state = state_of(fresh_model(chosen, spec), chosen, data, CPU)
    state.train_mode()
    return state


def test_each_step_draws_anew_and_the_same_step_the_same(images: MemoryImages, spec: DataSpec):
    chosen, batch = experiment(augmentation={"random_erasing": {"probability": 1.0}}), images.batch(np.arange(12))
    first, again, second = (as_training_input(chosen, spec, batch, step, epoch=0)[0] for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_a_picture_that_cannot_be_read_changes_no_draw_of_the_others(images: MemoryImages, spec: DataSpec):
    chosen = experiment(augmentation={"resized_crop": {"scale": [0.3, 1.0]}})
    whole, _ = as_training_input(chosen, spec, images.batch(np.arange(12)), step=3, epoch=0)
    damaged = MemoryImages(images.images, images.labels, images.names, readable=np.arange(12) != 4)
    rest, _ = as_training_input(chosen, spec, damaged.batch(np.arange(12)), step=3, epoch=0)
    assert torch.equal(rest, whole[np.arange(12) != 4])


def test_running_statistics_are_the_mean_of_what_each_part_makes_of_them(images: MemoryImages, spec: DataSpec):
    chosen, batch = experiment(accumulate=3), images.batch(np.arange(12))
    inputs, _ = as_training_input(chosen, spec, batch, step=0, epoch=0)
    state = fresh(chosen, images, spec)
    expected = []
    for part in inputs.split(4):
        model = copy.deepcopy(state.model)
        model(part)
        expected.append(model.stem[2].running_var)  # pyright: ignore
    train_step(state, chosen, spec, batch, rate=0.0)
    torch.testing.assert_close(state.model.stem[2].running_var, torch.stack(expected).mean(0))  # pyright: ignore
