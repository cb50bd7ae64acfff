"""Where files wait that are not ready: no export of another process is touched, and nothing else either."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mixlab import durable


@contextmanager
def files_aside(folder: Path) -> Iterator[Path]:
    """Make a folder for files that are not ready, inside the one where they will be."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    durable.make_folder(folder)
    for left in folder.glob(".export.*.partial"):
        if _is_left_behind(left):
            shutil.rmtree(left, ignore_errors=True)
    aside = folder / f".export.{os.getpid()}.partial"
    durable.make_folder(aside)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):  # of an export that failed they are empty
            for path in new:
                path.rmdir()


def _is_left_behind(folder: Path) -> bool:
    """Whether a folder of files that are not ready is of an export that was killed."""
    number = folder.name.split(".")[2]
    if number == str(os.getpid()):
        return True
    if not number.isdecimal() or os.name == "nt":  # where to ask for a process is to interrupt it
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # of another user
        return False
    return False
