"""T4 to T6: a checkpoint that is being saved, killed, cut off or damaged afterwards.

T4 forks a saver from this process, which has imported everything, and kills it. T5 replays every beginning of what a
save does to files, without what was not synced. T6 damages what lies on the disk.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mixlab.run.checkpoint import Checkpoint, load_newest, save_checkpoint
from mixlab.run.folder import Run
from torture.check import Check
from torture.disk import Disk, read_disk, watched

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  a file system of its own on Linux


def checkpoint(step: int) -> Checkpoint:
    """Return a checkpoint whose content follows from its step."""
    tensors = {f"model.{name}": torch.full((8 + step % 5, 300), float(step)) for name in ("weight", "bias")}
    return Checkpoint(step, tensors, {"epoch": step // 10})


def wrong(run: Run, steps: set[int]) -> str:
    """Return "" where the newest checkpoint is whole and of one of these steps; -1 stands for none at all."""
    found, problems = load_newest(run)
    step = -1 if found is None else found.step
    if problems:
        return f"damaged: {problems}"
    if step not in steps:
        return f"step {step} was found, not one of {sorted(steps)}"
    if found is not None and any((tensor != step).any() for tensor in found.tensors.values()):
        return f"the checkpoint of step {step} has other numbers"
    return ""


def killed(number: int, root: Path) -> str:
    """Kill a process that saves one checkpoint after the other; it says when one is done."""
    dice, run = random.Random(number), _run(root)
    reading, writing = os.pipe()
    saver = os.fork()
    if not saver:
        _save_for_ever(run, writing, root)
    os.close(writing)
    started = time.monotonic()
    os.read(reading, 1)  # the first is there
    time.sleep(dice.uniform(0, 4) * (time.monotonic() - started))
    os.kill(saver, signal.SIGKILL)
    os.waitpid(saver, 0)
    done = 1 + len(os.read(reading, 10**6))
    os.close(reading)
    problem = wrong(run, {done, done + 1})
    left = [path.name for path in run.checkpoints.glob(".*")]
    return problem or (f"left behind: {left}" if left else "")


def _save_for_ever(run: Run, writing: int, root: Path) -> None:
    """Be the process that saves; TMPDIR lies on another file system where there is one."""
    try:
        os.environ["TMPDIR"] = str(SHARED_MEMORY if SHARED_MEMORY.is_dir() else root)
        for step in range(1, 10**6):
            save_checkpoint(run, checkpoint(step))
            os.write(writing, b"1")
    finally:
        os._exit(1)


def cut_off(number: int, root: Path) -> str:
    """Look at what each beginning of a save leaves: in the order of the operations, and without what was not synced."""
    dice, run = random.Random(number), _run(root)
    before = number % 4
    for step in range(1, before + 1):
        save_checkpoint(run, checkpoint(step))
    with watched(root) as notes:
        save_checkpoint(run, checkpoint(before + 1))
    kinds: list[Callable[[Disk], dict[str, Disk]]] = [
        lambda node: node.seen,
        lambda node: node.kept,
        lambda node: node.seen if dice.random() < 0.5 else node.kept,
    ]
    shutil.rmtree(run.folder)
    run.folder.mkdir()
    for step in range(1, before + 1):
        save_checkpoint(run, checkpoint(step))
    disk = read_disk(root)
    allowed = {before or -1, before + 1}
    for done in range(len(notes) + 1):
        if done:
            disk.apply(notes[done - 1])
        if done == len(notes):
            allowed = {before + 1}  # the save has returned: nothing may take it back
        for kind, entries in enumerate(kinds):
            place = root / f"{done}-{kind}"
            disk.write(place, entries)
            problem = wrong(Run(place / "run"), allowed)
            if problem:
                return f"after {done} of {len(notes)} operations, crash {kind}: {problem}"
            shutil.rmtree(place)
    return ""


def damaged(number: int, root: Path) -> str:
    """Damage one file of one of the two checkpoints: it must be named, and the other one used."""
    dice, run = random.Random(number), _run(root)
    folders = [save_checkpoint(run, checkpoint(step)) for step in (1, 2)]
    hit = dice.choice([1, 1, 1, 0])
    path = dice.choice(sorted(folders[hit].iterdir()))
    how = _damage(path, dice)
    found, problems = load_newest(run)
    if hit == 0:  # the newest is whole: the other one is not even looked at
        return "" if found and found.step == 2 and not problems else f"{how}: {problems}"
    if found is None or found.step != 1 or len(problems) != 1:
        return f"{how} was not found: {found and found.step}, {problems}"
    if str(folders[1]) not in problems[0]:
        return f"{how}: {problems[0]} does not name {folders[1]}"
    return wrong(run, {1})


def _damage(path: Path, dice: random.Random) -> str:
    content = bytearray(path.read_bytes())
    kind = dice.choice(["bit", "bit", "truncated", "removed", "longer"])
    if kind == "bit":
        place, bit = dice.randrange(len(content)), dice.randrange(8)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        return f"bit {bit} of byte {place} of {path.name}"
    if kind == "removed":
        path.unlink()
    elif kind == "longer":
        path.write_bytes(content + b"\0" * dice.randrange(1, 100))
    else:
        path.write_bytes(content[: dice.randrange(len(content))])
    return f"{path.name} {kind}"


def _run(root: Path) -> Run:
    (root / "run").mkdir()
    return Run(root / "run")


CHECKS = [
    Check(
        name="T4",
        claim="a process killed while it saves, TMPDIR on another file system, leaves the checkpoint before or after",
        case=killed,
        full=1000,
        sample=50,
        quick=2,
        others="saving in place 17 %",
    ),
    Check(
        name="T5",
        claim="each beginning of what a save does to files, without what was not synced, leaves the old or the new one",
        case=cut_off,
        full=100,
        sample=8,
        quick=1,
    ),
    Check(
        name="T6",
        claim="a flipped bit, a truncation or a missing file is found and named, and the other checkpoint is used",
        case=damaged,
        full=2000,
        sample=100,
        quick=5,
    ),
]
