"""Files that are cut off are never half an image; what odd files become is D1 of `torture`, and bombs are D3."""

import errno
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mixlab.data.decode import LONGEST_SIDE, MAX_PIXELS, decode, decode_image, inspect, read_bytes
from mixlab.errors import ImageTooLong, UnreadableImage, UnreadableNow, UsageError
from torture.pictures import COLOURS, HEIGHT, RGB, WIDTH, png, png_chunk, saved


def refusal(source):
    with pytest.raises(UnreadableImage) as error:
        decode(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_limit_itself_is_allowed(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png(10_000, MAX_PIXELS // 10_000))
    assert inspect(path) == (10_000, 10_000)


def test_a_long_thin_picture_is_refused_by_its_header_in_every_way_in():
    assert inspect(png(1, LONGEST_SIDE)) == (1, LONGEST_SIDE)
    assert refusal(png(1, LONGEST_SIDE)).startswith("truncated")
    reason = f"{MAX_PIXELS} pixels long, more than the limit of {LONGEST_SIDE}"
    assert refusal(png(MAX_PIXELS, 1)) == refusal(png(1, MAX_PIXELS)) == reason
    for ask, source in ((inspect, png(MAX_PIXELS, 1)), (decode_image, Image.new("1", (LONGEST_SIDE + 1, 1)))):
        with pytest.raises(ImageTooLong, match="pixels long"):
            ask(source)


def test_pixels_that_do_not_fit_into_memory_are_a_reason(monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "tobytes", full)
    assert refusal(saved(RGB, "PNG")) == "does not fit into memory"


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOENT, errno.EACCES])
def test_a_refusal_says_whether_it_is_the_files_or_may_pass(tmp_path, monkeypatch, number):
    (tmp_path / "whole.png").write_bytes(saved(RGB, "PNG"))
    (tmp_path / "bad.png").write_bytes(b"text")
    with pytest.raises(UnreadableImage) as error:
        decode(tmp_path / "bad.png")
    assert type(error.value) is UnreadableImage

    def fail(*_):
        raise OSError(number, "Failure")

    monkeypatch.setattr(Path, "open", fail)
    for ask in (decode, read_bytes):
        with pytest.raises(UnreadableNow):
            ask(tmp_path / "whole.png")


def test_inspect_decodes_no_pixels(tmp_path, monkeypatch):
    (tmp_path / "image.png").write_bytes(saved(RGB, "PNG"))
    decoded = []
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda image: decoded.append(image))
    assert inspect(tmp_path / "image.png") == (WIDTH, HEIGHT)
    assert decoded == []


def test_names_of_nothing_are_refused_and_links_are_followed(tmp_path):
    assert refusal(tmp_path / "missing.jpg") == "no such file"
    assert refusal(tmp_path / "nul\0.jpg") == "embedded null byte"
    (tmp_path / "image.png").write_bytes(saved(RGB, "PNG"))
    (tmp_path / "link.jpg").symlink_to("image.png")
    assert np.array_equal(decode(tmp_path / "link.jpg"), COLOURS)


WHOLE = {
    "JPEG": saved(RGB, "JPEG"),
    "progressive JPEG": saved(RGB, "JPEG", progressive=True),
    "PNG": saved(RGB, "PNG"),
    "GIF": saved(RGB.quantize(16), "GIF"),
    "WebP": saved(RGB, "WEBP"),
    "lossless WebP": saved(RGB, "WEBP", lossless=True),
    "BMP": saved(RGB, "BMP"),
    "TIFF": saved(RGB, "TIFF"),
    "compressed TIFF": saved(RGB, "TIFF", compression="tiff_lzw"),
    "PPM": saved(RGB, "PPM"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_cut_off_files_are_never_half_an_image(kind):
    data = WHOLE[kind]
    whole = decode(data)
    cuts = {len(data) * tenth // 10 for tenth in range(1, 10)} | {len(data) - tail for tail in (1, 2, 3, 8, 20)}
    for cut in sorted(cuts):
        try:
            pixels = decode(data[:cut])
        except UnreadableImage:
            continue
        assert np.array_equal(pixels, whole), f"cut after {cut} of {len(data)} bytes"
    assert refusal(data[: len(data) * 6 // 10])


def test_a_cut_off_photograph_says_where():
    data = saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)), "JPEG")
    assert refusal(data[:20_000]) == "truncated after 20000 bytes"


@pytest.mark.parametrize(("side", "shape"), [(0, (480, 800)), (300, (480, 800)), (200, (240, 400)), (30, (60, 100))])
def test_a_draft_is_no_smaller_than_asked(side, shape):
    large = RGB.resize((800, 480))
    assert decode(saved(large, "JPEG"), draft_size=side).shape == (*shape, 3)
    assert decode(saved(large, "PNG"), draft_size=side).shape == (480, 800, 3)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(UsageError, match="channels=4"):
        decode(saved(RGB, "PNG"), channels=4)


def test_an_orientation_behind_the_pixels_turns_them_whatever_the_way_in():
    whole, exif = saved(RGB, "PNG"), Image.Exif()
    exif[0x0112] = 6
    turned = whole[:-12] + png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + whole[-12:]
    expected = np.rot90(COLOURS, -1)
    for found in (decode(turned), decode_image(Image.open(io.BytesIO(turned)))):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("depth", "colour", "content", "transparent", "expected"),
    [
        (2, 0, b"\x1b", (1,), [0, 255, 170, 255]),
        (4, 0, b"\x01\x2f", (2,), [0, 17, 255, 255]),
        (16, 2, b"\x12\x34" * 3 + b"\x13\x34" * 3, (0x1234,) * 3, [255] * 3 + [0x13] * 3),
    ],
)
def test_a_transparent_value_of_any_depth_lies_over_white(depth, colour, content, transparent, expected):
    width = 8 * len(content) // depth // (3 if colour == 2 else 1)
    whole = png(width, 1, depth, colour, b"\0" + content)
    marked = whole[:33] + png_chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) + whole[33:]
    assert decode(marked, 3 if colour == 2 else 1).ravel().tolist() == expected


def test_a_transparent_value_of_16_bits_lies_over_white_and_its_neighbours_do_not():
    deep = np.array([[0, 1, 233 * 257]], np.uint16)
    assert decode(saved(Image.fromarray(deep), "PNG", transparency=0), 1).ravel().tolist() == [255, 0, 233]
    shallow = (deep // 257).astype(np.uint8)
    assert decode(saved(Image.fromarray(shallow), "PNG", transparency=0), 1).ravel().tolist() == [255, 255, 233]
    assert decode(saved(Image.fromarray(deep), "PNG"), 1).ravel().tolist() == [0, 0, 233]
