"""Who does a block on a GPU: chosen once, kept, and PyTorch's own operations whenever anything is wrong."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mixlab import durable
from mixlab.errors import RunError
from mixlab.kernels import choice, library, operators, placement, trial
from mixlab.kernels.trial import Case, Result
from mixlab.models.convmixer import ConvMixerConfig
from mixlab.spec import DataSpec

compiled = pytest.mark.skipif(library.library() is None, reason="no kernels were compiled")
CASE, DEVICE = Case("training", torch.bfloat16, 16, 16, 256, 5), torch.device("cuda", 0)
NAME = "NVIDIA Pascaline: training bfloat16 16x16x256 k5"
FASTER, SLOWER, WRONG = Result(0.5, 1.0, 2.0), Result(0.5, 2.0, 1.0), Result(1.5, 1.0, 2.0)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Case]:
    """The cases that are tried, on a machine with an imagined GPU where ours are faster."""
    found: list[Case] = []

    def run(case: Case, device: torch.device) -> Result:
        found.append(case)
        return FASTER

    monkeypatch.setattr(trial, "run", run)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Pascaline")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(choice, "_made", {})
    monkeypatch.setenv("MIXLAB_CACHE", str(tmp_path))
    return found


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_made", {})


def test_a_choice_is_made_once_and_kept_for_later_processes(tried: list[Case], monkeypatch: pytest.MonkeyPatch):
    assert choice._choose(CASE, DEVICE)
    another_process(monkeypatch)
    monkeypatch.setattr(trial, "run", lambda case, device: pytest.fail("tried again"))
    assert choice._choose(CASE, DEVICE)
    assert choice._choose(CASE, DEVICE)
    assert choice.made() == {NAME: "mixlab"}
    (file,) = choice.folder().iterdir()
    assert json.loads(file.read_text())["case"] == NAME


@pytest.mark.usefixtures("tried")
def test_what_is_slower_is_not_chosen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trial, "run", lambda case, device: SLOWER)
    assert not choice._choose(CASE, DEVICE)
    assert choice.made() == {NAME: "stock"}


@pytest.mark.usefixtures("tried")
def test_what_disagrees_is_not_chosen_and_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trial, "run", lambda case, device: WRONG)
    with pytest.warns(UserWarning, match=r"1\.5 times as far off"):
        assert not choice._choose(CASE, DEVICE)


@pytest.mark.usefixtures("tried")
def test_whatever_fails_in_a_trial_leaves_pytorchs_own_operations(monkeypatch: pytest.MonkeyPatch):
    def run(case: Case, device: torch.device) -> Result:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(trial, "run", run)
    with pytest.warns(UserWarning, match="RuntimeError: no such instruction"):
        assert not choice._choose(CASE, DEVICE)
    another_process(monkeypatch)
    assert not choice._choose(CASE, DEVICE)


@pytest.mark.usefixtures("tried")
def test_memory_that_ran_out_decides_nothing_for_later_processes(monkeypatch: pytest.MonkeyPatch):
    def run(case: Case, device: torch.device) -> Result:
        raise torch.OutOfMemoryError("all gone")

    works = trial.run
    monkeypatch.setattr(trial, "run", run)
    with pytest.warns(UserWarning, match="all gone"):
        assert not choice._choose(CASE, DEVICE)
    another_process(monkeypatch)
    monkeypatch.setattr(trial, "run", works)
    assert choice._choose(CASE, DEVICE)


def test_the_first_of_two_processes_decides_for_both(tried: list[Case], monkeypatch: pytest.MonkeyPatch):
    def meanwhile(case: Case, device: torch.device) -> Result:
        monkeypatch.setattr(trial, "run", lambda *_: SLOWER)
        choice._choose(case, device)
        another_process(monkeypatch)
        return FASTER

    monkeypatch.setattr(trial, "run", meanwhile)
    assert not choice._choose(CASE, DEVICE)


@pytest.mark.usefixtures("tried")
@pytest.mark.parametrize("exact", [False, True])
def test_a_choice_that_cannot_be_kept_is_not_for_exact_runs(exact: bool, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path, value: object) -> None:
        raise RunError("read-only")

    monkeypatch.setattr(durable, "write_json", refuse)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: exact)
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert choice._choose(CASE, DEVICE) is not exact


def test_a_captured_graph_gets_what_was_known_before(tried: list[Case], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not choice._choose(CASE, DEVICE)
    assert tried == []
    choice.adopt({NAME: "mixlab"})
    assert choice._choose(CASE, DEVICE)


@pytest.mark.usefixtures("tried")
def test_a_damaged_file_is_measured_again():
    choice.folder().mkdir()
    choice._path(NAME).write_text("[")
    assert choice._choose(CASE, DEVICE)


@pytest.mark.slow
@pytest.mark.usefixtures("tried")
def test_what_is_compiled_gets_what_was_known_before_for_any_length():
    def chosen(x: torch.Tensor) -> torch.Tensor:
        _, channels, rows, columns = x.shape
        lengths = f"{rows} {columns} {channels} 5"
        return x + 1 if choice._recalled("training", torch.bfloat16, lengths, DEVICE) else x

    choice.adopt({NAME: "mixlab"})
    compiled = torch.compile(chosen, backend="eager", fullgraph=True, dynamic=True)
    found = [float(compiled(torch.zeros(1, 256, 16, columns)).max()) for columns in (15, 16, 17)]
    assert found == [0, 1, 0]


def test_a_cpu_needs_no_choice(tried: list[Case]):
    assert choice.is_ours("training", torch.zeros(1), 16, 16, 256, 5)
    assert tried == []


@pytest.mark.parametrize(("side", "ready", "channels_last"), [(7, False, True), (9, False, False), (9, True, True)])
def test_large_kernels_lie_in_planes_on_a_gpu_without_ours(
    side: int, ready: bool, channels_last: bool, spec: DataSpec, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(library, "is_ready", lambda device: ready)
    found = placement.memory_format(ConvMixerConfig(dim=8, depth=1, kernel_size=side).build(spec), DEVICE)
    assert (found == torch.channels_last) is channels_last


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are small and have no clock, so that a CPU's kernels can be tried."""
    monkeypatch.setattr(trial, "POSITIONS", 2**9)
    monkeypatch.setattr(trial, "_milliseconds", lambda forms: [1.0, 2.0])


@compiled
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", trial.FORMS)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_trial_finds_that_both_agree_and_draws_nothing(kind: str, precision: torch.dtype):
    before = torch.get_rng_state()
    for side in (4, 5):
        assert trial.run(Case(kind, precision, 9, 6, 24, side), torch.device("cpu")).difference < 1
    assert torch.equal(torch.get_rng_state(), before)


@compiled
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("kind", "name", "mistake"),
    [
        ("inference", "activation_inference", lambda x: x.relu()),
        ("training", "add_scaled", lambda *given: given[0] + given[3]),
        ("depthwise", "depthwise_forward", lambda x, weight, bias: x * torch.nan),
    ],
)
def test_a_trial_finds_a_mistake(kind: str, name: str, mistake: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(operators, name, mistake)
    assert trial.run(Case(kind, torch.float32, 9, 6, 24, 5), torch.device("cpu")).difference > 1


def test_a_machine_without_triton_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(library, "triton_version", lambda: "")
    assert "pip install triton" in library.describe("cuda")
