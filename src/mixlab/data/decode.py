"""The one decode of train, evaluate, predict and server: the same bytes get the same pixels or the same refusal."""

import contextlib
import io
import itertools
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from mixlab.errors import ImageTooLong, UnreadableImage, UnreadableNow, UsageError

SUFFIXES = {  # of each format
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
FORMATS, IMAGE_SUFFIXES = tuple(SUFFIXES), frozenset(itertools.chain.from_iterable(SUFFIXES.values()))
Oddity = Literal["turned by EXIF", "misnamed", "animated", "16-bit", "CMYK"]
MAX_PIXELS = 100_000_000
LONGEST_SIDE = 65_535  # pixels; resizing takes memory for each row and column, however few pixels are in it

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # raw mode of a PNG -> what one level of its grey is in 8 bits
# What Pillow's parsers are known to raise on damaged bytes; only calls into Pillow stand under this net.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    MemoryError,
    BufferError,
    Warning,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    ImageCms.PyCMSError,
)


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def decode(source: Path | bytes, channels: int = 3, draft_size: int = 0) -> np.ndarray:
    """Return the first frame as it is displayed, uint8 (height, width, channels), transparency laid over white.

    Colour profiles are not applied. 16-bit grey is divided by 257; float samples count as 0..1 where none is above 1,
    else as 0..255.

    Args:
        source: a file, or the bytes of one.
        channels: 1 (grey, ITU-R 601) or 3 (red, green, blue).
        draft_size: above 0, a JPEG may be decoded at a half, quarter or eighth of its size, but with neither side
            below this many pixels. For training only: it changes the pixels.

    Raises:
        UnreadableImage: with the reason, for whatever is not a whole image of at most `MAX_PIXELS` and `LONGEST_SIDE`;
            UnreadableNow where that says nothing of the file.
        UsageError: for another number of channels.
    """
    image = open_decoded(source, channels, draft_size)  # closed by now: what it was converted from takes no memory
    with _refusing(0):
        return _pixels(image, channels)


def open_decoded(source: Path | bytes, channels: int = 3, draft_size: int = 0) -> Image.Image:
    """Do as `decode`, and return what Pillow has in its own memory, in mode "L" or "RGB"."""
    if channels not in (1, 3):
        raise UsageError(f"channels={channels}: images are decoded to 1 or 3 channels")
    with _opened(source) as image:
        if draft_size > 0:
            image.draft(image.mode, (draft_size, draft_size))
        return _as_displayed(image, channels)


def decode_image(image: Image.Image, channels: int = 3) -> np.ndarray:
    """Return the pixels of an image that Pillow has opened, as `decode` returns those of its file.

    Raises:
        UnreadableImage: with the reason.
    """
    with _refusing(0):
        _check_size(*image.size)
        return _pixels(_as_displayed(image, channels), channels)


def inspect(source: Path | bytes) -> tuple[int, int]:
    """Return (width, height) in pixels as displayed, from the header alone.

    A PNG that is turned by what stands behind its pixels, which only `decode` reads, has them the other way round.

    Raises:
        UnreadableImage: as `decode` does, but for damage that only the pixels show.
    """
    with _opened(source) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


def oddities(source: Path | bytes, name: str) -> list[Oddity]:
    """Return what is unusual about a file of this name, from its header alone; none of it keeps it from being decoded.

    Raises:
        UnreadableImage: as `inspect` does.
    """
    suffix = os.path.splitext(name)[1].lower()
    with _opened(source) as image:
        kind = "JPEG" if image.format == "MPO" else image.format  # a JPEG file that holds further pictures
        found: dict[Oddity, bool] = {
            "turned by EXIF": _orientation(image) > 1,
            "misnamed": suffix in IMAGE_SUFFIXES and suffix not in SUFFIXES[str(kind)],
            "animated": image.format != "MPO" and getattr(image, "is_animated", False),
            "16-bit": image.mode.startswith(("I", "F")) or ";16" in str(getattr(image, "tile", "")),
            "CMYK": image.mode == "CMYK",
        }
        return [name for name, there in found.items() if there]


def read_bytes(path: Path) -> bytes:
    """Return the content of an image file; raises UnreadableImage for what `decode` would refuse to open."""
    with _stream(path) as (stream, _):
        try:
            return stream.read()
        except OSError as error:
            raise _refusal(error, _system_reason(error)) from None


@contextlib.contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    with _stream(source) as (stream, size), warnings.catch_warnings(), _refusing(size):
        warnings.filterwarnings("ignore", module=r"PIL\.")
        with Image.open(stream, formats=FORMATS) as image:
            _check_size(*image.size)
            _scale_transparency(image)
            yield image


@contextlib.contextmanager
def _refusing(size: int) -> Iterator[None]:
    """Make refusals of what Pillow raises over a file of `size` bytes."""
    try:
        yield
    except UnreadableImage:
        raise
    except _PILLOW_ERRORS as error:
        raise _refusal(error, _reason(error, size)) from None


