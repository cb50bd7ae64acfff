"""A budget of pixels: however many pictures come at once, decoded ones take only so much memory."""

import threading

from mixlab.data.decode import MAX_PIXELS


class PixelBudget:
    """Threads that decode wait here until there is room; the largest picture that is decoded at all always fits."""

    def __init__(self, total: int = MAX_PIXELS) -> None:
        self.total = total
        self.taken = 0
        self._changed = threading.Condition()

    def take(self, pixels: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.taken == 0 or self.taken + pixels <= self.total)
            self.taken += pixels

    def give(self, pixels: int) -> None:
        with self._changed:
            self.taken -= pixels
            self._changed.notify_all()
