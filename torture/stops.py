"""T8: a signal at a random moment of a command: startup, training, validation, saving, finishing.

Every fourth case sends a second signal. The process itself counts its steps, so that one that was lost shows.
"""

import functools
import os
import random
import re
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from mixlab.run.folder import Run
from mixlab.training import loop
from torture import processes, small
from torture.check import Check

LIMIT = 5.0  # seconds from a signal to the end of the process
STEP = 1.0  # seconds that a step takes at most here


def case(number: int, root: Path) -> str:
    dice, pictures = random.Random(number), small.prepared(root)
    sent = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)[number % 3]
    words = small.command(root, pictures, "--stream", "--workers", str(dice.choice([0, 2])))
    reading, writing = os.pipe()
    process = processes.start(words, root, functools.partial(_count_steps, writing))
    os.close(writing)
    os.read(reading, 1)  # it begins
    try:
        process.wait(dice.uniform(0, 1.1) * _length())
        group = dice.random() < 0.5
        process.send(sent, group)
        taken, moment = _count(reading), time.monotonic()
        if number % 4 == 3:
            process.wait(dice.uniform(0, 0.05))
            process.send(sent)
        gone = process.wait(LIMIT + STEP)
    finally:
        process.end()
        os.close(reading)
    shown = f"{sent.name}{' to the group' if group else ''} after {taken} steps: "
    if not gone:
        return f"{shown}still there after {time.monotonic() - moment:.1f} s: {process.text()}"
    problem = _judged(process, taken, second=number % 4 == 3)
    return shown + problem if problem else _same_end(words, root)


def _judged(process: processes.Process, taken: int, second: bool) -> str:
    saved = re.search(r"saved at step (\d+)", process.text())
    if process.code == 0 or (second and process.code == 130):
        return ""
    if process.code != 130 or not (saved or "error: interrupted" in process.text()):
        return f"exit code {process.code}: {process.text()}"
    return f"saved at step {saved[1]}" if saved and int(saved[1]) < taken else ""


def _same_end(words: list[str], root: Path) -> str:
    again = processes.ended(words, root)
    if again.code != 0:
        return f"going on failed: {again.text()}"
    same = small.result(Run(root / "runs" / "run")) == small.without_fault()
    return "" if same else "the training that went on differs"


def _count_steps(writing: int) -> None:
    real = loop.train_step

    def step(*arguments: Any) -> None:
        real(*arguments)
        os.write(writing, b"s")

    loop.train_step = step
    os.write(writing, b"b")


def _count(reading: int) -> int:
    """Return how many steps were taken until now."""
    os.set_blocking(reading, False)
    try:
        return len(os.read(reading, 10**6))
    except BlockingIOError:
        return 0


@functools.cache
def _length() -> float:
    """Return the seconds that the training takes."""
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        root = Path(folder)
        words = small.command(root, small.prepared(root), "--stream", "--workers", "2")
        started = time.monotonic()
        processes.ended(words, root)
        return time.monotonic() - started


CHECKS = [
    Check(
        name="T8",
        claim="a signal at any moment: gone within 5 s and a step, no finished step lost, and the same command goes on",
        case=case,
        full=200,
        sample=3,
    )
]
