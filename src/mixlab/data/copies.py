"""Copies among pictures.

Exact copies have the same decoded pixels, whatever their files are; that two files have the same bytes implies it. Near
copies have thumbnails that correlate: the same picture compressed, resized, brightened, or cut a little at its edge.
Candidates are found without comparing all with all: the signs of the lowest frequencies of a thumbnail's cosine
transform are 64 bits, and whoever shares 16 bits in a row with another is compared with it.
"""

import numpy as np

ALIKE = 0.95  # correlation of thumbnails from which on pictures are near copies, as judged in docs/experiments.md
FLAT = 2.0  # standard deviation of a thumbnail, in grey levels, below which it shows too little to tell
BITS = 64
BAND = 16  # bits in a row that candidates share
STRIDE = 5  # bits from one band to the next
NEIGHBOURS = 100  # candidates that a picture is compared with in a band, at most
CHUNK = 8192  # pictures or pairs at a time


def exact_copies(digests: np.ndarray) -> list[np.ndarray]:
    """Return the indices of each group of equal digests, of two or more, ascending."""
    order = np.argsort(digests, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(digests[order])) + 1)
    return sorted((group for group in groups if len(group) > 1), key=lambda group: group[0])


def near_copies(thumbnails: np.ndarray) -> np.ndarray:
    """Return pairs of indices of pictures that look the same, int64 (pairs, 2), each ascending.

    Args:
        thumbnails: uint8 (pictures, side, side), grey.
    """
    telling = np.flatnonzero(thumbnails.std((1, 2), dtype=np.float32) >= FLAT)
    thumbnails = thumbnails[telling]
    bits = signs(thumbnails)
    found = [_near_in_band(np.roll(bits, -start, axis=1), thumbnails) for start in range(0, BITS, STRIDE)]
    return telling[np.unique(np.concatenate(found), axis=0)]


def signs(thumbnails: np.ndarray) -> np.ndarray:
    """Return the signs of the lowest frequencies but the mean, rising; bool (pictures, 64)."""
    side = thumbnails.shape[1]
    places = np.arange(side)
    waves = np.cos(np.pi * (2 * places + 1) * places[:, None] / (2 * side)).astype(np.float32)
    frequencies = [(row, column) for row in places for column in places if row or column]
    rows, columns = np.array(sorted(frequencies, key=lambda pair: (sum(pair), pair))[:BITS]).T
    chunks = [thumbnails[start : start + CHUNK] for start in range(0, len(thumbnails), CHUNK)]
    found = [(waves @ chunk.astype(np.float32) @ waves.T)[:, rows, columns] > 0 for chunk in chunks]
    return np.concatenate([np.zeros((0, BITS), dtype=bool), *found])


def _near_in_band(bits: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    """Return the near copies among pictures whose first bits are the same; sorted by all bits, the likest first."""
    words = np.ascontiguousarray(np.packbits(bits, axis=1)).view(">u8")[:, 0].astype(np.uint64)
    order = np.argsort(words, kind="stable")
    bands = words[order] >> np.uint64(BITS - BAND)
    found = [np.zeros((0, 2), dtype=np.int64)]
    for distance in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
        same = np.flatnonzero(bands[distance:] == bands[:-distance])
        if len(same) == 0:
            break
        pairs = np.sort(np.stack([order[same], order[same + distance]], axis=1), axis=1)
        found.append(pairs[_likeness(thumbnails, pairs) >= ALIKE])
    return np.concatenate(found)


def _likeness(thumbnails: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the correlation of the thumbnails of each pair."""
    found = []
    for start in range(0, len(pairs), CHUNK):
        first, second = (_standardized(thumbnails[side]) for side in pairs[start : start + CHUNK].T)
        found.append((first * second).mean(1))
    return np.concatenate(found)


def _standardized(thumbnails: np.ndarray) -> np.ndarray:
    values = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    values -= values.mean(1, keepdims=True)
    return values / values.std(1, keepdims=True)
