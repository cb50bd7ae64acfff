"""The index of a data set of shards: for each picture its name, class, shard, offset and size.

One line of JSON for the data set, then one for each shard, so that no more than a shard's numbers are Python objects at
once. `mixlab data pack` writes it beside the shards; for shards of others it is made once from the headers of the tars,
and kept in the cache.
"""

import contextlib
import hashlib
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from pydantic import ValidationError

from mixlab import durable, places
from mixlab.config import Config
from mixlab.data.shard_members import Member, check_sources, read_members
from mixlab.data.shard_places import find_shards, root_of
from mixlab.data.slices import Shard, Slices
from mixlab.data.splits import SPLIT_NAMES, Split, natural_key
from mixlab.errors import DataError

INDEX = "mixlab-index.jsonl"
CLASS_NAMES = "classnames.txt"  # one name a line, in the order of the numbers in .cls; others write it too
Line = TypeVar("Line", bound=Config)
READERS = 8  # shards whose headers are read at once: each read may wait for a disk


class Head(Config):
    """The first line of an index."""

    version: Literal[1] = 1
    classes: tuple[str, ...]
    numbered: bool = False  # classes are numbers that a list of names stands beside
    left_out: dict[str, str] = {}  # picture that could not be read when it was packed -> reason
    without_picture: int = 0  # samples


class Rows(Config):
    """A shard, and what is known of each of its pictures."""

    shard: str  # relative to the data set's folder, with "/"
    bytes: int
    modified: int = -1  # nanoseconds; -1: not compared, for a packed set may be copied
    sha256: str = ""  # where it was packed here
    names: tuple[str, ...]  # that people read
    labels: tuple[int, ...]  # places in the classes
    positions: tuple[int, ...]  # in the order of the split
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """The pictures of one split, in their order."""

    names: tuple[str, ...]
    labels: np.ndarray  # (pictures,), int64: places in the classes
    slices: Slices


@dataclass(frozen=True, eq=False)
class Index:
    classes: tuple[str, ...]
    parts: dict[Split, Part]
    without_picture: int  # samples


def read_index(place: Path) -> Index:
    """Return the index of a data set of shards: its own or the cached one, made where neither is there.

    Raises:
        DataError: in one line, for shards that cannot be used.
    """
    root, found = root_of(place), find_shards(place)
    splits: dict[str, Split] = {
        path.relative_to(root).as_posix(): split for split, paths in found.items() for path in paths
    }
    shards = {name: Shard.at(root / name) for name in splits}
    if (root / INDEX).is_file():
        head, rows = _read(root / INDEX)
        return _join(root, splits, shards, head, _own(root, shards, rows, whole=place.is_dir()))
    cached = _cached(place)
    with contextlib.suppress(OSError, DataError):  # none yet, or damaged: it is made anew
        head, rows = _read(cached)
        return _join(root, splits, shards, head, _fresh(shards, rows))
    head, rows = _from_headers(splits, shards)
    with contextlib.suppress(OSError):  # nowhere to keep it: the headers are read again the next time
        if not cached.resolve().is_relative_to(root.resolve()):
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_index(cached, head, rows)
    return _join(root, splits, shards, head, rows)


def write_index(path: Path, head: Head, rows: Iterable[Rows]) -> None:
    """Write an index in one step; raises OSError."""
    with durable.replacing(path) as file:
        for line in (head, *rows):
            file.write(line.model_dump_json().encode() + b"\n")


def damaged(place: Path) -> dict[str, str]:
    """Return {shard: reason} for those that are not what was packed, by their SHA-256; reads all of them."""
    root = root_of(place)
    if not (root / INDEX).is_file():
        return {}
    found = {}
    for row in _read(root / INDEX)[1]:
        with (root / row.shard).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != row.sha256:
                found[row.shard] = "does not match the SHA-256 it was packed with; copy it again"
    return found


def _read(path: Path) -> tuple[Head, Iterator[Rows]]:
    """Return the first line of an index, and the others as they are read; raises DataError for what is none."""
    with path.open("rb") as file:
        first = file.readline()

    def rows() -> Iterator[Rows]:
        with path.open("rb") as file:
            for line in itertools.islice(file, 1, None):
                yield _parse(path, Rows, line)

    return _parse(path, Head, first), rows()


def _parse(path: Path, kind: type[Line], line: bytes) -> Line:
    try:
        return kind.model_validate_json(line)
    except ValidationError:
        raise _damaged(path) from None


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is damaged; remove it, and the headers of the shards are read instead")


def _own(root: Path, shards: Mapping[str, Shard], rows: Iterable[Rows], whole: bool) -> Iterator[Rows]:
    """Yield what lies beside the shards; raises DataError where it does not fit to them."""
    missing = set(shards)
    for row in rows:
        if row.shard in missing:
            missing.remove(row.shard)
            size = shards[row.shard].size
            if size != row.bytes:
                raise DataError(
                    f"the shard {root / row.shard} has {size:,} bytes, and had {row.bytes:,} when it was packed; "
                    "copy it again"
                )
            yield row
        elif whole:
            raise DataError(f"the shard {root / row.shard} is missing; {INDEX} names it: copy it again")
    if missing:
        raise DataError(f"the shard {root / min(missing)} is not in {INDEX}; move one of them away")


