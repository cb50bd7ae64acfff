"""mixlab in processes that are forked from this one, which has imported everything: they start in milliseconds."""

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mixlab.cli import main as cli
from mixlab.training import train as _imported  # noqa: F401  so that no child has to

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)


@dataclass
class Process:
    """A command in a process group of its own."""

    pid: int
    said: Path  # what it wrote to the screen
    code: int | None = None  # negative: the signal that ended it

    def wait(self, seconds: float) -> bool:
        """Wait for the end; return whether it came."""
        end = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                return False
            else:
                time.sleep(0.005)
        return True

    def send(self, number: int, group: bool = False) -> None:
        if self.code is None:
            (os.killpg if group else os.kill)(self.pid, number)

    def end(self) -> None:
        """Leave nothing behind."""
        if self.code is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait(10)

    def text(self) -> str:
        return self.said.read_text(errors="replace")


def start(words: Sequence[str], folder: Path, first: Callable[[], None] = lambda: None) -> Process:
    """Start a command in a folder, after `first` has been done in its process."""
    said = folder / f"said-{len(list(folder.glob('said-*')))}"
    said.touch()
    pid = os.fork()
    if not pid:
        _be(words, folder, said, first)
    return Process(pid, said)


def ended(
    words: Sequence[str], folder: Path, first: Callable[[], None] = lambda: None, seconds: float = 120
) -> Process:
    """Run a command to its end; one that does not come to it is ended, and has no exit code."""
    process = start(words, folder, first)
    if not process.wait(seconds):
        process.end()
        process.code = None
    return process


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, as the process tree of Linux has them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(") ")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(path.parent.name))
    return sorted(found)


def _be(words: Sequence[str], folder: Path, said: Path, first: Callable[[], None]) -> None:
    code: int | str | None = 99
    try:
        os.setsid()
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        output = os.open(said, os.O_WRONLY | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(output, stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))
        os.chdir(folder)
        torch.set_num_threads(1)
        warnings.resetwarnings()
        sys.argv = ["mixlab", *words]
        first()
        cli.main()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:  # before mixlab had begun
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)
