import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mixlab.errors import Interrupted, TrainingError
from mixlab.experiment import Experiment, parse_experiment
from mixlab.run.checkpoint import load_newest
from mixlab.run.folder import Run
from mixlab.training import guard, loop, step
from mixlab.training.session import Options
from mixlab.training.train import train
from tests.training.test_training import content

FAULTS = ("gradient", "input", "loss", "weight", "buffer")


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(device="cpu", workers=0, out=tmp_path / "runs", quiet=True)


def experiment(tiny: dict, on_nan: str) -> Experiment:
    return parse_experiment(tiny | {"on_nan": on_nan, "weight_average": 0.9})


def poison(monkeypatch: pytest.MonkeyPatch, fault: str, steps: set[int], value: float = float("nan")) -> None:
    """Put a number that is not finite into some steps, each time they are taken."""
    real = step.train_step

    def poisoned(state, experiment, spec, batch, *rest):
        if state.step not in steps:
            return real(state, experiment, spec, batch, *rest)
        weight = next(iter(state.model.parameters()))
        if fault == "input":
            batch = replace(batch, images=(batch.images / 255).index_fill(0, torch.tensor(0), value))
        if fault == "weight":
            weight.data[0] = value
        if fault == "gradient":
            handle = weight.register_hook(lambda gradient: torch.full_like(gradient, value))
            real(state, experiment, spec, batch, *rest)
            return handle.remove()
        real(state, experiment, spec, batch, *rest)
        if fault == "loss":
            state.sums[0] = value
        if fault == "buffer":
            next(iter(state.model.buffers())).view(-1)[0] = value
        return None

    monkeypatch.setattr(loop, "train_step", poisoned)


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Send SIGTERM to this process before a step."""
    real = loop.train_step

    def stopped(state, *arguments):
        if state.step == number:
            os.kill(os.getpid(), signal.SIGTERM)
        real(state, *arguments)

    monkeypatch.setattr(loop, "train_step", stopped)


@pytest.mark.parametrize("fault", ["gradient", *(pytest.param(name, marks=pytest.mark.slow) for name in FAULTS[1:])])
def test_a_step_that_goes_wrong_stops_the_training_by_name(tiny: dict, options: Options, monkeypatch, fault: str):
    poison(monkeypatch, fault, {4})
    with pytest.raises(TrainingError, match=r"step 4 left a number .* its files: \S+png, \S+png, \S+png and 5 more"):
        train(experiment(tiny, "stop"), options)
    checkpoint, _ = load_newest(Run(next(options.out.iterdir())))
    assert checkpoint is not None
    assert checkpoint.step == 3
    assert all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())


@pytest.mark.parametrize("on_nan", ["skip", pytest.param("rollback", marks=pytest.mark.slow)])
def test_a_step_that_goes_wrong_is_as_if_it_had_not_been(tiny: dict, options: Options, monkeypatch, on_nan: str):
    """However it goes on: skipped, gone back, stopped in between, or looked at late as on an accelerator."""
    poison(monkeypatch, "gradient", {1, 4}, float("inf"))
    whole = train(experiment(tiny, on_nan), options)
    assert [row["step"] for row in whole.skipped()] == [1, 4]
    assert [row["skipped_steps"] for row in whole.metrics()] == [1, 1]
    assert len(whole.skipped()[0]["files"]) == 8
    shutil.move(whole.folder, options.out.parent / "whole")
    whole = Run(options.out.parent / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(Interrupted):
            train(experiment(tiny, on_nan), options)
    assert content(train(experiment(tiny, on_nan), options)) == content(whole)
    shutil.rmtree(options.out)
    monkeypatch.setattr(guard, "is_asked", lambda device: False)
    assert content(train(experiment(tiny, on_nan), options)) == content(whole)


@pytest.mark.slow
def test_skip_and_rollback_end_with_the_same_weights(tiny: dict, options: Options, monkeypatch):
    poison(monkeypatch, "input", {0, 3})
    runs = [train(experiment(tiny, on_nan), options) for on_nan in ("skip", "rollback")]
    weights = [content(run)["bundle/model.safetensors"] for run in runs]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_rollback_heals_what_went_wrong_between_steps_and_a_skip_gives_up(tiny: dict, options: Options, monkeypatch):
    real, sick = guard.take, []

    def poisoned(session, state, take_step):
        if state.step == 3 and session.experiment.on_nan not in sick:
            sick.append(session.experiment.on_nan)
            next(iter(state.model.parameters())).data[0] = float("nan")
        real(session, state, take_step)

    monkeypatch.setattr(guard, "take", poisoned)
    assert [row["step"] for row in train(experiment(tiny, "rollback"), options).skipped()] == [3]
    with pytest.raises(TrainingError, match=r"step 5 left a number .* and so did 2 right before it"):
        train(experiment(tiny, "skip"), options)


@pytest.mark.slow
def test_a_training_that_only_goes_wrong_is_given_up(tiny: dict, options: Options, monkeypatch):
    poison(monkeypatch, "loss", set(range(100)))
    for on_nan in ("skip", "rollback"):
        with pytest.raises(TrainingError, match=r"step 2 left a number .* and so did 2 right before it"):
            train(experiment(tiny, on_nan), options)


def test_answers_that_are_not_finite_are_never_written(tiny: dict, options: Options, monkeypatch):
    real = loop.inference.iterate

    def poisoned(*arguments, **named):
        for logits, batch in real(*arguments, **named):
            yield logits.index_fill(0, torch.tensor(1), float("inf")), batch

    monkeypatch.setattr(loop.inference, "iterate", poisoned)
    with pytest.raises(TrainingError, match=r"after step 3 the answers to 1 validation pictures .* such as to \S+png"):
        train(experiment(tiny, "stop"), options)
    run = Run(next(options.out.iterdir()))
    assert run.metrics() == []
    assert json.loads((run.folder / "experiment.json").read_text())["on_nan"] == "stop"
