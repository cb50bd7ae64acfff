"""The compiled kernels for CPUs, found beside this file and called through ctypes.

They are compiled when mixlab is installed, once for each instruction set; where there is no compiler there is no
library, and everything runs on PyTorch's own operations. MIXLAB_KERNELS=stock chooses those too.
"""

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).parent
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_enabled = ContextVar("enabled", default=os.environ.get("MIXLAB_KERNELS", "") != "stock")


@contextmanager
def stock() -> Iterator[None]:
    """Use PyTorch's own operations inside, as where nothing was compiled."""
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


def is_usable(x: Tensor) -> bool:
    """Return whether the compiled kernels can work on a tensor; never in what is traced for export."""
    if x.device.type != "cpu" or x.dtype not in NAMES or torch.compiler.is_exporting() or torch.jit.is_tracing():
        return False
    return _is_ready()


@torch.compiler.assume_constant_result
def _is_ready() -> bool:
    return _enabled.get() and library() is not None


def instruction_sets() -> tuple[str, ...]:
    """Return the instruction sets of this machine that kernels are compiled for, the fastest first."""
    capability = torch.backends.cpu.get_cpu_capability()
    sets = {"AVX512": ("avx512", "avx2"), "AVX2": ("avx2",)}.get(capability, ())
    if capability == "AVX512" and torch.cpu._is_avx512_bf16_supported():
        sets = ("avx512bf16", *sets)
    return (*sets, "baseline")


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the fastest library that was compiled and that this machine can run, or None."""
    for name in instruction_sets():
        path = FOLDER / file_name(name)
        if path.is_file() and (loaded := _load(path)) is not None:
            return loaded
    return None


def file_name(instruction_set: str) -> str:
    return f"_cpu_{instruction_set}.so"


def describe() -> str:
    """Say which kernels the CPU uses, for people."""
    if library() is None:
        return "PyTorch's own (none were compiled; install a C++ compiler and mixlab again)"
    return f"compiled for {_name()}" if _enabled.get() else "PyTorch's own (MIXLAB_KERNELS=stock)"


def call(name: str, dtype: torch.dtype, *arguments: Tensor | int | None) -> None:
    """Call a function of the library for an element type; tensors are passed as addresses, None as no address."""
    function = getattr(_loaded(), f"{name}_{NAMES[dtype]}")
    values = [each.data_ptr() if isinstance(each, Tensor) else each or 0 for each in arguments]
    function(*map(ctypes.c_int64, (torch.get_num_threads(), *values)))


def _loaded() -> ctypes.CDLL:
    found = library()
    assert found is not None  # noqa: S101
    return found


def _name() -> str:
    return Path(_loaded()._name).stem.removeprefix("_cpu_")


def _load(path: Path) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(path))  # its OpenMP is the one that torch has loaded, so they share their threads
    except OSError:
        return None
