"""Which device computes, and how exactly."""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import torch

from mixlab.errors import UsageError, did_you_mean

SHORT = (  # what is said where memory is short, beside torch's own error: by torch, C++ and oneDNN; on a GPU
    "can't allocate memory",
    "std::bad_alloc",
    "could not create a primitive",
    "could not create a memory",
    "could not execute a primitive",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
KINDS = ("auto", "cpu", "cuda", "mps")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}  # of a precision
ANSWER_PRECISIONS = ("float32", "bfloat16")


def choose_device(name: str) -> torch.device:
    """Return the device of a name such as "auto", "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        UsageError: for an unknown name, or a device that this machine or this build of torch does not have.
    """
    kind = name.partition(":")[0]
    if kind not in KINDS:
        raise UsageError(f"unknown device {name!r}{did_you_mean(name, KINDS)}; known: {', '.join(KINDS)}")
    if ":" in name and kind != "cuda":
        raise UsageError(f"unknown device {name!r}; only CUDA devices have numbers")
    local_rank = os.environ.get("LOCAL_RANK", "")  # set by torchrun: one GPU for each process of a host
    if name in ("auto", "cuda") and local_rank.isdigit() and "cuda" in available():
        return choose_device(f"cuda:{local_rank}")
    if name == "auto":
        name = kind = available()[-1]
    if kind not in available():
        raise UsageError(f"--device {name}: this machine has only {', '.join(available())} (mixlab doctor says more)")
    if name.startswith("cuda:") and not (name[5:].isdigit() and int(name[5:]) < torch.cuda.device_count()):
        raise UsageError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices, from cuda:0 on")
    return _gpu(name) if kind == "cuda" else torch.device(name)


def _gpu(name: str) -> torch.device:
    """Return a GPU with its number, which some of torch's functions insist on, and let it compute what a CPU does."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, when cuBLAS starts
    torch.backends.cudnn.allow_tf32 = False  # float32 has 24 bits in convolutions, as it has in matrix products
    return torch.device("cuda", int(name[5:]) if ":" in name else torch.cuda.current_device())


def available() -> list[str]:
    """Return the kinds of devices at hand, the fastest last."""
    found = {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    return [kind for kind, present in found.items() if present]


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies matrices faster in bfloat16 than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    return torch.cpu._is_amx_tile_supported() or (torch.cpu._is_avx512_bf16_supported() and not is_slow_in_pairs())


def is_slow_in_pairs() -> bool:
    """Return whether the CPU is one of Intel's: its products of pairs in bfloat16 take four times as long as float32's.

    So it computes half as much in a second; matrix units (AMX) are another matter.
    """
    return str(_capabilities().get("cpu_name", "")).startswith("Intel")


def has_float16() -> bool:
    """Return whether the CPU multiplies vectors of float16: twice as many numbers in a second as of float32."""
    return bool(_capabilities().get("avx512_fp16"))


@functools.cache
def _capabilities() -> dict[str, Any]:
    return getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not say


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context in which matrices and convolutions are computed in a precision; weights stay float32."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32")


def check_answer_precision(name: str) -> None:
    """Raise UsageError where a trained network cannot answer in a precision."""
    if name not in ANSWER_PRECISIONS:
        near, known = did_you_mean(str(name), ANSWER_PRECISIONS), " or ".join(ANSWER_PRECISIONS)
        raise UsageError(f"unknown precision {name!r}{near}; a network answers in {known}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of torch or of Python, says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in SHORT)


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Compute on a GPU, as the current one, with nothing but operations whose result does not vary; a CPU's never does.

    Where cuBLAS was started before mixlab could ask the same of it, torch warns of what varies.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    benchmark, fill = torch.backends.cudnn.benchmark, settings.fill_uninitialized_memory
    with torch.cuda.device(device):
        try:
            torch.backends.cudnn.benchmark, settings.fill_uninitialized_memory = False, False
            torch.use_deterministic_algorithms(True)
            # with warnings alone torch would take the faster of attention's backward passes, which varies
            torch.use_deterministic_algorithms(True, warn_only=not _multiplies(device))
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.backends.cudnn.benchmark, settings.fill_uninitialized_memory = benchmark, fill


def _multiplies(device: torch.device) -> bool:
    """Return whether cuBLAS works at all while nothing may vary."""
    one = torch.ones(1, 1, device=device)
    try:
        torch.mm(one, one)
    except RuntimeError:
        return False
    return True
