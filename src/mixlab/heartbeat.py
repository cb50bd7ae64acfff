"""Ranks that watch each other: a process that stands still says nothing, and those that wait for it would wait on."""

import os
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

PERIOD = 3.0  # seconds between beats
LIMIT = 20.0  # seconds without one after which a rank counts as frozen


class Heartbeat:
    """While entered, this rank counts up in the common store, and ends its process where another no longer does.

    One thread beats and reads; another watches it, because reading itself stands still where the store's host does.
    """

    def __init__(self, store: "Store", rank: int, world: int) -> None:
        self.store, self.rank, self.world = store, rank, world
        self.ended = threading.Event()
        self.seen = {other: (0, time.monotonic()) for other in range(world)}  # rank -> (beats, when they last rose)
        self.read = time.monotonic()  # when the store last answered

    def __enter__(self) -> Self:
        for work in (self._beat, self._watch):
            threading.Thread(target=work, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.ended.set()

    def late(self, now: float) -> str:
        """Return who has not been heard of for too long, or ""."""
        if now - self.read > LIMIT:
            return "the host of the store (rank 0, or torchrun's agent)"
        frozen = [rank for rank, (_, when) in self.seen.items() if self.read - when > LIMIT]
        return f"rank {frozen[0]}" if frozen else ""

    def _beat(self) -> None:
        while not self.ended.wait(PERIOD):
            try:
                self.store.add(f"beat/{self.rank}", 1)
                beats = [self.store.add(f"beat/{other}", 0) for other in range(self.world)]
            except RuntimeError:  # the store is gone; whoever still needs it learns so from `late`
                return
            self.read = time.monotonic()
            for other, beat in enumerate(beats):
                if beat != self.seen[other][0]:
                    self.seen[other] = (beat, self.read)

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self.ended.wait(1):
            now = time.monotonic()
            if now - looked > LIMIT / 2:  # this process stood still itself: what it heard of the others is old
                self.read, self.seen = now, {other: (beats, now) for other, (beats, _) in self.seen.items()}
            looked, late = now, self.late(now)
            if late:
                message = f"error: {late} has not answered rank {self.rank} for {LIMIT:g} seconds. "
                sys.stderr.write(message + "What was saved before is intact; the same command goes on\n")
                sys.stderr.flush()
                os._exit(1)
