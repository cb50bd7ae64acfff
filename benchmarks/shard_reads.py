"""Pictures a second that a disk gives, undecoded and not from memory: as files and from shards, at random and in order.

    python benchmarks/shard_reads.py PLACE [--pictures 20000] [--read 4000]

PLACE is a folder on that disk; files of 40 to 180 KB and shards of them are made there once. Before each measurement
the system is asked to forget what it holds of them. "a window of 2" reads at random within two shards at a time;
"announced" asks the system to read each of them whole beforehand.
"""

import argparse
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from mixlab.data.catalogue import PicturesConfig, parse_data
from mixlab.data.images import FileImages
from mixlab.data.shard_writer import pack
from mixlab.data.slices import Slices
from mixlab.errors import DataError

WINDOW = 2  # shards


def make(place: Path, count: int) -> None:
    """Write files that decode as a tiny picture, with as many more bytes as a photograph has, and shards of them."""
    generator, buffer = np.random.default_rng(0), io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    for number in range(count):
        path = place / "pictures" / f"class{number % 100}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue() + generator.bytes(int(generator.integers(40_000, 180_000))))
    pack(parse_data(str(place / "pictures")), place / "shards", 256_000_000, 2, print)
    os.sync()  # what is not on the disk yet cannot be forgotten


def pictures(place: Path) -> FileImages:
    config = parse_data(str(place))
    if not isinstance(config, PicturesConfig):
        raise DataError(f"{place} is no folder of pictures and no shards")
    return config.parts().train


def forget(images: FileImages) -> None:
    """Ask the system to drop what it holds of these files."""
    shards = None if images.slices is None else images.slices.shards
    paths = [images.root / name for name in images.names] if shards is None else [shard.path for shard in shards]
    for path in paths:
        _advise(path, os.POSIX_FADV_DONTNEED)


def windows(slices: Slices, generator: np.random.Generator) -> np.ndarray:
    """Return a random order within a few shards at a time."""
    drawn = generator.permutation(len(slices.shards))
    chosen = [drawn[start : start + WINDOW] for start in range(0, len(drawn), WINDOW)]
    return np.concatenate([generator.permutation(np.flatnonzero(np.isin(slices.places, few))) for few in chosen])


def speed(images: FileImages, order: np.ndarray, threads: int, announced: bool = False) -> tuple[float, float]:
    """Return the pictures and the megabytes a second."""
    known: set[int] = set()

    def read(index: int) -> int:
        if announced and images.slices is not None and (shard := int(images.slices.places[index])) not in known:
            known.add(shard)
            _advise(images.slices.shards[shard].path, os.POSIX_FADV_WILLNEED)
        source = images.source(index)
        return len(source if isinstance(source, bytes) else source.read_bytes())

    forget(images)
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(read, order.tolist()))
    seconds = time.perf_counter() - started
    return len(order) / seconds, total / seconds / 1e6


def orders(files: FileImages, packed: FileImages, slices: Slices) -> dict[str, tuple[FileImages, np.ndarray]]:
    """Return what is read, and in which order, by name."""
    generator = np.random.default_rng(0)
    return {
        "files at random": (files, generator.permutation(len(files))),
        "shards at random": (packed, generator.permutation(len(packed))),
        f"a window of {WINDOW} shards": (packed, windows(slices, generator)),
        f"a window of {WINDOW} shards, announced": (packed, windows(slices, generator)),
        "shards in order": (packed, np.lexsort((slices.offsets, slices.places))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures a second that a disk gives, as files and from shards.")
    parser.add_argument("place", type=Path)
    parser.add_argument("--pictures", type=int, default=20_000, help="to make")
    parser.add_argument("--read", type=int, default=4000, help="pictures of one measurement")
    chosen = parser.parse_args()
    if not (chosen.place / "shards").exists():
        make(chosen.place, chosen.pictures)
    files, packed = pictures(chosen.place / "pictures"), pictures(chosen.place / "shards")
    if packed.slices is None:
        raise SystemExit(f"{chosen.place / 'shards'} holds no shards")
    for threads in (1, 8):
        for name, (images, order) in orders(files, packed, packed.slices).items():
            found, megabytes = speed(images, order[: chosen.read], threads, name.endswith("announced"))
            print(f"{threads} threads  {name:<34} {found:8,.0f} pictures/s {megabytes:7,.0f} MB/s", flush=True)


def _advise(path: Path, advice: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, advice)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
