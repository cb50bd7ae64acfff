from pathlib import Path

import pytest
import torch

from mixlab.errors import TrainingError, UsageError
from mixlab.experiment import Experiment, parse_experiment
from mixlab.training import memory
from mixlab.training.session import Options
from mixlab.training.train import plan, train
from tests.training.test_training import content

CPU = torch.device("cpu")


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(device="cpu", workers=0, out=tmp_path / "runs", quiet=True)


@pytest.mark.parametrize("needed", [1, 2, 3, 5, 8, 11, 100])
def test_the_fewest_parts_that_fit_are_found(needed: int):
    tried = []

    def fits(parts: int) -> bool:
        tried.append(parts)
        return parts >= needed

    assert memory.fewest(fits, 100, CPU) == needed
    assert len(tried) < 15


def test_memory_that_is_too_short_for_one_image_is_said():
    with pytest.raises(TrainingError, match="out of memory with one image at a time; take a smaller model"):
        memory.fewest(lambda parts: False, 7, CPU)


def limit_memory(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    """Let steps fail as an allocator does where more images than this are computed at once."""
    real = memory.train_step

    def limited(state, experiment: Experiment, spec, batch, rate):
        if len(batch.indices) > images * experiment.parts:
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(state, experiment, spec, batch, rate)

    monkeypatch.setattr(memory, "train_step", limited)


def test_parts_are_found_before_step_0_and_kept(tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch):
    given = train(parse_experiment(tiny | {"accumulate": 3}), options)
    with monkeypatch.context() as patch:
        limit_memory(patch, images=3)
        found = train(parse_experiment(tiny), options)
        assert "in 3 parts, and BatchNorm sees one" in "\n".join(plan(parse_experiment(tiny), options).lines())
    assert found.experiment.accumulate == 3
    assert found.request.experiment.accumulate == "auto"
    assert content(found) == content(given)


def test_parts_are_a_number_or_auto(tiny: dict):
    assert parse_experiment(tiny | {"accumulate": "4"}).parts == 4
    for wrong in ("many", 0, -1, 1.5):
        with pytest.raises(UsageError, match=r"accumulate=.*expected a number of parts such as 2, or auto"):
            parse_experiment(tiny | {"accumulate": wrong})
