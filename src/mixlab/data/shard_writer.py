"""`mixlab data pack`: a folder of pictures as tar shards in WebDataset's layout, the pictures' bytes as they are.

Member names begin with the picture's position in its split, so the shards alone, without the index, keep the order
that the folder has. Training pictures are dealt to the shards at random, once: tools that read a shard from its
beginning see all classes.
"""

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from mixlab import durable, randomness
from mixlab.data import folder
from mixlab.data.catalogue import DataConfig, FolderConfig
from mixlab.data.decode import decode, read_bytes
from mixlab.data.shard_index import CLASS_NAMES, INDEX, Head, Rows, write_index
from mixlab.data.shard_members import spelt_out
from mixlab.errors import DataError, UnreadableImage

BLOCK = 512  # bytes that all parts of a tar are rounded up to
_END = bytes(2 * BLOCK)
_ODD = re.compile(r"[^A-Za-z0-9_-]")
AHEAD = 8  # pictures that each worker reads before they are written
DEAL_SEED = 0  # of which training picture lies in which shard; no training depends on it

Say = Callable[[str], None]


@dataclass(frozen=True)
class Packed:
    """What was written."""

    folder: Path
    shards: int
    bytes: int
    counts: dict[str, dict[str, int]]  # split -> class -> pictures
    left_out: dict[str, str]  # picture that cannot be read -> reason
    ignored: int  # files that are no pictures, or of no training class

    def as_json(self) -> dict[str, Any]:
        return vars(self)

    def lines(self) -> list[str]:
        """Return what was written, for people."""
        found = [f"{split:<10}  {sum(counts.values()):,} pictures" for split, counts in self.counts.items()]
        found += [f"left out    {name}: {reason}" for name, reason in self.left_out.items()]
        if self.ignored:
            found.append(
                f"{'note':<10}  {self.ignored:,} files are no pictures by their names, or of no training class"
            )
        return [*found, f"{'shards':<10}  {self.shards:,} in {self.folder}, {self.bytes:,} bytes"]


class _Picture(NamedTuple):
    position: int  # in its split
    name: str  # relative to the folder
    label: int
    content: bytes


def pack(config: DataConfig, out: Path, shard_bytes: int, workers: int, say: Say) -> Packed:
    """Write the pictures of a folder to shards in `out`, which appears whole or not at all.

    A picture that cannot be decoded is left out and named. The splits are those that the folder has; what it lacks is
    carved when the shards are loaded, as it would be from the folder.

    Args:
        config: of a folder.
        shard_bytes: that a shard has at most, unless one picture alone has more.
        workers: threads that decode.

    Raises:
        DataError: where `out` is not empty or lies in the folder, or cannot be written.
    """
    if not isinstance(config, FolderConfig):
        raise DataError(f"{config.label} is no folder of pictures: there is nothing to pack")
    root, listing = config.listing()
    _check_out(root, out)
    _check_class_names(listing.classes)
    aside = out.with_name(f".{out.name}.partial")
    try:
        _check_space(root, listing, out)
        with _alone_in(aside):
            left_out: dict[str, str] = {}
            rows: list[Rows] = []
            for split, items in listing.splits.items():
                pictures = _pictures(root, _dealt(split, items), workers, left_out)
                rows += _write_split(aside, split, pictures, shard_bytes, say)
            durable.write_bytes(aside / CLASS_NAMES, "".join(f"{name}\n" for name in listing.classes).encode())
            write_index(aside / INDEX, Head(classes=listing.classes, left_out=left_out), rows)
        durable.put_in_place(aside, out)
    except OSError as error:
        raise DataError(f"cannot write {error.filename or out}: {error.strerror or error}; nothing is left") from None
    counts = {split: _count(rows, split, listing.classes) for split in folder.SPLITS}
    return Packed(out, len(rows), sum(row.bytes for row in rows), counts, left_out, listing.ignored)


