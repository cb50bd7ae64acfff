"""D3: small files that ask for gigabytes are answered from their header, in 100 ms and 20 MB.

Each is read in a process of its own, which has decoded a small picture of the same format before: what is measured is
the bomb, not the loading of a library. The shortest of 5 readings counts, and the highest peak of memory, which only
Linux tells.
"""

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from torture.check import ROOT, Check
from torture.pictures import RGB, png, png_chunk, saved

SECONDS, BYTES = 0.1, 20_000_000
MANY = 10_000  # frames
TOO_LARGE = "pixels, more than the limit of 100000000"

MEASURE = """
import json, sys, time
from pathlib import Path
from mixlab.data.decode import decode
from mixlab.errors import UnreadableImage

def status(name):
    if sys.platform != "linux":
        return 0
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) * 1024

def verdict(path):
    try:
        return list(decode(path).shape)
    except UnreadableImage as error:
        return str(error)

known, bomb = map(Path, sys.argv[1:])
verdict(known)
seconds, peak = [], 0
for _ in range(5):
    if sys.platform == "linux":
        open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    before, start = status("VmRSS"), time.perf_counter()
    found = verdict(bomb)
    seconds.append(time.perf_counter() - start)
    peak = max(peak, status("VmHWM") - before)
print(json.dumps([found, min(seconds), peak]))
"""


def whole_png() -> bytes:
    """400 megapixels that are all there, in 50 kB."""
    side = 20_000
    return png(side, side, depth=1, colour=0, content=bytes(side * (side // 8 + 1)))


def header_png() -> bytes:
    return png(65_535, 65_535)


def gif(width: int, height: int, frames: int) -> bytes:
    """A GIF with frames of 1 pixel on a screen of any size."""
    frame = b"!\xf9\x04\0\x01\0\0\0" + b"," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0" + b"\x02\x02D\x01\0"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff" + frame * frames + b";"


def webp_header() -> bytes:
    """The largest that the format knows, 16,383 squared, without loss and almost without content."""
    body = b"\x2f" + struct.pack("<I", 16_382 | 16_382 << 14) + bytes(20)
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def moving_webp() -> bytes:
    whole = saved(RGB, "WEBP", lossless=True, save_all=True, append_images=[RGB.rotate(180)])
    start = whole.index(b"ANMF")
    size = struct.unpack("<I", whole[start + 4 : start + 8])[0] + 8
    body = whole[8:start] + whole[start : start + size] * MANY
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff_header() -> bytes:
    fields = [(256, 65_535), (257, 65_535), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 65_535), (279, 9)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(fields)) + entries + bytes(4)


def jpeg_header() -> bytes:
    whole = bytearray(saved(RGB, "JPEG"))
    place = whole.index(b"\xff\xc0") + 5
    whole[place : place + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(whole)


def bitmap_header() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 65_535, 65_535, 1, 24, *[0] * 6)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def with_chunk(kind: bytes, data: bytes) -> bytes:
    """A small PNG with one more chunk after its header."""
    whole = saved(RGB, "PNG")
    return whole[:33] + png_chunk(kind, data) + whole[33:]


def swelling_text() -> bytes:
    return with_chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(200_000_000), 1))


def swelling_profile() -> bytes:
    return with_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(200_000_000), 1))


# What makes each file, the format of the picture decoded before, a part of the refusal or (height, width).
BOMBS: tuple[tuple[Callable[[], bytes], str, str | tuple[int, ...]], ...] = (
    (whole_png, "PNG", f"400000000 {TOO_LARGE}"),
    (header_png, "PNG", f"4294836225 {TOO_LARGE}"),
    (lambda: gif(1, 1, MANY), "GIF", (1, 1)),
    (lambda: gif(65_535, 65_535, 1), "GIF", TOO_LARGE),
    (webp_header, "WEBP", TOO_LARGE),
    (moving_webp, "WEBP", RGB.size[::-1]),
    (tiff_header, "TIFF", TOO_LARGE),
    (jpeg_header, "JPEG", TOO_LARGE),
    (bitmap_header, "BMP", TOO_LARGE),
    (lambda: b"P6 65535 65535 255\n", "PPM", TOO_LARGE),
    (swelling_text, "PNG", "damaged"),
    (swelling_profile, "PNG", "damaged"),
)


def case(number: int, root: Path) -> str:
    """Read one bomb in a fresh process."""
    make, kind, expected = BOMBS[number]
    (root / "bomb").write_bytes(make())
    Image.new("RGB", (8, 8)).save(root / "known", kind)
    words = [sys.executable, "-c", MEASURE, str(root / "known"), str(root / "bomb")]
    done = subprocess.run(words, cwd=ROOT / "src", capture_output=True, text=True, timeout=60)
    if done.returncode:
        return done.stderr.splitlines()[-1]
    found, seconds, peak = json.loads(done.stdout)
    right = expected in found if isinstance(expected, str) else found[:2] == list(expected)
    if not right:
        return f"{kind}: {found}, not {expected}"
    if seconds > SECONDS or peak > BYTES:
        return f"{kind}: {seconds * 1000:.0f} ms and {peak / 1e6:.1f} MB"
    return ""


CHECKS = [
    Check(
        name="D3",
        claim="an image bomb is refused in 100 ms and 20 MB; one of many frames has its first read within that",
        case=case,
        full=len(BOMBS),
        sample=len(BOMBS),
        quick=3,
        alone=True,
    )
]
