"""Which tar files a data set of shards is made of, and in which split each lies."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from mixlab.data.splits import SPLIT_NAMES, Split, natural_key
from mixlab.errors import DataError

COMPRESSED = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
MAX_SHARDS = 100_000

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")


def is_shards(place: Path) -> bool:
    """Whether a place is a tar, a brace list of them, or a folder of them, with or without split folders."""
    if _is_tar(place.name) and not place.is_dir():
        return True
    return any(not _folders(folder) for folder in _split_folders(place)) or bool(_tars(place) and not _folders(place))


def root_of(place: Path) -> Path:
    """Return the folder that names of shards are relative to."""
    if place.is_dir():
        return place
    parts = place.parts[:-1]
    braces = [index for index, part in enumerate(parts) if "{" in part]
    return Path(*parts[: braces[0]]) if braces else place.parent


def find_shards(place: Path) -> dict[Split, list[Path]]:
    """Return the shards of each split, in natural order.

    Split folders decide; else a word such as train or val in a shard's name; else all are for training, to be carved.
    A data set's only second part is its test set.

    Raises:
        DataError: where there are none, or they cannot be told apart.
    """
    found = _in_folders(place) if place.is_dir() else {}
    if not found:
        found = _by_name(place, _tars(place) if place.is_dir() else _expand(place))
    if "train" not in found:
        raise DataError(f"{place} has shards for {' and '.join(found)} but none for train")
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    return found


def _in_folders(root: Path) -> dict[Split, list[Path]]:
    found: dict[Split, list[Path]] = {}
    for folder in _split_folders(root):
        split = SPLIT_NAMES[folder.name.casefold()]
        if split in found:
            raise DataError(f"{root} has two folders of shards for {split}, one of them {folder.name}; keep one")
        found[split] = _tars(folder)
    return found


def _by_name(place: Path, tars: Sequence[Path]) -> dict[Split, list[Path]]:
    if not tars:
        raise DataError(f"{place} holds no shards; expected *.tar, in it or in its folders train, validation, test")
    found: dict[Split, list[Path]] = {}
    named = 0
    for tar in tars:
        words = re.findall(r"[a-z]+", str(tar.relative_to(root_of(place))).casefold().partition(".")[0])
        splits: set[Split] = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
        if len(splits) > 1:
            raise DataError(f"the shard {tar} names two splits; put it into a folder train, validation or test")
        named += len(splits)
        split: Split = splits.pop() if splits else "train"
        found.setdefault(split, []).append(tar)
    if 0 < named < len(tars):
        raise DataError(f"only some shards of {place} are named by their split; use folders train, validation, test")
    return found


def _expand(place: Path) -> list[Path]:
    """Expand {000..146} and {a,b} as a shell does; every shard must be there."""
    pending, done = [str(place)], []
    while pending:
        text = pending.pop()
        braces = _BRACES.search(text)
        if braces is None:
            done.append(Path(text))
        else:
            words = _words(place, braces[1])
            pending += [text[: braces.start()] + word + text[braces.end() :] for word in words]
        if len(pending) + len(done) > MAX_SHARDS:
            raise DataError(f"{place} stands for more than {MAX_SHARDS:,} shards")
    missing = [path for path in done if not path.is_file()]
    if missing:
        raise DataError(f"there is no shard {min(missing)}" + (f" ({place})" if len(done) > 1 else ""))
    return sorted(done, key=lambda path: natural_key(str(path)))


def _words(place: Path, inside: str) -> list[str]:
    bounds = _RANGE.fullmatch(inside)
    if bounds is None:
        return inside.split(",")
    first, last = int(bounds[1]), int(bounds[2])
    if last - first >= MAX_SHARDS:
        raise DataError(f"{place} stands for more than {MAX_SHARDS:,} shards")
    return [str(number).zfill(len(bounds[1])) for number in range(first, last + 1)]


def _is_tar(name: str) -> bool:
    return name.endswith((".tar", *COMPRESSED)) and not name.startswith(".")


def _tars(folder: Path) -> list[Path]:
    return [folder / entry.name for entry in _entries(folder) if _is_tar(entry.name) and entry.is_file()]


def _split_folders(root: Path) -> list[Path]:
    """Return the folders that are called like a split and hold shards."""
    return [folder for folder in _folders(root) if folder.name.casefold() in SPLIT_NAMES and _tars(folder)]


def _folders(folder: Path) -> list[Path]:
    return [folder / entry.name for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith(".")]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: natural_key(entry.name))
    except OSError:  # no folder, or not ours to read: then it holds no shards
        return []
