"""Libraries that say on import or use what nobody can act on."""

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(logger: str = "") -> Iterator[None]:
    """Keep warnings, and what a logger says below an error, off the screen; "": the logger of all.

    The level is as it was afterwards: it belongs to the program that called.
    """
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
