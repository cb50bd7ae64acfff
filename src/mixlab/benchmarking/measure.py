"""Rounds of measurements in one process, one contender after the other, and what this machine could reach."""

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixlab.benchmarking.contenders import Contender, precision_name
from mixlab.kernels import library
from mixlab.models import inspection

SHORTEST = 0.3  # seconds of one sample, at least
PAUSE = 0.2  # seconds before it, in which threads of the contender before fall asleep
TRAINING = 3  # a training step computes about three times a forward pass


@dataclass(frozen=True)
class Ceilings:
    """The most that was reached on this device in this process."""

    matmul: dict[str, float]  # numbers that are multiplied -> FLOP/s of a large matrix product
    copy: float  # bytes read and written in a second, of arrays that no cache holds

    def limit(self, precision: str) -> float:
        """Return the FLOP/s of products of a precision: what is stored in bfloat16 can be multiplied in others too."""
        return max(self.matmul.values()) if precision == "bfloat16" else self.matmul[precision]


@dataclass(frozen=True)
class Result:
    """What one contender reached."""

    name: str
    ours: bool
    precision: str
    images_per_second: float  # median of the rounds
    slowest: float  # of the rounds
    fastest: float
    difference: float  # ||outputs - those of the first|| / ||those of the first||
    share: float  # of the matrix product's ceiling in its precision
    kept_bytes: int  # of a batch for its backward pass, divided by its images; 0 in inference


@dataclass(frozen=True)
class Failed:
    name: str
    reason: str


def measure(
    contenders: Iterable[Contender],
    images: int,
    macs: int,
    device: torch.device,
    ceilings: Ceilings,
    rounds: int,
    trains: bool,
) -> tuple[list[Result], list[Failed]]:
    """Compare the outputs of all with those of the first, then time them in turn.

    Args:
        images: of one batch.
        macs: multiply-accumulates of one image's forward pass.
    """
    ready, failed = [], []
    first: Tensor | None = None
    for contender in contenders:
        try:
            run = contender.make()
            kept = _kept_for_backward(run) if trains else 0
            torch.manual_seed(0)  # for layers that draw
            outputs = run()
        except Exception as error:  # a compiler or a runtime that cannot do this network: measured without it
            failed.append(Failed(contender.name, _first_line(error)))
            continue
        outputs = outputs.detach().double().cpu()
        first = outputs if first is None else first
        difference = float((outputs - first).norm() / first.norm())
        ready.append((contender, run, difference, kept // images, _repeats(run, device)))
    speeds: list[list[float]] = [[] for _ in ready]
    for _ in range(rounds):
        for place, (_, run, _, _, repeats) in enumerate(ready):
            speeds[place].append(images / _seconds(run, repeats, device))
    found = []
    for (contender, _, difference, kept, _), of_rounds in zip(ready, speeds, strict=True):
        median, precision = statistics.median(of_rounds), precision_name(contender.precision)
        share = 2 * macs * (TRAINING if trains else 1) * median / ceilings.limit(precision)
        spread = (min(of_rounds), max(of_rounds))
        found.append(Result(contender.name, contender.ours, precision, median, *spread, difference, share, kept))
    return found, failed


def ceilings(device: torch.device) -> Ceilings:
    """Measure what a large matrix product and a copy reach on a device; float16's on a CPU follows from float32's."""
    large = device.type == "cuda"
    side = 8192 if large else 1536
    matmul = {}
    with _tf32():
        for kind in (torch.float32, torch.bfloat16):
            a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
            matmul[precision_name(kind)] = 2 * side**3 / _fastest(lambda a=a, b=b: a @ b, device)
    if device.type == "cpu" and library.name() == "avx512fp16":
        matmul["float16"] = 2 * matmul["float32"]  # vectors of twice as many numbers, which PyTorch does not use
    source = torch.zeros(2**30 if large else 2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Ceilings(matmul, 2 * source.numel() / _fastest(lambda: target.copy_(source), device))


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    """Let a GPU round the factors of float32 products to TF32, as PyTorch's convolutions do: no layer is faster."""
    products = torch.backends.cuda.matmul
    allowed, products.allow_tf32 = products.allow_tf32, True
    try:
        yield
    finally:
        products.allow_tf32 = allowed


def numbers_of_layers(model: nn.Module, channels: int, image_size: int) -> int:
    """Count the numbers that the layers of one image's forward pass write, and the next ones read."""
    return 2 * sum(math.prod(layer.shape) for layer in inspection.layers(model, channels, image_size))


def _kept_for_backward(run: Callable[[], Tensor]) -> int:
    """Return the bytes that a first step keeps from its forward for its backward pass."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, nn.Parameter):
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(kept.values())


def _repeats(run: Callable[[], object], device: torch.device) -> int:
    run()
    return max(1, round(SHORTEST / _seconds(run, 1, device)))


def _fastest(run: Callable[[], object], device: torch.device) -> float:
    repeats = _repeats(run, device)
    return min(_seconds(run, repeats, device) for _ in range(5))


def _seconds(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    gc.collect()
    time.sleep(PAUSE)
    run()
    _wait(device)
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    _wait(device)
    return (time.perf_counter() - started) / repeats


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def fastest(results: Sequence[Result], ours: bool) -> float:
    """Return the images a second of the fastest of ours, or of the others; 0 where there is none."""
    return max((each.images_per_second for each in results if each.ours == ours), default=0.0)
