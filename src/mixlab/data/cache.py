"""The cache of decoded pictures: packs in a place of its own, never in the user's folder.

Each way to turn one folder's files into pixels has a folder here. A pack holds the files that were missing when it was
written, so that another seed's split, or a few new files, add a small pack to those that are there.
"""

import contextlib
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from filelock import FileLock, Timeout
from PIL import features

from mixlab import durable, places
from mixlab.data.images import FileImages
from mixlab.data.loading import batches, in_order
from mixlab.data.pack import SUFFIX, Identity, Pack, PackedPixels, open_pack, write_pack
from mixlab.errors import DataError, UnreadableImage, UnreadableNow

ABOUT = "about.json"
DECODE_VERSION = 3  # raise it where the same file gets other pixels than before
LEFT_FREE = 2**30  # bytes of the disk that are left for the run itself
BATCH_SIZE = 64

Say = Callable[[str], None]


@dataclass(frozen=True)
class Kept:
    """One folder of the cache."""

    folder: Path
    source: str  # folder that the pictures lie in
    kind: str  # what the pixels are for: training or evaluation
    shape: tuple[int, ...]  # channels, height and width of each picture
    bytes: int


def home() -> Path:
    """Return where decoded pictures are kept."""
    return places.cache_home() / "pixels"


def find(images: FileImages, say: Say) -> FileImages:
    """Return the set with its pixels from the cache, where all of them are there; else as it is."""
    return _find(images, say, most_missing=0)


def fill(images: FileImages, workers: int, say: Say) -> FileImages:
    """Decode what is not in the cache yet, and return the set with its pixels from there.

    Where they cannot be kept that is said in one line, and the set comes back as it is. Of pictures that cannot be read
    now, though their files may be whole, nothing is kept: they are tried again whenever they are asked for.
    """
    found = find(images, say)
    if found.packed is not None or len(images) == 0:
        return found
    folder, left_out = _folder(images), 0
    try:
        if folder.resolve().is_relative_to(images.root.resolve()):
            raise OSError("it lies among the pictures, where nothing is ever written")
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, say):
            left_out = _complete(images, folder, workers, say)
    except (OSError, NotImplementedError) as error:  # the latter from file systems without locks
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        say(f"cache    cannot be kept in {folder}: {reason}; going on without it")
    return _find(images, say, left_out)


def kept() -> list[Kept]:
    """Return what the cache holds."""
    return [_describe(path.parent) for path in sorted(home().glob(f"*/{ABOUT}"))]


def clear() -> None:
    """Remove what the cache holds, and nothing else that may lie in its place.

    Raises:
        DataError: where it cannot be removed.
    """
    try:
        for each in kept():
            for path in _files(each.folder):
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something of somebody else lies in it
                each.folder.rmdir()
    except OSError as error:
        raise DataError(f"cannot remove {error.filename}: {error.strerror}") from None


