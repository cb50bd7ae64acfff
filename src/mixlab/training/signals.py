"""Signals that ask training to stop: the first is noted, the second ends the process at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self

from mixlab.data.life_signs import ASKING
from mixlab.errors import Interrupted, WorkerLost
from mixlab.ranks import ALONE, Ranks


class StopSignals:
    """While entered, signals only set `asked`; outside the main thread nothing is caught.

    A signal that was ignored when the program started stays so: a shell asks for that where it starts a program in the
    background, which Ctrl-C is not meant for.
    Ranks agree at each check, so that all of them stop at the same step.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self.asked = 0  # the signal that came, or 0

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        caught = [number for number in ASKING if main and signal.getsignal(number) is not signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._note) for number in caught}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise Interrupted where a signal has come, to any rank; every rank must ask."""
        asked = self.ranks.greatest(self.asked)
        if asked:
            raise Interrupted(signal.Signals(asked).name)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Where a signal has come, raise Interrupted for workers that it ended before they could ignore it."""
        try:
            yield
        except (RuntimeError, WorkerLost):
            if self.asked and self.ranks.world == 1:
                self.check()
            raise

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and self.ranks.world == 1:  # torchrun sends a second one itself, and kills after 30 seconds
            os._exit(130)
        self.asked = number
