"""Turns: however many pictures come at once, so many are decoded, and a request of many keeps no other waiting."""

import asyncio
from collections import deque

from mixlab.serving.batching import Caller


class Turns:
    """Hands out turns to requests one after the other, while there are threads and room for their pixels."""

    def __init__(self, at_once: int, pixels: int) -> None:
        self.at_once, self.pixels = at_once, pixels
        self.taken = 0  # pixels
        self._running = 0
        self._waiting: dict[Caller, deque[tuple[int, asyncio.Future[None]]]] = {}  # whose turn comes next is first

    async def take(self, caller: Caller, pixels: int) -> None:
        """Wait for a thread, which is held until `leave`, and for pixels, which are held until `give`."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append((pixels, turn))
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had come already
                self.leave()
                self.give(pixels)
            self._hand_out()
            raise

    def leave(self) -> None:
        self._running -= 1
        self._hand_out()

    def give(self, pixels: int) -> None:
        self.taken -= pixels
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._running < self.at_once:
            caller, pictures = next(iter(self._waiting.items()))
            pixels, turn = pictures[0]
            if not turn.cancelled():
                if self.taken and self.taken + pixels > self.pixels:
                    return  # nothing smaller goes first, or the largest would wait for ever
                self._running += 1
                self.taken += pixels
                turn.set_result(None)
            pictures.popleft()
            del self._waiting[caller]
            if pictures:
                self._waiting[caller] = pictures  # behind all others
