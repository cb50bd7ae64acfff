"""Signals that ask training to stop: the first is noted, the second ends the process at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self

from mixlab.errors import Interrupted

ASKING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class StopSignals:
    """While entered, signals only set `asked`; outside the main thread nothing is caught."""

    def __init__(self) -> None:
        self.asked = ""  # name of the signal that came, or ""

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        self._previous = {number: signal.signal(number, self._note) for number in ASKING} if main else {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise Interrupted where a signal has come."""
        if self.asked:
            raise Interrupted(self.asked)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Where a signal has come, raise Interrupted for workers that it ended before they could ignore it."""
        try:
            yield
        except RuntimeError:
            self.check()
            raise

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(130)
        self.asked = signal.Signals(number).name
