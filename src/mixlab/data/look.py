"""One look at every picture of a data set: its size, a digest of its pixels, a thumbnail, and what is odd about it."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from mixlab.data.decode import Oddity, decode, oddities
from mixlab.data.images import FileImages, Images
from mixlab.errors import UnreadableImage
from mixlab.spec import DataSpec

SIDE = 16  # of thumbnails, pixels
CHUNK = 1024  # pictures that are on their way at a time


Watch = Callable[[Iterable["Seen | UnreadableImage"], int], Iterable["Seen | UnreadableImage"]]  # of so many in all


class Seen(NamedTuple):
    width: int  # as displayed, pixels
    height: int
    digest: int  # 64 bits of a hash of size and pixels
    thumbnail: np.ndarray  # (SIDE, SIDE), uint8, grey
    odd: tuple[Oddity, ...] = ()


@dataclass(frozen=True, eq=False)
class Pictures:
    """What was seen of all pictures, training first."""

    names: tuple[str, ...]
    splits: tuple[str, ...]  # of each picture
    labels: np.ndarray  # (pictures,), int64
    classes: tuple[str, ...]  # names, by label
    sizes: np.ndarray  # (pictures, 2), width and height, int64; 0: unreadable
    digests: np.ndarray  # (pictures,), uint64
    thumbnails: np.ndarray  # (pictures, SIDE, SIDE), uint8
    unreadable: dict[int, str]  # picture -> reason
    odd: dict[Oddity, list[int]]  # what -> pictures

    @property
    def readable(self) -> np.ndarray:
        return np.flatnonzero(self.sizes[:, 0])

    def place(self, index: int) -> dict[str, str]:
        """Return where a picture is."""
        return {
            "split": self.splits[index],
            "class": self.classes[self.labels[index]],
            "name": self.names[index],
        }


def look(splits: Mapping[str, Images], spec: DataSpec, workers: int, watch: Watch = lambda seen, _: seen) -> Pictures:
    """Decode every picture of these splits once, in as many threads as there are workers.

    Args:
        watch: passes on what was seen, and may show how far it is.
    """
    total = sum(map(len, splits.values()))
    sizes, digests = np.zeros((total, 2), dtype=np.int64), np.zeros(total, dtype=np.uint64)
    thumbnails = np.zeros((total, SIDE, SIDE), dtype=np.uint8)
    unreadable: dict[int, str] = {}
    odd: dict[Oddity, list[int]] = {}
    every = (seen for images in splits.values() for seen in _every(images, spec.channels, workers))
    for index, seen in enumerate(watch(every, total)):
        if isinstance(seen, UnreadableImage):
            unreadable[index] = str(seen)
            continue
        sizes[index], digests[index], thumbnails[index] = seen[:2], seen.digest, seen.thumbnail
        for what in seen.odd:
            odd.setdefault(what, []).append(index)
    return Pictures(
        tuple(name for images in splits.values() for name in images.names),
        tuple(split for split, images in splits.items() for _ in range(len(images))),
        np.concatenate([images.labels for images in splits.values()]),
        spec.classes,
        sizes,
        digests,
        thumbnails,
        unreadable,
        odd,
    )


def see(pixels: np.ndarray) -> Seen:
    """Look at decoded pixels, uint8 (height, width, channels)."""
    height, width, channels = pixels.shape
    image = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=8, person=f"{width}x{height}".encode())
    return Seen(width, height, int.from_bytes(digest.digest()), np.asarray(grey))


def _every(images: Images, channels: int, workers: int) -> Iterator[Seen | UnreadableImage]:
    if not isinstance(images, FileImages):
        for pixels in images.images.permute(0, 2, 3, 1).contiguous().numpy():
            yield see(pixels)
        return
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for start in range(0, len(images), CHUNK):
            chosen = range(start, min(start + CHUNK, len(images)))
            yield from pool.map(lambda index: _open(images, index, channels), chosen)


def _open(images: FileImages, index: int, channels: int) -> Seen | UnreadableImage:
    try:
        source = images.source(index)
        seen = see(decode(source, channels))
    except UnreadableImage as error:
        return error
    with contextlib.suppress(UnreadableImage):  # damage behind the first frame, which nobody else would meet
        return seen._replace(odd=tuple(oddities(source, images.names[index])))
    return seen