def size_text(size: int) -> str:
    """Return bytes for people, such as "142 MiB" or "7.4 GiB"."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{max(size / 2**20, 0.1):,.3g} MiB"


def _find(images: FileImages, say: Say, most_missing: int) -> FileImages:
    packs = _open_packs(_folder(images))
    if not packs or len(images) == 0:
        return images
    found = _places(_identities(images), packs)
    if (found[:, 0] < 0).sum() > most_missing:
        return images
    reasons = [packs[pack].entries[row].reason if pack >= 0 else "" for pack, row in found]
    unreadable = {name: reason for name, reason in zip(images.names, reasons, strict=True) if reason}
    return replace(images, packed=PackedPixels(packs, found, say), unreadable=unreadable)


def _about(images: FileImages) -> dict[str, Any]:
    """Return whatever decides the pixels besides the files."""
    return {
        "source": str(images.root.resolve()),
        "shape": images.shape,
        "kind": "training" if images.canvas_size else "evaluation",
        "resize_mode": images.spec.resize_mode,
        "mean": images.spec.mean,
        "decode": DECODE_VERSION,
        "pillow": [PIL.__version__, features.version("jpg"), features.version("zlib")],
        "torch": [torch.__version__, torch.backends.cpu.get_cpu_capability()],
    }


def _folder(images: FileImages) -> Path:
    about = json.dumps(_about(images), sort_keys=True)
    return home() / f"{images.root.resolve().name}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"


def _identities(images: FileImages) -> list[Identity]:
    return [images.identity(index) for index in range(len(images))]


def _open_packs(folder: Path) -> tuple[Pack, ...]:
    opened = (open_pack(path) for path in sorted(folder.glob(f"*{SUFFIX}")))
    return tuple(pack for pack in opened if pack is not None)


def _places(identities: Sequence[Identity], packs: Sequence[Pack]) -> np.ndarray:
    """Return the pack and the row of each file, (files, 2); -1 where it is in none."""
    known = {
        entry.identity: (number, row) for number, pack in enumerate(packs) for row, entry in enumerate(pack.entries)
    }
    return np.array([known.get(identity, (-1, -1)) for identity in identities])


@contextlib.contextmanager
def _locked(folder: Path, say: Say) -> Iterator[None]:
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"cache    another mixlab writes to {folder}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _complete(images: FileImages, folder: Path, workers: int, say: Say) -> int:
    """Write a pack of the pictures that are in none, and return how many were left out, for they may be read later.

    What a killed or damaged writer left is removed first.
    """
    packs, identities = _open_packs(folder), _identities(images)
    missing = np.flatnonzero(_places(identities, packs)[:, 0] < 0)
    if len(missing) == 0:
        return 0
    durable.remove_partials(folder)
    for path in set(folder.glob(f"*{SUFFIX}")) - {pack.path for pack in packs}:
        say(f"cache    {path} is damaged and removed")
        path.unlink()
    needed, free = len(missing) * images.image_bytes, shutil.disk_usage(folder).free
    if needed + LEFT_FREE > free:
        raise OSError(f"it needs {size_text(needed)}, and {size_text(free)} of the disk are free")
    say(f"cache    decoding {len(missing):,} pictures into {folder} ({size_text(needed)})")
    with durable.replacing(folder / ABOUT) as file:
        file.write(json.dumps(_about(images), indent=2).encode())
    chosen = [identities[index] for index in missing]
    name = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:16]
    left_out: dict[str, str] = {}
    with contextlib.closing(_rows(images.select(missing), chosen, workers, left_out)) as rows:
        first = next(rows, None)
        if first is not None:
            write_pack(folder / f"{name}{SUFFIX}", itertools.chain([first], rows))
    if left_out:
        say(f"cache    {_listed(left_out)}; nothing is kept of what may be read another time")
    return len(left_out)


def _listed(left_out: dict[str, str]) -> str:
    name, reason = next(iter(left_out.items()))
    more = f" and {len(left_out) - 1:,} more" if len(left_out) > 1 else ""
    return f"{name}{more} cannot be read now ({reason})"


def _rows(
    images: FileImages, identities: Sequence[Identity], workers: int, left_out: dict[str, str]
) -> Generator[tuple[Identity, np.ndarray, str], None, None]:
    """Decode every file; one that cannot be read has empty pixels and its reason.

    Args:
        left_out: takes the names and reasons of those that may be read another time, and have no row.
    """
    order = in_order(images, BATCH_SIZE)
    with contextlib.closing(batches(images, order, workers)) as found:
        for asked, batch in zip(order, found, strict=True):
            pixels = torch.zeros(len(asked), *images.shape, dtype=images.dtype)
            pixels[torch.from_numpy(batch.indices - asked[0])] = batch.images
            for index, row in zip(asked.tolist(), pixels.numpy(), strict=True):
                name, identity = images.names[index], identities[index]
                again = _read_again(images, index) if name in images.unreadable else row
                # A file without a status, such as a link to nothing, has another identity once it is there.
                if isinstance(again, UnreadableNow) and identity.size >= 0:
                    left_out[name] = str(again)
                elif isinstance(again, UnreadableImage):
                    yield identity, row, str(again)
                else:
                    yield identity, again, ""


def _read_again(images: FileImages, index: int) -> np.ndarray | UnreadableImage:
    """Read a picture here, for workers hand over the reasons of failures alone, not whether they may pass."""
    try:
        return images.read(index).numpy()
    except UnreadableImage as error:
        return error


def _describe(folder: Path) -> Kept:
    size = sum(path.stat().st_size for path in _files(folder))
    try:
        about = durable.read_json(folder / ABOUT)
        return Kept(folder, about["source"], about["kind"], tuple(about["shape"]), size)
    except (OSError, ValueError, KeyError, TypeError):  # damaged; it can still be cleared
        return Kept(folder, folder.name, "unknown", (), size)


def _files(folder: Path) -> list[Path]:
    """Return what is ours in a folder, its description last."""
    found = [*folder.glob(f"*{SUFFIX}"), *folder.glob(f".*{SUFFIX}.*.partial"), folder / "lock", folder / ABOUT]
    return [path for path in found if path.is_file()]