def _fresh(shards: Mapping[str, Shard], rows: Iterable[Rows]) -> Iterator[Rows]:
    """Yield a cached index; raises DataError where the shards are no longer those that it was made from."""
    missing = dict(shards)
    for row in rows:
        shard = missing.pop(row.shard, None)
        if shard is None or (shard.size, shard.modified) != (row.bytes, row.modified):
            raise DataError(f"{row.shard} changed")
        yield row
    if missing:
        raise DataError(f"{min(missing)} is new")


def clear_cached() -> None:
    """Remove the indexes that were made of shards without one.

    Raises:
        DataError: where one cannot be removed.
    """
    for path in _cache().glob("*.jsonl"):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"cannot remove {path}: {error.strerror}") from None


def _cache() -> Path:
    return places.cache_home() / "shards"


def _cached(place: Path) -> Path:
    name = hashlib.sha256(str(place.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return _cache() / f"{root_of(place).resolve().name}-{name}.jsonl"


def _from_headers(splits: Mapping[str, Split], shards: Mapping[str, Shard]) -> tuple[Head, list[Rows]]:
    if sys.stderr.isatty():
        print(f"reading the headers of {len(shards):,} shards, once", file=sys.stderr)
    with ThreadPoolExecutor(READERS) as pool:
        read = list(pool.map(read_members, [shard.path for shard in shards.values()]))
    found = {name: members for name, (members, _) in zip(shards, read, strict=True)}
    check_sources((f"{name}/{each.name}", each.source) for name, members in found.items() for each in members)
    classes = sorted({each.label for members in found.values() for each in members}, key=natural_key)
    number_of = {label: number for number, label in enumerate(classes)}
    positions = _positions(splits, found)
    rows = [
        Rows(
            shard=name,
            bytes=shards[name].size,
            modified=shards[name].modified,
            names=tuple(f"{name}/{each.name}" for each in members),
            labels=tuple(number_of[each.label] for each in members),
            positions=positions[name],
            offsets=tuple(each.offset for each in members),
            sizes=tuple(each.size for each in members),
        )
        for name, members in found.items()
    ]
    numbered = any(each.source != "folder" for members in found.values() for each in members)
    return Head(classes=tuple(classes), numbered=numbered, without_picture=sum(count for _, count in read)), rows


def _positions(splits: Mapping[str, Split], found: Mapping[str, list[Member]]) -> dict[str, tuple[int, ...]]:
    """Return the position of each picture in its split: in the order of names, whatever shard each lies in."""
    positions: dict[str, tuple[int, ...]] = {}
    for split in set(splits.values()):
        shards = [name for name in found if splits[name] == split]
        names = [each.name for shard in shards for each in found[shard]]
        ranks = np.empty(len(names), dtype=np.int64)
        ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
        ends = np.cumsum([len(found[shard]) for shard in shards])
        parts = np.split(ranks, ends[:-1])
        positions |= {shard: tuple(part.tolist()) for shard, part in zip(shards, parts, strict=True)}
    return positions


def _join(
    root: Path, splits: Mapping[str, Split], shards: Mapping[str, Shard], head: Head, rows: Iterable[Rows]
) -> Index:
    """Put the shards of each split together, its pictures in their order."""
    joined: dict[Split, _Columns] = {split: _Columns() for split in splits.values()}
    for row in rows:
        joined[splits[row.shard]].add(root, row, shards[row.shard], len(head.classes))
    parts: dict[Split, Part] = {split: columns.part() for split, columns in joined.items()}
    return Index(_named(root, head), parts, head.without_picture)


class _Columns:
    """The pictures of one split while its shards come in."""

    def __init__(self) -> None:
        self.shards: list[Shard] = []
        self.names: list[str] = []
        self.numbers: list[np.ndarray] = []  # (5, pictures): label, position, shard, offset, size

    def add(self, root: Path, row: Rows, shard: Shard, classes: int) -> None:
        """Take the pictures of a shard; raises DataError where its row makes no sense."""
        try:
            places = [len(self.shards)] * len(row.names)
            numbers = np.array([row.labels, row.positions, places, row.offsets, row.sizes], dtype=np.int64)
        except (ValueError, OverflowError):  # columns of different length, or numbers beyond 64 bits
            raise _damaged(root / INDEX) from None
        labels, _, _, offsets, sizes = numbers
        if len(row.names) and (numbers.min() < 0 or labels.max() >= classes or (sizes > shard.size - offsets).any()):
            raise _damaged(root / INDEX)
        self.shards.append(shard)
        self.names += row.names
        self.numbers.append(numbers)

    def part(self) -> Part:
        labels, positions, places, offsets, sizes = np.concatenate(self.numbers, axis=1)
        order = np.argsort(positions, kind="stable")
        names = tuple(self.names[place] for place in order.tolist())
        slices = Slices(tuple(self.shards), places[order].astype(np.int32), offsets[order], sizes[order])
        return Part(names, labels[order], slices)


def _named(root: Path, head: Head) -> tuple[str, ...]:
    """Return the classes by name; raises DataError for a number that has none."""
    holders = [root, root.parent] if root.name.casefold() in SPLIT_NAMES else [root]
    path = next((folder / CLASS_NAMES for folder in holders if (folder / CLASS_NAMES).is_file()), None)
    if path is None or not head.numbered:
        return head.classes
    try:
        names = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    unknown = [label for label in head.classes if label.isdecimal() and int(label) >= len(names)]
    if unknown:
        raise DataError(f"{path} has {len(names)} names, and a picture is of class {unknown[0]}, counted from 0")
    return tuple(names[int(label)] if label.isdecimal() else label for label in head.classes)
