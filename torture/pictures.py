"""Pictures made at test time, whose pixels are known without decoding them."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 40


def smooth_colours() -> np.ndarray:
    """Return pixels that JPEG keeps within two grey levels, (HEIGHT, WIDTH, 3), uint8."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([40 + 3 * columns, 60 + 5 * rows, 200 - 2 * columns - rows], axis=2).astype(np.uint8)


COLOURS = smooth_colours()
GREY = COLOURS[:, :, 1]
RGB = Image.fromarray(COLOURS)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def photograph(seed: int, height: int = 60, width: int = 90) -> Image.Image:
    """Return noise over the smooth colours: as hard to compress as a photograph."""
    base = np.asarray(RGB.resize((width, height))).astype(int)
    noise = np.random.default_rng(seed).integers(-25, 25, base.shape)
    return Image.fromarray((base + noise).clip(0, 255).astype(np.uint8))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int = 8, colour: int = 2, content: bytes = b"\0" * 99) -> bytes:
    """Return a PNG that claims a size, whatever it holds."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(content)) + png_chunk(b"IEND", b"")