def _refusal(error: BaseException, reason: str) -> UnreadableImage:
    """Return what says whether trying again may help; Pillow's own OSErrors, of damaged bytes, have no number."""
    is_passing = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)
    return UnreadableNow(reason) if is_passing else UnreadableImage(reason)


@contextlib.contextmanager
def _stream(source: Path | bytes) -> Iterator[tuple[BinaryIO, int]]:
    """Yield a stream and its size in bytes. Pillow gets no path, because it would map some files into memory."""
    if isinstance(source, bytes):
        yield io.BytesIO(source), _check_not_empty(len(source))
        return
    try:
        status = source.stat()  # opening a pipe would block, so ask first
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImage(_kind(status.st_mode))
        _check_not_empty(status.st_size)
        stream = source.open("rb")
    except FileNotFoundError:
        raise UnreadableNow("a link to a missing file" if source.is_symlink() else "no such file") from None
    except (OSError, ValueError) as error:
        raise _refusal(error, _system_reason(error)) from None
    with stream:
        yield stream, status.st_size


def _check_not_empty(size: int) -> int:
    if size == 0:
        raise UnreadableImage("0 bytes")
    return size


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder, not a file"
    return "a named pipe, not a file" if stat.S_ISFIFO(mode) else "a device or socket, not a file"


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableImage(_too_large(width * height))
    if width * height == 0:
        raise UnreadableImage(f"{width} x {height} pixels")
    if max(width, height) > LONGEST_SIDE:
        raise ImageTooLong(f"{max(width, height)} pixels long, more than the limit of {LONGEST_SIDE}")


def _too_large(pixels: int | str) -> str:
    return f"{pixels} pixels, more than the limit of {MAX_PIXELS}"


def _reason(error: BaseException, size: int) -> str:
    text = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, UnidentifiedImageError):
        return f"not an image ({', '.join(FORMATS)}), or cut off in its header"
    if isinstance(error, Image.DecompressionBombError):
        pixels = "".join(text.partition("(")[2].partition(" ")[0])
        return _too_large(pixels if pixels.isdigit() else "too many")
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if isinstance(error, EOFError) or "truncated" in text.lower() or "unexpected end" in text.lower():
        return f"truncated after {size} bytes"
    if isinstance(error, OSError) and error.strerror:
        return _system_reason(error)
    return f"damaged: {text}"


def _system_reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error)


def _as_displayed(image: Image.Image, channels: int) -> Image.Image:
    image.load()  # first, for a PNG may have its orientation behind its pixels
    turn = _TURNS.get(_orientation(image))
    return _converted(image if turn is None else image.transpose(turn), channels)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, that is still to be applied; damaged EXIF counts as none."""
    if image.format == "TIFF":
        return 1  # Pillow turns TIFF files itself, and has swapped their size already
    try:
        # The PNG class's own getexif decodes the pixels, which `inspect` must not.
        value = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except _PILLOW_ERRORS:
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    return np.array(image).reshape(image.height, image.width, channels)


def _converted(image: Image.Image, channels: int) -> Image.Image:
    mode = "L" if channels == 1 else "RGB"
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_grey_from_floats(image) if image.mode == "F" else _grey_from_integers(image))
    if image.has_transparency_data:
        image = _over_white(image)
    elif image.mode == "LAB":
        image = _from_lab(image)
    elif channels == 1 and image.mode not in ("1", "L"):
        image = image.convert("RGB")  # palettes and CMYK reach grey through their colours
    return image if image.mode == mode else image.convert(mode)  # to the same mode it would copy


def _over_white(image: Image.Image) -> Image.Image:
    coloured = image.convert("RGBA")
    white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, coloured).convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    return image.convert("RGB") if converted is None else converted


def _scale_transparency(image: Image.Image) -> None:
    """Bring the value that a PNG calls transparent to the pixels' 8 bits, where Pillow leaves it in the file's."""
    value, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    raw = tiles[0].args if tiles else ""
    if raw in _GREY_STEPS and isinstance(value, int):
        image.info["transparency"] = value * _GREY_STEPS[raw]
    elif raw == "RGB;16B" and isinstance(value, tuple):
        image.info["transparency"] = tuple(sample >> 8 for sample in value)


def _grey_from_integers(image: Image.Image) -> np.ndarray:
    """Return 8 bits of 16; the one value that a PNG may call transparent lies over white, its neighbours do not."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage(f"samples from {values.min()} to {values.max()}, outside 16 bits")
    grey = ((values + 128) // 257).astype(np.uint8)
    grey[values == image.info.get("transparency", -1)] = 255
    return grey


def _grey_from_floats(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    if not (values.min() >= 0 and values.max() <= 255):  # written so that NaN is refused
        raise UnreadableImage(f"float samples from {values.min()} to {values.max()}, outside 0 to 255")
    scale = 255 if values.max() <= 1 else 1
    return np.rint(values * scale).astype(np.uint8)
