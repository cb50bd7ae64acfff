"""The table of D1: odd files, each with the pixels it must have or the reason why it is refused."""

import base64
import functools
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from torture.pictures import COLOURS, GREY, HEIGHT, RGB, WIDTH, photograph, png, saved

# 16 x 16 grey pixels, GREY_RAMP, by cjpeg -arithmetic -quality 95: Pillow reads this coding but cannot write it.
ARITHMETIC = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%oX2?`1d3JL}Y3k(Yi"
    "3<(Mf3jfIf3kU!Z01yEI5di<p00saM5C#9*00;pA002J#{{Z9}QkE~FF9}QqTxD&bK%5$&-=c9o1!XIyA1Ab^|Je"
)
GREY_RAMP = np.add.outer(np.arange(16) * 6, np.arange(16) * 7 + 20)
TURNS = {  # EXIF's orientations, as the turn that undoes the camera's
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Accepted = Iterator[tuple[str, bytes, np.ndarray]]


@dataclass(frozen=True)
class Odd:
    name: str
    data: bytes | None  # of the file; None: no regular file, see `put`
    pixels: np.ndarray | None = None  # (height, width, 3) that it must have, within 2
    reason: str = ""  # a part of the reason that it is refused with


def put(odd: Odd, path: Path) -> None:
    """Make the file, or what stands in the place of one."""
    if odd.data is not None:
        path.write_bytes(odd.data)
    elif odd.name == "a named pipe":
        os.mkfifo(path)
    elif odd.name == "a folder":
        path.mkdir()
    else:
        path.symlink_to({"a link to nothing": "nowhere.jpg", "a link to itself": path.name}[odd.name])


@functools.cache
def table() -> tuple[Odd, ...]:
    accepted = [*_formats(), *_deep(), *_transparent(), *_palettes(), *_moving(), *_turned()]
    return (
        *(Odd(name, data, grey_as_colour(pixels)) for name, data, pixels in accepted),
        *(Odd(name, data, reason=reason) for name, data, reason in _refused()),
        *(Odd(name, None, reason=reason) for name, reason in NO_FILES.items()),
    )


def grey_as_colour(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels


def _formats() -> Accepted:
    best = {"quality": 100, "subsampling": 0}
    yield "PNG", saved(RGB, "PNG"), COLOURS
    for kind in ("BMP", "TIFF", "PPM"):
        yield kind, saved(RGB, kind), COLOURS
    yield "lossless WebP", saved(RGB, "WEBP", lossless=True), COLOURS
    even = np.full((HEIGHT, WIDTH, 3), (200, 100, 50))
    yield "lossy WebP", saved(Image.fromarray(even.astype(np.uint8)), "WEBP", quality=100), even
    yield "JPEG", saved(RGB, "JPEG", **best), COLOURS
    yield "progressive JPEG", saved(RGB, "JPEG", **best, progressive=True), COLOURS
    yield "arithmetic JPEG", ARITHMETIC, GREY_RAMP
    yield "CMYK JPEG as Adobe inverts it", saved(RGB.convert("CMYK"), "JPEG", quality=100), COLOURS
    yield "CMYK TIFF", saved(RGB.convert("CMYK"), "TIFF"), COLOURS
    yield "YCbCr TIFF", saved(Image.fromarray(GREY).convert("YCbCr"), "TIFF", compression="jpeg", quality=100), GREY
    yield "grey JPEG", saved(Image.fromarray(GREY), "JPEG", quality=100), GREY
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield "a colour profile", saved(RGB, "PNG", icc_profile=profile), COLOURS
    yield "a damaged colour profile", saved(RGB, "JPEG", **best, icc_profile=b"x"), COLOURS
    yield "two JPEGs in one", saved(RGB, "MPO", **best, save_all=True, append_images=[RGB.rotate(180)]), COLOURS
    yield "bytes after the end", saved(RGB, "PNG") + b"<script>", COLOURS
    # (197, 120, 108) by CIE's formulas for L = 58.8, a = 30, b = 20 under D50, adapted to sRGB's white by Bradford's
    lab, colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.full((HEIGHT, WIDTH, 3), 255)
    lab[:], lab[:, 20:], colours[:, 20:] = (255, 0, 0), (150, 30, 20), (197, 120, 108)
    yield "LAB TIFF", saved(Image.fromarray(lab, "LAB"), "TIFF"), colours


def _deep() -> Accepted:
    wide = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    eighth = np.rint(wide / 257)
    yield "16-bit grey PNG", saved(Image.fromarray(wide), "PNG"), eighth
    yield "16-bit grey TIFF", saved(Image.fromarray(wide), "TIFF"), eighth
    yield "16-bit grey PGM", b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + wide.astype(">u2").tobytes(), eighth
    yield "16-bit grey in 32 bits", saved(Image.fromarray(wide.astype(np.int32)), "TIFF"), eighth
    yield "floats up to 1", saved(Image.fromarray((wide / 65535).astype(np.float32)), "TIFF"), eighth
    yield "floats up to 255", saved(Image.fromarray((wide / 257).astype(np.float32)), "TIFF"), eighth
    yield "16-bit grey on its side", saved(Image.fromarray(wide), "PNG", exif=_exif(6)), np.rot90(eighth, -1)
    for kind in ("PNG", "TIFF", "PPM"):
        yield f"black and white {kind}", saved(Image.fromarray(GREY > 100), kind), (GREY > 100) * 255


def _transparent() -> Accepted:
    alpha = np.broadcast_to(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, WIDTH))
    share = alpha / 255
    image = Image.fromarray(np.dstack([COLOURS, alpha]))
    over_white = COLOURS * share[..., None] + 255 * (1 - share[..., None])
    yield "transparent PNG", saved(image, "PNG"), over_white
    yield "transparent WebP", saved(image, "WEBP", lossless=True, exact=True), over_white
    yield "transparent TIFF", saved(image, "TIFF"), over_white
    grey = Image.merge("LA", [Image.fromarray(GREY), image.getchannel("A")])
    yield "transparent grey", saved(grey, "PNG"), GREY * share + 255 * (1 - share)
    marked = COLOURS.copy()
    marked[(COLOURS[3, 5] == COLOURS).all(axis=2)] = 255
    yield "a transparent colour", saved(RGB, "PNG", transparency=tuple(map(int, COLOURS[3, 5]))), marked


def _palettes() -> Accepted:
    image, palette, indices = palette_image()
    yield "palette PNG", saved(image, "PNG"), palette[indices]
    yield "palette BMP", saved(image, "BMP"), palette[indices]
    cleared = palette.copy()
    cleared[1] = 255
    yield "palette PNG with a transparent colour", saved(image, "PNG", transparency=1), cleared[indices]
    yield "GIF with a transparent colour", saved(image, "GIF", transparency=1), cleared[indices]
    share = np.array([255, 0, 128, 255])[:, None] / 255
    half = palette * share + 255 * (1 - share)
    yield "palette with alpha", saved(image, "PNG", transparency=bytes([255, 0, 128, 255])), half[indices]


def palette_image() -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """Return an image of 4 colours, its palette and its indices."""
    indices = (np.arange(HEIGHT * WIDTH) % 4).reshape(HEIGHT, WIDTH).astype(np.uint8)
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]], np.uint8)
    image = Image.fromarray(indices, "L")
    image.putpalette(palette.tobytes())
    return image, palette, indices


def _moving() -> Accepted:
    frames = {"save_all": True, "append_images": [RGB.rotate(180)] * 3}
    yield "animated WebP", saved(RGB, "WEBP", lossless=True, **frames), COLOURS
    yield "animated PNG", saved(RGB, "PNG", **frames), COLOURS
    image, palette, indices = palette_image()
    yield "animated GIF", saved(image, "GIF", save_all=True, append_images=[image.rotate(180)] * 3), palette[indices]


def _turned() -> Accepted:
    for orientation, turn in TURNS.items():
        yield (
            f"PNG turned by {orientation}",
            saved(RGB, "PNG", exif=_exif(orientation)),
            np.asarray(RGB.transpose(turn)),
        )
    yield "TIFF turned by 6", saved(RGB, "TIFF", exif=_exif(6)), np.rot90(COLOURS, -1)
    yield "TIFF turned by 7", saved(RGB, "TIFF", exif=_exif(7)), np.asarray(RGB.transpose(TURNS[7]))
    yield "JPEG turned by 6", saved(RGB, "JPEG", quality=100, subsampling=0, exif=_exif(6)), np.rot90(COLOURS, -1)
    yield "WebP turned by 6", saved(RGB, "WEBP", lossless=True, exif=_exif(6)), np.rot90(COLOURS, -1)
    yield "an orientation that does not exist", saved(RGB, "PNG", exif=_exif(9)), COLOURS
    yield "damaged EXIF", saved(RGB, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), COLOURS


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _refused() -> Iterator[tuple[str, bytes, str]]:
    yield "zero bytes", b"", "0 bytes"
    yield "text", b"hello, I am no image", "not an image"
    yield "a page", b"<html><body>404</body></html>", "not an image"
    yield "SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"
    yield "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"
    yield "a header only", png(30, 30), "truncated after"
    yield "no width", png(0, 5), ""
    yield "just over the limit", png(10_001, 10_000), "100010000 pixels, more than the limit of 100000000"
    bitmap = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 65535, 65535, 1, 24, *[0] * 6)
    yield "4 gigapixels of BMP", bitmap, "4294836225 pixels"
    yield "4 gigapixels of PPM", b"P6 65535 65535 255\n", "4294836225 pixels"
    yield "values beyond 16 bits", saved(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "outside 16 bits"
    nan = Image.fromarray(np.full((4, 4), np.nan, np.float32))
    yield "not a number", saved(nan, "TIFF"), "float samples from nan"
    photo = saved(photograph(0, 200, 300), "JPEG")
    for tenth in range(1, 10):
        cut = photo[: len(photo) * tenth // 10]
        yield f"JPEG cut off at {tenth} tenths", cut, f"truncated after {len(cut)} bytes"


NO_FILES = {
    "a named pipe": "a named pipe, not a file",
    "a folder": "a folder, not a file",
    "a link to nothing": "a link to a missing file",
    "a link to itself": "too many levels of symbolic links",
}
