"""Pictures inside tar files that are not compressed: bytes at an offset, so any of them can be read at any time."""

import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixlab.data.pack import Identity
from mixlab.errors import DataError, UnreadableImage, UnreadableNow


class Shard(NamedTuple):
    """A tar file, and what its status said when the data set was loaded."""

    path: Path
    size: int  # bytes
    modified: int  # nanoseconds
    changed: int  # of the status, nanoseconds

    @classmethod
    def at(cls, path: Path) -> "Shard":
        """Ask for the status; raises DataError where there is none."""
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"cannot read the shard {path}: {error.strerror}") from None
        return cls(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, eq=False)
class Slices:
    """Where the bytes of pictures lie."""

    shards: tuple[Shard, ...]
    places: np.ndarray  # (pictures,), int32: which of the shards
    offsets: np.ndarray  # (pictures,), int64: of the first byte
    sizes: np.ndarray  # (pictures,), int64: bytes

    def read(self, index: int) -> bytes:
        """Return the bytes of a picture.

        The shard is opened each time: no descriptors are shared with workers, and one that changed is never read.

        Raises:
            UnreadableImage: where the shard is not the one that was loaded; UnreadableNow where it cannot be read.
        """
        shard, size = self.shards[self.places[index]], int(self.sizes[index])
        try:
            with shard.path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if (status.st_size, status.st_mtime_ns) != (shard.size, shard.modified):
                    raise UnreadableImage(f"the shard {shard.path.name} changed since it was loaded")
                file.seek(int(self.offsets[index]))
                return _exactly(file, size)
        except OSError as error:
            raise UnreadableNow(f"the shard {shard.path.name}: {(error.strerror or str(error)).lower()}") from None

    def identity(self, name: str, index: int) -> Identity:
        """Return what changes when the picture of this name does."""
        shard = self.shards[self.places[index]]
        return Identity(name, int(self.sizes[index]), shard.modified, shard.changed)

    def select(self, indices: np.ndarray) -> "Slices":
        """Return the slices of only these pictures, in this order."""
        chosen = (self.places[indices], self.offsets[indices], self.sizes[indices])
        return replace(self, places=chosen[0], offsets=chosen[1], sizes=chosen[2])


def _exactly(file: io.FileIO, size: int) -> bytes:
    """Read so many bytes; a network file system may give fewer at once."""
    found = file.read(size)
    while len(found) < size and (more := file.read(size - len(found))):
        found += more
    return found
