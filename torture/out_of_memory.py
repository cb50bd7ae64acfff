"""T12: a process that may use a random amount of memory; Linux refuses the rest (RLIMIT_AS)."""

import json
import random
import resource
import subprocess
import sys
from pathlib import Path

from torch import Tensor

from mixlab.run.checkpoint import load_newest
from mixlab.run.folder import Run
from torture import processes, small
from torture.check import ROOT, Check

LARGE = {
    "model": {"name": "convmixer", "dim": 64, "depth": 2, "kernel_size": 3},
    "batch_size": 64,
    "epochs": 2,
}
MEGABYTE = 2**20


def fresh(number: int, root: Path) -> str:
    """Run a case in a new process: one that ran others has memory that was given back and can be had again."""
    words = [sys.executable, "-m", "torture.out_of_memory", str(number), str(root)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else done.stderr


def case(number: int, root: Path) -> str:
    """Train where a whole batch does not fit; then with the parts that were found, and memory for all."""
    small.without_fault()  # imports what the end of a training needs
    allowed = random.Random(number).randrange(240, 350)  # megabytes; a whole batch takes 430
    pictures = small.prepared(root, 36)
    short = processes.ended(_words(root, pictures, "short", "auto"), root, lambda: _limit(allowed))
    if short.code != 0:
        return f"{allowed} MB: exit code {short.code}: {short.text()}"
    found = json.loads((root / "runs" / "short" / "experiment.json").read_text())["accumulate"]
    if not isinstance(found, int) or found < 2:
        return f"{allowed} MB: accumulate is {found!r}"
    enough = processes.ended(_words(root, pictures, "enough", found), root)
    if enough.code != 0:
        return f"{found} parts with memory for all: {enough.text()}"
    first, second = (_weights(Run(root / "runs" / name)) for name in ("short", "enough"))
    differing = [name for name, tensor in first.items() if not tensor.equal(second[name])]
    return f"{allowed} MB, {found} parts: {differing} differ" if differing or len(first) != len(second) else ""


def _weights(run: Run) -> dict[str, Tensor]:
    """Return all of a run's last checkpoint; losses of validation images may differ, which were answered in halves."""
    found, _ = load_newest(run)
    return {} if found is None else found.tensors


def _words(root: Path, pictures: Path, name: str, accumulate: str | int) -> list[str]:
    words = small.command(root, pictures, image_size=64, **LARGE, accumulate=accumulate)
    return [*words[:-3], name, *words[-2:]]


def _limit(allowed: int) -> None:
    """Allow this process so many megabytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + allowed * MEGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


CHECKS = [
    Check(
        name="T12",
        claim="where a batch is too much for the memory parts that fit are found and recorded; the weights are theirs",
        case=fresh,
        full=30,
        sample=1,
    )
]

if __name__ == "__main__":
    print(case(int(sys.argv[1]), Path(sys.argv[2])), end="")
