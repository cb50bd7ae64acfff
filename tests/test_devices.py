"""What is asked of a GPU, without one: torch's own settings are real, the device is not."""

import os
from contextlib import nullcontext, suppress

import pytest
import torch

from mixlab import devices


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, of which the second is the current one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", lambda number: nullcontext())
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.parametrize(
    ("name", "local_rank", "number"), [("auto", "", 1), ("cuda", "", 1), ("cuda:0", "1", 0), ("auto", "0", 0)]
)
def test_a_gpu_has_its_number_and_computes_what_a_cpu_does(
    gpus: None, monkeypatch: pytest.MonkeyPatch, name: str, local_rank: str, number: int
):
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert devices.choose_device(name) == torch.device("cuda", number)
    assert not torch.backends.cudnn.allow_tf32
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize("works", [True, False])
def test_what_varies_is_refused_for_as_long_as_asked(gpus: None, monkeypatch: pytest.MonkeyPatch, works: bool):
    monkeypatch.setattr(devices, "_multiplies", lambda device: works)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)

    def settings() -> tuple[bool, ...]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.benchmark,
            torch.utils.deterministic.fill_uninitialized_memory,  # pyright: ignore[reportAttributeAccessIssue]
        )

    before = settings()
    with suppress(KeyError), devices.deterministic(torch.device("cuda", 1)):
        assert settings() == (True, not works, False, False)
        raise KeyError
    assert settings() == before == (False, False, True, True)


@pytest.mark.parametrize(
    ("name", "pairs", "matrix_units", "fast"),
    [
        ("AMD EPYC", True, False, True),
        ("Intel Xeon", True, False, False),
        ("Intel Xeon", True, True, True),
        ("AMD EPYC", False, False, False),
    ],
)
def test_which_cpus_are_fast_in_bfloat16(
    name: str, pairs: bool, matrix_units: bool, fast: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: pairs)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: matrix_units)
    monkeypatch.setattr(devices, "_capabilities", lambda: {"cpu_name": name})
    assert devices.is_fast_in_bfloat16(torch.device("cpu")) == fast