def _check_out(root: Path, out: Path) -> None:
    inner, outer = out.resolve(), root.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise DataError(
            f"{out} and {root} lie in each other; among pictures nothing is ever written: give another folder"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already; nothing is written over: remove it, or give another folder")


def _check_space(root: Path, listing: folder.FolderListing, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(_size(root / name) + 4 * BLOCK for items in listing.splits.values() for name, _ in items)
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise DataError(f"the shards need {needed:,} bytes, and {free:,} are free at {out.parent}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it will be named as unreadable
        return 0


@contextlib.contextmanager
def _alone_in(aside: Path) -> Iterator[None]:
    """Work in an empty folder that is gone if it fails; what a killed packing left there is removed."""
    aside.mkdir(exist_ok=True)
    lock = FileLock(aside / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(f"another mixlab packs into {aside}; wait for it, or give another folder") from None
    try:
        for path in aside.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()
        yield
    except BaseException:
        lock.release()
        shutil.rmtree(aside)
        raise
    (aside / "lock").unlink()
    lock.release()


def _check_class_names(classes: Iterable[str]) -> None:
    for name in classes:
        if name.splitlines() != [name] or spelt_out(name) != name:
            raise DataError(f"the class {name!a} cannot be a line of {CLASS_NAMES}; rename its folder")


def _dealt(split: str, items: folder.Items) -> Iterator[tuple[int, str, int]]:
    """Yield position, name and label of each picture of a split, in the order they are written in."""
    order = randomness.permutation(len(items), DEAL_SEED, "shards") if split == "train" else np.arange(len(items))
    return ((position, *items[position]) for position in order.tolist())


def _pictures(
    root: Path, items: Iterable[tuple[int, str, int]], workers: int, left_out: dict[str, str]
) -> Iterator[_Picture]:
    """Yield the pictures that can be decoded, and name the others in `left_out`."""

    def look(item: tuple[int, str, int]) -> _Picture | UnreadableImage:
        try:
            content = read_bytes(root / item[1])
            decode(content)
            return _Picture(*item, content)
        except UnreadableImage as error:
            return error

    items = iter(items)
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        while chunk := list(itertools.islice(items, AHEAD * max(workers, 1))):
            for (_, name, _), found in zip(chunk, pool.map(look, chunk), strict=True):
                if isinstance(found, _Picture):
                    yield found
                else:
                    left_out[spelt_out(name)] = str(found)


def _write_split(aside: Path, split: str, pictures: Iterable[_Picture], shard_bytes: int, say: Say) -> Iterator[Rows]:
    for number, numbered in itertools.groupby(_numbered(pictures, shard_bytes), key=lambda item: item[0]):
        name = f"{split}/{number:06d}.tar"
        (aside / split).mkdir(exist_ok=True)
        with durable.replacing(aside / name) as file:
            rows = _write_shard(file, name, (picture for _, picture in numbered))
        say(f"packed   {name}: {len(rows.names):,} pictures, {rows.bytes:,} bytes")
        yield rows


def _numbered(pictures: Iterable[_Picture], shard_bytes: int) -> Iterator[tuple[int, _Picture]]:
    """Yield each picture with the number of its shard."""
    number, filled = 0, 0
    for picture in pictures:
        needed = 3 * BLOCK + _rounded(len(picture.content))  # two headers and the class beside the picture
        if filled and filled + needed + len(_END) > shard_bytes:
            number, filled = number + 1, 0
        filled += needed
        yield number, picture


def _write_shard(file: IO[bytes], name: str, pictures: Iterable[_Picture]) -> Rows:
    tar, written, offsets = _Tar(file), [], []
    for picture in pictures:
        stem, suffix = os.path.splitext(PurePosixPath(picture.name).name)
        key = f"{picture.position:08d}-{_ODD.sub('_', stem)[:60]}"
        tar.add(f"{key}.cls", str(picture.label).encode())
        offsets.append(tar.add(f"{key}{suffix.lower()}", picture.content))
        written.append((spelt_out(picture.name), picture.label, picture.position, len(picture.content)))
    names, labels, positions, sizes = zip(*written, strict=True)
    digest = tar.end()
    return Rows(
        shard=name,
        bytes=tar.bytes,
        sha256=digest,
        names=names,
        labels=labels,
        positions=positions,
        offsets=tuple(offsets),
        sizes=sizes,
    )


class _Tar:
    """A tar that is written member by member, the same bytes for the same members."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self.bytes = file, hashlib.sha256(), 0

    def add(self, name: str, content: bytes) -> int:
        """Write a member and return the offset of its content."""
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._write(member.tobuf(tarfile.USTAR_FORMAT))
        offset = self.bytes
        self._write(content)
        self._write(bytes(_rounded(len(content)) - len(content)))
        return offset

    def end(self) -> str:
        """Write the end, and return the SHA-256 of everything."""
        self._write(_END)
        return self._digest.hexdigest()

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._digest.update(content)
        self.bytes += len(content)


def _rounded(size: int) -> int:
    return size + -size % BLOCK


def _count(rows: Iterable[Rows], split: str, classes: Sequence[str]) -> dict[str, int]:
    found = Counter(label for row in rows if row.shard.startswith(f"{split}/") for label in row.labels)
    return {name: found[label] for label, name in enumerate(classes)}
