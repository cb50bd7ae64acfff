"""What a person sees of a training: a bar on a terminal, plain lines elsewhere, and all lines in the run's log."""

import contextlib
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mixlab import durable
from mixlab.errors import MixlabError
from mixlab.run.table import one_line


class Screen:
    """Lines go to standard error and the log, where there is one; the bar only to a terminal."""

    def __init__(self, log: Path | None, quiet: bool) -> None:
        self.log, self.quiet = log, quiet
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"))
        shown = sys.stderr.isatty() and not quiet
        self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True, disable=not shown)
        self.task = self.bar.add_task("", speed="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.bar.stop()
        if isinstance(error, MixlabError):  # people see it without us
            with contextlib.suppress(MixlabError, OSError):  # such as a disk that is full
                self._note(one_line(str(error)))

    def say(self, lines: Iterable[str] | str) -> None:
        for line in map(one_line, [lines] if isinstance(lines, str) else lines):
            if not self.quiet:
                self.console.print(line, markup=False)
            self._note(line)

    def _note(self, line: str) -> None:
        if self.log is not None:
            durable.append_line(self.log, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")

    def start(self, what: str, done: int, steps: int) -> None:
        self.bar.reset(self.task, description=what, total=steps, completed=done, speed="")

    def advance(self, images_per_second: float) -> None:
        self.bar.update(self.task, advance=1, speed=f"{images_per_second:,.0f} img/s")


def epoch_line(row: Mapping[str, Any], epochs: float, seconds: float, images_per_second: float) -> str:
    """Return one epoch as a line of text."""
    parts = [f"epoch {row['epoch']:g}/{epochs:g}", f"train loss {row['train_loss']:.3f} top-1 {row['train_top1']:.2%}"]
    for split in ("validation", "test"):
        if f"{split}_top1" in row:
            parts.append(f"{split} loss {row[f'{split}_loss']:.3f} top-1 {row[f'{split}_top1']:.2%}")
    return "  ".join([*parts, f"{images_per_second:,.0f} img/s", f"{seconds:.1f} s"])
