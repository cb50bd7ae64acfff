"""One step: what it draws, and what the parts of a batch have in common."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mixlab.data.data_set import DataSet
from mixlab.data.images import MemoryImages
from mixlab.evaluation.inference import as_training_input
from mixlab.experiment import Experiment, parse_experiment
from mixlab.kernels import graphs
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


class Captures:
    """In place of graphs: work that reads where the first inputs lay, as a graph does."""

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []

    def captured(self, work: graphs.Work, given: tuple, model: nn.Module, kept: list) -> graphs.Work:
        self.shapes.append(given[0].shape)
        held = [tensor.clone() for tensor in given]

        def replay(*tensors: torch.Tensor) -> None:
            for place, tensor in zip(held, tensors, strict=True):
                place.copy_(tensor)
            work(*held)

        return replay


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> Captures:
    found = Captures()
    monkeypatch.setattr(graphs, "is_usable", lambda device: True)
    monkeypatch.setattr(graphs, "captured", found.captured)
    return found


def test_steps_of_one_shape_are_one_graph_with_the_inputs_of_each(
    images: MemoryImages, spec: DataSpec, captures: Captures
):
    chosen = experiment(augmentation={"random_erasing": {"probability": 1.0}}, batch_size=6)
    as_graph, plain = (fresh(chosen, images, spec) for _ in range(2))
    batches = [images.batch(np.arange(start, start + 6)) for start in (0, 6, 3)]
    for batch in batches:
        train_step(as_graph, chosen, spec, batch, rate=0.01)
    assert captures.shapes == [(6, 3, 16, 16)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "is_usable", lambda device: False)
        for batch in batches:
            train_step(plain, chosen, spec, batch, rate=0.01)
    left, right = as_graph.tensors(), plain.tensors()
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def test_another_graph_is_captured_where_sizes_or_what_learns_have_changed(
    images: MemoryImages, spec: DataSpec, captures: Captures
):
    chosen, batch = experiment(), images.batch(np.arange(12))
    state = fresh(chosen, images, spec)
    small = spec.model_copy(update={"image_size": 8})
    for own_spec in (small, small, spec, spec):
        train_step(state, chosen, own_spec, batch, rate=0.01)
    state.freeze_filters()
    train_step(state, chosen, spec, batch, rate=0.01)
    assert [shape[-1] for shape in captures.shapes] == [8, 16, 16]


def test_a_batch_with_a_missing_picture_or_several_parts_is_no_graph(
    images: MemoryImages, spec: DataSpec, captures: Captures
):
    damaged = MemoryImages(images.images, images.labels, images.names, readable=np.arange(12) != 4)
    chosen, in_parts = experiment(), experiment(accumulate=2)
    train_step(fresh(chosen, images, spec), chosen, spec, damaged.batch(np.arange(12)), rate=0.01)
    train_step(fresh(in_parts, images, spec), in_parts, spec, images.batch(np.arange(12)), rate=0.01)
    assert captures.shapes == []


def test_what_cannot_be_captured_is_done_as_it_is_and_changes_nothing(images: MemoryImages, spec: DataSpec):
    model = fresh(experiment(), images, spec).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sums = torch.zeros(3)

    def work(x: torch.Tensor) -> None:
        model(x).sum().backward()
        sums.add_(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.warns(UserWarning, match="training steps are not captured in a graph"):
        assert graphs.captured(work, [torch.rand(2, 3, 16, 16)], model, [sums]) is work
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert sums.tolist() == [0, 0, 0]
    assert all(parameter.grad is None for parameter in model.parameters())
