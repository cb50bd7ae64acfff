"""Processes that end with the one that started them."""

import ctypes
import os
import sys


def end_with(parent: int, number: int) -> None:
    """Have Linux send this process a signal when its parent ends, however that came; elsewhere nothing happens."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, int(number))
        if os.getppid() != parent:  # it ended before this was asked for
            os._exit(1)
