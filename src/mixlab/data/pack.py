"""One file of decoded pictures: their pixels, row after row, then an index with check sums, then a footer.

Nothing of it is trusted: the index has to match the footer's sum and the file's length, every row its own sum.
"""

import contextlib
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixlab import durable
from mixlab.errors import UnreadableImage

SUFFIX = ".pixels"
DTYPES = ("uint8", "float32")
MAGIC = b"mixlabP1"
FOOTER = struct.Struct("<QI8s")  # bytes of the index, its CRC-32, MAGIC


class Identity(NamedTuple):
    """A file's name and what its status says; whoever changes the file changes one of them."""

    name: str  # relative to the root of its set
    size: int  # bytes; -1: there is no such file
    modified: int  # nanoseconds, as are all times here
    changed: int  # of the status: also where a file got its old time back, as by unpacking an archive


class Entry(NamedTuple):
    identity: Identity
    checksum: int  # CRC-32 of the row
    reason: str  # why the file cannot be read; "": it can


@dataclass(frozen=True, eq=False)
class Pack:
    path: Path
    pixels: np.ndarray  # (images, channels, side, side), mapped into memory
    entries: tuple[Entry, ...]  # one for each row


@dataclass(frozen=True, eq=False)
class PackedPixels:
    """Where the pixels of a set's images lie."""

    packs: tuple[Pack, ...]
    places: np.ndarray  # (images, 2): the pack of each image, and its row there; -1: it is in none
    say: Callable[[str], None]  # told of damage
    damaged: set[Path] = field(default_factory=set)  # packs, as met so far

    def read(self, index: int) -> np.ndarray | None:
        """Return the pixels of an image, or None where there are none.

        Where they are damaged their pack is gone for the next run.

        Raises:
            UnreadableImage: where the file could not be read when it was packed.
        """
        number, row = self.places[index].tolist()
        if number < 0:
            return None
        pack = self.packs[number]
        entry = pack.entries[row]
        if entry.reason:
            raise UnreadableImage(entry.reason)
        pixels = np.array(pack.pixels[row])
        if zlib.crc32(pixels.data) == entry.checksum:
            return pixels
        if pack.path not in self.damaged:
            self.damaged.add(pack.path)
            self.say(f"cache    {pack.path} is damaged and removed; what it held wrongly is decoded again")
            with contextlib.suppress(OSError):
                pack.path.unlink()
        return None


def write_pack(path: Path, rows: Iterable[tuple[Identity, np.ndarray, str]]) -> None:
    """Write rows of equal shape and type, each with its reason, as they come; the file appears whole or not at all.

    Raises:
        OSError: where it cannot be written.
    """
    entries, shape, dtype = [], (), ""
    with durable.replacing(path) as file:
        for identity, pixels, reason in rows:
            content = np.ascontiguousarray(pixels).data
            file.write(content)
            entries.append(Entry(identity, zlib.crc32(content), reason))
            shape, dtype = pixels.shape, pixels.dtype.name
        index = json.dumps({"shape": shape, "dtype": dtype, "entries": entries}).encode()
        file.write(index + FOOTER.pack(len(index), zlib.crc32(index), MAGIC))


def open_pack(path: Path) -> Pack | None:
    """Map a pack, or return None for what is not a whole one."""
    try:
        with path.open("rb") as file:
            end = file.seek(-FOOTER.size, 2)
            length, checksum, magic = FOOTER.unpack(file.read())
            if magic != MAGIC or length > end:
                return None
            file.seek(end - length)
            index = file.read(length)
        if zlib.crc32(index) != checksum:
            return None
        found = durable.parse_json(index)
        entries = tuple(Entry(Identity(*identity), *rest) for identity, *rest in found["entries"])
        shape = (len(entries), *found["shape"])
        if found["dtype"] not in DTYPES or np.dtype(found["dtype"]).itemsize * math.prod(shape) != end - length:
            return None
        return Pack(path, np.memmap(path, found["dtype"], "r", shape=shape), entries)
    except (OSError, ValueError, TypeError, LookupError, ArithmeticError):
        return None
