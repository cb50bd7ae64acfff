"""Does an exported file say what the trained network says, and how fast? Measured on real pictures, never assumed."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mixlab.errors import DataError
from mixlab.evaluation.calibration import softmax
from mixlab.evaluation.networks import MOST_BYTES, of_one_size

Answer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # pictures of one size -> probabilities, logits
ABSOLUTE, RELATIVE = 1e-4, 1e-5  # largest difference of a float file; the second as a share of the largest logit
POINTS = 0.5  # of accuracy, that 8 bits may lose
BATCHES, ROUNDS, SHORTEST = (
    (1, 32),
    7,
    0.02,
)  # pictures at once, where so many fit; samples, of so many seconds at least


@dataclass(frozen=True)
class Measured:
    """One way to run the network."""

    name: str
    top1: float  # accuracy, in [0, 1]
    bytes: int  # on disk
    milliseconds: dict[int, float] = field(default_factory=dict)  # pictures at once -> median time of one answer


@dataclass(frozen=True)
class Difference:
    """What a file says beside what the network says."""

    agreement: float  # share of pictures with the same best class
    misses: int  # pictures with another best class; a tie within the limit has no best
    logits: float  # largest difference
    probabilities: float  # largest difference
    limit: float  # of both, for a float file


@dataclass(frozen=True)
class Parity:
    """What was found: the network in PyTorch first, the exported file last."""

    kind: str
    what: str  # pictures that judged
    pictures: int  # how many
    timed: tuple[int, int]  # height and width of the picture that was timed
    difference: Difference
    ways: tuple[Measured, ...]
    unreadable: dict[str, str]  # picture -> reason
    problem: str  # why the file is not as good as the network; "" where it is

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Said:
    """What one way says of all pictures."""

    probabilities: np.ndarray  # (pictures, classes)
    logits: np.ndarray  # (pictures, classes)

    def top1(self, labels: np.ndarray) -> float:
        return float((self.logits.argmax(1) == labels).mean())


def ask(
    ways: Mapping[str, Answer], batches: Iterator[tuple[list[np.ndarray], np.ndarray]]
) -> tuple[dict[str, Said], np.ndarray, np.ndarray]:
    """Return what each way says of the same decoded pictures, their labels, and the first picture.

    Raises:
        DataError: where not one picture can be read.
    """
    said: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in ways}
    labels, first = [], np.zeros(0)
    for pictures, own in batches:
        first = first if first.size else pictures[0]
        for places in of_one_size(pictures):
            batch = np.stack([pictures[place] for place in places])
            labels.append(own[places])
            for name, answer in ways.items():
                said[name].append(answer(batch))
    if not labels:
        raise DataError("not one of the pictures that would judge the file can be read")
    together = {name: Said(*(np.concatenate(each) for each in zip(*rows, strict=True))) for name, rows in said.items()}
    return together, np.concatenate(labels), first


def compare(expected: Said, found: Said) -> Difference:
    """Compare what a file says with what the network says."""
    limit = max(ABSOLUTE, RELATIVE * float(np.abs(expected.logits).max()))
    rows, best, other = np.arange(len(expected.logits)), expected.logits.argmax(1), found.logits.argmax(1)
    apart = expected.logits[rows, best] - expected.logits[rows, other] >= limit
    logits, probabilities = (
        float(np.nan_to_num(np.abs(ours - theirs), nan=np.inf).max())
        for ours, theirs in ((expected.logits, found.logits), (expected.probabilities, found.probabilities))
    )
    return Difference(float((best == other).mean()), int((apart & (best != other)).sum()), logits, probabilities, limit)


def verdict(kind: str, found: Difference, before: float, after: float) -> str:
    """Return why a file is not as good as the network, or "".

    Args:
        before: accuracy of the network, of which `after` may lose a little in 8 bits.
    """
    if kind == "int8":
        lost = 100 * (before - after)
        return f"accuracy falls by {lost:.2f} points, more than {POINTS}" if lost > POINTS + 1e-9 else ""
    if found.misses:
        return f"{found.misses:,} get another class"
    largest = max(found.logits, found.probabilities)
    return f"answers differ by up to {largest:.1e}, more than {found.limit:.1e}" if largest > found.limit else ""


def calibrated(logits: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and logits, as an exported file does."""
    return softmax(logits, temperature), logits


def time_them(ways: Mapping[str, Answer], picture: np.ndarray) -> dict[str, dict[int, float]]:
    """Return the median milliseconds of an answer to so many pictures at once; the ways take turns."""
    found: dict[str, dict[int, float]] = {name: {} for name in ways}
    for count in sorted({min(count, max(1, MOST_BYTES // picture.nbytes)) for count in BATCHES}):
        batch = np.repeat(picture[None], count, axis=0)
        repeats = {name: max(1, round(SHORTEST / _seconds(answer, batch, 1))) for name, answer in ways.items()}
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, answer in ways.items():
                samples[name].append(_seconds(answer, batch, repeats[name]))
        for name in ways:
            found[name][count] = 1000 * statistics.median(samples[name])
    return found


def _seconds(answer: Answer, batch: np.ndarray, repeats: int) -> float:
    answer(batch)
    started = time.perf_counter()
    for _ in range(repeats):
        answer(batch)
    return (time.perf_counter() - started) / repeats
