"""T7: a disk that is full from some operation on, while a checkpoint is saved or at any moment of a training.

Every third case saves a checkpoint, the others train; every tenth trains in a process that may write no file as
large as its checkpoint (RLIMIT_FSIZE), which the system itself refuses.
"""

import functools
import random
import re
import resource
import tempfile
from pathlib import Path

from mixlab.errors import RunError
from mixlab.run.checkpoint import load_newest, save_checkpoint
from mixlab.run.folder import Run
from torture import processes, small
from torture.check import Check
from torture.disk import watched
from torture.saving import checkpoint, wrong

FULL = re.compile(r"the disk is full: (\S+) needs [\d,]+ bytes and [\d,]+ are free. What was saved before is intact")


def case(number: int, root: Path) -> str:
    if number % 10 == 4:
        return _limited(root)
    dice = random.Random(number)
    return _saving(dice, root) if number % 3 == 0 else _training(dice, root)


def _saving(dice: random.Random, root: Path) -> str:
    """Let the disk be full at one operation of a save."""
    run = Run(root / "run")
    run.folder.mkdir()
    save_checkpoint(run, checkpoint(1))
    try:
        with watched(root, full_from=dice.randrange(11)):  # of the 14 operations of a save, those that need space
            save_checkpoint(run, checkpoint(2))
    except RunError as error:
        named = FULL.search(str(error))
        if named is None or not named[1].startswith(str(run.checkpoints)):
            return f"unclear: {error}"
        left = [path.name for path in run.checkpoints.glob(".*")]
        return wrong(run, {1}) or (f"left behind: {left}" if left else "")
    return "the save came through on a full disk"


@functools.cache
def _operations() -> int:
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        pictures = small.prepared(Path(folder))
        with watched(Path(folder)) as notes:
            small.trained(Path(folder), pictures)
        return len(notes)


def _training(dice: random.Random, root: Path) -> str:
    """Let the disk be full from one operation of a training on, and go on when there is space again."""
    pictures, said = small.prepared(root), ""
    with watched(root, full_from=dice.randrange(_operations() - 5)):
        try:
            small.trained(root, pictures)
        except (RunError, OSError) as error:
            said = str(error)
    if "disk is full" not in said and "No space left" not in said:
        return f"unclear: {said or 'it came through'}"
    damaged = load_newest(Run(root / "runs" / "run"))[1]
    if damaged:
        return f"damaged: {damaged}"
    same = small.result(small.trained(root, pictures)) == small.without_fault()
    return "" if same else "the training that went on differs"


def _limited(root: Path) -> str:
    """Train in a process whose files may not be as large as a checkpoint; then without that limit."""
    pictures = small.prepared(root)
    words = small.command(root, pictures)
    limited = processes.ended(words, root, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))
    lines = limited.text().splitlines()
    if limited.code != 1 or len(lines) != 1 or "checkpoints" not in lines[0] or "bytes" not in lines[0]:
        return f"exit code {limited.code}: {limited.text()}"
    again = processes.ended(words, root)
    if again.code != 0:
        return f"going on failed: {again.text()}"
    same = small.result(Run(root / "runs" / "run")) == small.without_fault()
    return "" if same else "the training that went on differs"


CHECKS = [
    Check(
        name="T7",
        claim="the disk is full at any moment: what was saved stays, the message has path and sizes, training goes on",
        case=case,
        full=300,
        sample=5,
        quick=1,
    )
]
