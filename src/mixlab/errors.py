"""Errors that are answers to the reader: what was given, what was expected, what to do."""

import difflib
from collections.abc import Iterable
from typing import ClassVar


class MixlabError(Exception):
    """Base of every error that the command line prints as one line, without a traceback."""

    exit_code: ClassVar[int] = 1


class UsageError(MixlabError):
    """A command, flag, key or value that cannot be read."""

    exit_code = 2


class DataError(MixlabError):
    """Data that is missing, empty, inconsistent or unreadable."""


class UnreadableImage(DataError):
    """One image file that cannot be decoded; the message is the reason, without the file's name."""


class UnreadableNow(UnreadableImage):
    """One that may be readable another time: the memory, the disk or the network failed, not the file."""


class ImageTooLong(UnreadableImage):
    """One with more pixels in a row or a column than are decoded."""


class WorkerLost(DataError):
    """A process that decodes pictures has died, or gives no sign of life."""


class RunError(MixlabError):
    """A run folder, checkpoint or bundle that cannot be used."""


class TrainingError(MixlabError):
    """Training that cannot go on, such as a loss that is no longer finite."""


class CheckFailed(MixlabError):
    """A check that was asked for and did not pass."""

    exit_code = 3


class Interrupted(MixlabError):
    """Stopped by a signal, with everything saved."""

    exit_code = 130


def shown(value: object) -> str:
    """Return a wrong value for a message."""
    return shortened(repr(value))


def shortened(text: str, longest: int = 200) -> str:
    """Return text of at most so many characters and three dots."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def first_line(said: object) -> str:
    """Return the first line of what a library says of an error, or the kind of error where it says nothing."""
    lines = str(said).strip().splitlines()
    return shortened(lines[0]) if lines else type(said).__name__


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" with the nearest of `known`, or "" where nothing is near."""
    lowered = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.lower(), lowered, n=1, cutoff=0.6)
    return f"; did you mean {lowered[near[0]]}?" if near else ""
