"""T10: a loader worker that is killed or frozen at a random moment; its process is found in the process tree."""

import os
import random
import signal
import time
from pathlib import Path

from mixlab.run.folder import Run
from torture import processes, small
from torture.check import Check

EACH = 150  # pictures of a class
LIMIT = 30.0  # seconds from the fault to the end of the process


def case(number: int, root: Path) -> str:
    dice, pictures = random.Random(number), small.prepared(root, EACH)
    fault = (signal.SIGKILL, signal.SIGSTOP)[number % 2]
    words = small.command(root, pictures, "--stream", "--workers", "2")
    process = processes.start(words, root)
    try:
        while len(processes.children(process.pid)) < 2 and not process.wait(0.01):
            pass
        process.wait(dice.uniform(0, 1))
        workers = processes.children(process.pid)
        if workers:
            os.kill(dice.choice(workers), fault)
        struck = time.monotonic()
        gone = process.wait(LIMIT)
        seconds = time.monotonic() - struck
    finally:
        process.end()
    shown = f"{fault.name} to one of {workers}, {seconds:.1f} s: "
    if not gone:
        return f"{shown}not noticed: {process.text()}"
    if process.code != 0 and not _is_clear(process):
        return f"{shown}exit code {process.code}: {process.text()}"
    again = processes.ended(words, root)
    if again.code != 0:
        return f"{shown}going on failed: {again.text()}"
    same = small.result(Run(root / "runs" / "run")) == small.without_fault(EACH)
    return "" if same else f"{shown}the training that went on differs"


def _is_clear(process: processes.Process) -> bool:
    """Whether one line says what happened, what to do, and that everything is saved."""
    lines = [line for line in process.text().splitlines() if line.startswith("error: ")]
    wanted = ("which decodes pictures", "--workers", "saved at step", "mixlab train --resume")
    return process.code == 1 and len(lines) == 1 and all(text in lines[0] for text in wanted)


CHECKS = [
    Check(
        name="T10",
        claim="a loader worker that is killed or frozen is noticed within 30 s; the same command goes on exactly",
        case=case,
        full=40,
        sample=2,
        others="PyTorch waits for ever for a frozen one",
    )
]
