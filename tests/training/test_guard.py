import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from mixlab.errors import Interrupted, TrainingError
from mixlab.experiment import Experiment, parse_experiment
from mixlab.run.folder import Run
from mixlab.training import guard, loop
from mixlab.training.session import Options
from mixlab.training.train import train
from tests.training.test_training import content
from torture.not_finite import poisoned, stopped

NAN = float("nan")


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(device="cpu", workers=0, out=tmp_path / "runs", quiet=True)


def experiment(tiny: dict, on_nan: str) -> Experiment:
    return parse_experiment(tiny | {"on_nan": on_nan, "weight_average": 0.9})


@pytest.fixture
def entered():
    """What is entered here is left at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


@pytest.mark.slow
@pytest.mark.parametrize("on_nan", ["skip", "rollback"])
def test_a_step_that_goes_wrong_is_as_if_it_had_not_been(
    tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch, entered, on_nan: str
):
    """However it goes on: skipped, gone back, stopped in between, or looked at late as on an accelerator."""
    entered(poisoned("gradient", {1, 4}, float("inf")))
    whole = train(experiment(tiny, on_nan), options)
    assert [row["step"] for row in whole.skipped()] == [1, 4]
    assert [row["skipped_steps"] for row in whole.metrics()] == [1, 1]
    assert len(whole.skipped()[0]["files"]) == 8
    shutil.move(whole.folder, options.out.parent / "whole")
    whole = Run(options.out.parent / "whole")
    with stopped(2), pytest.raises(Interrupted):
        train(experiment(tiny, on_nan), options)
    assert content(train(experiment(tiny, on_nan), options)) == content(whole)
    shutil.rmtree(options.out)
    monkeypatch.setattr(guard, "is_asked", lambda device: False)
    assert content(train(experiment(tiny, on_nan), options)) == content(whole)


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
def test_a_training_that_only_goes_wrong_is_given_up(tiny: dict, options: Options, entered):
    entered(poisoned("loss", set(range(100)), NAN))
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
