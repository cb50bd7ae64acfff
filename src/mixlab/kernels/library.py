"""Which kernels there are: compiled ones for CPUs, beside this file and called through ctypes, Triton's for CUDA.

Those for CPUs are compiled when mixlab is installed, once for each instruction set; Triton compiles for a GPU when a
kernel is first needed. Where a compiler or Triton is missing everything runs on PyTorch's own operations.
MIXLAB_KERNELS=stock chooses those too.
"""

import ctypes
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from mixlab import devices

P = ParamSpec("P")
R = TypeVar("R")
FOLDER = Path(__file__).parent
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of mallopt(3)
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
TYPES = {"cpu": (*NAMES,), "cuda": (*NAMES, torch.float16)}
CAPABILITY = (8, 0)  # of a CUDA device, at least: the first with matrix units for bfloat16
_enabled = ContextVar("enabled", default=os.environ.get("MIXLAB_KERNELS", "") != "stock")


@contextmanager
def stock() -> Iterator[None]:
    """Use PyTorch's own operations inside, as where nothing was compiled; what torch.compile made before stays."""
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


def is_on() -> bool:
    """Return whether anything but PyTorch's own operations is wanted."""
    return _enabled.get()


def is_usable(x: Tensor) -> bool:
    """Return whether there are kernels for a tensor; never in what is traced for export."""
    if x.device.type not in TYPES or torch.compiler.is_exporting() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return False
    return precision(x) in TYPES[x.device.type] and is_ready(x.device)


def precision(x: Tensor) -> torch.dtype:
    """Return the type in which a convolution of a tensor computes: autocast's, where that is on."""
    kind = x.device.type
    autocast = torch.is_autocast_enabled(kind) and x.dtype != torch.float64  # which autocast leaves alone
    return torch.get_autocast_dtype(kind) if autocast else x.dtype


def constant_when_compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Do what torch.compiler.assume_constant_result does, without importing the compiler: 0.6 s of every command."""
    vars(function)["_dynamo_marked_constant"] = True
    return function


@constant_when_compiled
def is_ready(device: torch.device) -> bool:
    """Return whether there are kernels for a device, and they are switched on."""
    if not is_on() or device.type not in TYPES:
        return False
    if device.type == "cpu":
        return library() is not None
    return torch.cuda.get_device_capability(device) >= CAPABILITY and triton_version() != ""


@functools.cache
def triton_version() -> str:
    """Return the version of Triton, whose kernels the operators have on CUDA from then on; "" where there is none."""
    try:
        import triton  # pyright: ignore[reportMissingImports]

        from mixlab.kernels.gpu.operators import register
    except (ImportError, OSError, RuntimeError, AttributeError):  # a broken one is none
        return ""
    register("cuda")
    return triton.__version__


@constant_when_compiled
def multiplies(device: torch.device, kind: torch.dtype) -> bool:
    """Return whether matrices are multiplied by kernels too in training: stored in bfloat16, computed in other numbers.

    On CPUs that are not faster in bfloat16, where PyTorch's products of it take twice as long as those of float32: in
    float16 where the CPU has it, each factor scaled to its range, and in float32 elsewhere.
    """
    return (
        device.type == "cpu" and kind == torch.bfloat16 and not devices.is_fast_in_bfloat16(device) and is_ready(device)
    )


def is_faster_in_bfloat16(device: torch.device) -> bool:
    """Return whether kernels that multiply themselves are faster in bfloat16: not with vectors of AVX2 or shorter."""
    return multiplies(device, torch.bfloat16) and name().startswith("avx512")


def instruction_sets() -> tuple[str, ...]:
    """Return the instruction sets of this machine that kernels are compiled for, the fastest first."""
    capability = torch.backends.cpu.get_cpu_capability()
    sets = {"AVX512": ("avx512", "avx2"), "AVX2": ("avx2",)}.get(capability, ())
    if capability == "AVX512" and torch.cpu._is_avx512_bf16_supported():
        sets = ("avx512", "avx512bf16", "avx2") if devices.is_slow_in_pairs() else ("avx512bf16", *sets)
        if devices.is_slow_in_pairs() and devices.has_float16():
            sets = ("avx512fp16", *sets)
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


def name() -> str:
    """Return the instruction set of the compiled kernels in use, or "stock"."""
    found = library() if _enabled.get() else None
    return Path(found._name).stem.removeprefix("_cpu_") if found else "stock"


def describe(device_type: str = "cpu") -> str:
    """Say which kernels a kind of device uses, for people."""
    if not _enabled.get():
        return "PyTorch's own operations (MIXLAB_KERNELS=stock)"
    if device_type not in TYPES:
        return "PyTorch's own operations"
    if device_type == "cuda":
        return _describe_triton()
    if library() is None:
        return "PyTorch's own operations; a C++ compiler while mixlab is installed makes ConvMixer 2 to 3 times faster"
    return f"compiled for {name()}"


def _describe_triton() -> str:
    if not triton_version():
        return "PyTorch's own operations; with Triton (pip install triton) mixlab's kernels are tried"
    if not is_ready(torch.device("cuda")):
        return f"PyTorch's own operations; mixlab's kernels need compute capability {'.'.join(map(str, CAPABILITY))}"
    return f"Triton {triton_version()}, wherever it agrees with PyTorch's own operations and is not slower"


def call(name: str, dtype: torch.dtype, *arguments: Tensor | int | None) -> None:
    """Call a function of the library for an element type; tensors are passed as addresses, None as no address."""
    function = getattr(_loaded(), f"{name}_{NAMES[dtype]}")
    values = [each.data_ptr() if isinstance(each, Tensor) else each or 0 for each in arguments]
    function(*map(ctypes.c_int64, (torch.get_num_threads(), *values)))


def _loaded() -> ctypes.CDLL:
    found = library()
    if found is None:
        raise RuntimeError("no kernels were compiled; ask is_usable first")
    return found


def _load(path: Path) -> ctypes.CDLL | None:
    try:
        loaded = ctypes.CDLL(str(path))  # its OpenMP is the one that torch has loaded, so they share their threads
    except OSError:
        return None
    _keep_freed_memory()
    return loaded


def _keep_freed_memory() -> None:
    """Ask glibc not to give freed memory back after each step: fetching it anew costs more than some operations."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, -1)  # never
        mallopt(MMAP_MAX, 0)  # blocks above 32 MiB, such as maps of large batches, would each be fetched and given back
