"""Which device computes."""

import os

import torch

from mixlab.errors import UsageError, did_you_mean

SHORT = (  # what is said on a CPU where memory is short: by torch, by C++ and by oneDNN
    "can't allocate memory",
    "std::bad_alloc",
    "could not create a primitive",
    "could not create a memory",
    "could not execute a primitive",
)
KINDS = ("auto", "cpu", "cuda", "mps")


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
        return torch.device(available()[-1])
    if kind not in available():
        raise UsageError(f"--device {name}: this machine has only {', '.join(available())} (mixlab doctor says more)")
    if name.startswith("cuda:") and not (name[5:].isdigit() and int(name[5:]) < torch.cuda.device_count()):
        raise UsageError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices, from cuda:0 on")
    return torch.device(name)


def available() -> list[str]:
    """Return the kinds of devices at hand, the fastest last."""
    found = {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    return [kind for kind, present in found.items() if present]


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies matrices faster in bfloat16 than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of torch or of Python, says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in SHORT)


def make_deterministic(device: torch.device) -> None:
    """Make a GPU the current one, and let it choose only operations whose result does not vary; a CPU's never does."""
    if device.type != "cuda":
        return
    torch.cuda.set_device(device)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
