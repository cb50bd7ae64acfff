"""D5: hostile archives are refused by name and leave nothing behind, inside the target or outside.

Limits are 1000 bytes and 20 files here, so that a bomb is any archive above them.
"""

import gzip
import io
import lzma
import stat
import struct
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

from mixlab.data.archives import extract
from mixlab.errors import DataError
from torture.check import Check, contents


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, size, link, 0o4777
    return info


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return a tar of (member, content) pairs."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for info, content in members:
            info.size = info.size or len(content)
            tar.addfile(info, io.BytesIO(content.ljust(info.size, b"\0")) if info.isreg() else None)
    return stream.getvalue()


def zip_of(*members: tuple[str, bytes, int]) -> bytes:
    """Return a zip of (name, content, mode) triples."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names given twice
        for name, content, mode in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.create_system, info.external_attr = name, 3, mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return stream.getvalue()


def pax_of(size: int) -> bytes:
    """Return a tar whose first header claims to be followed by `size` bytes of further header."""
    return member("x", tarfile.XHDTYPE, size).tobuf(tarfile.USTAR_FORMAT) + bytes(4096)


def negative_size() -> bytes:
    header = bytearray(member("a").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) * 2 + bytes(1024)


def with_claimed_size(whole: bytes, size: int) -> bytes:
    """Return a zip whose directory and header claim another size for the only member."""
    data = bytearray(whole)
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = data.index(signature) + offset
        data[start : start + 4] = struct.pack("<I", size)
    return bytes(data)


def encrypted(whole: bytes) -> bytes:
    data = bytearray(whole)
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


def overlapping() -> bytes:
    """Return a zip in whose first member the second one lies whole."""
    inner = zip_of(("b", b"x" * 99, 0o100644))
    record = inner[: inner.index(b"PK\x01\x02")]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a", record)
        with zipfile.ZipFile(io.BytesIO(inner)) as other:
            second = other.getinfo("b")
        second.header_offset = 31  # behind the header of "a"
        archive.filelist.append(second)
    return stream.getvalue()


def good_tar() -> bytes:
    return tar_of((member("a", tarfile.DIRTYPE), b""), (member("a/b"), b"two" * 999), (member("c"), b""))


def cut_zip() -> bytes:
    return zip_of(("a", b"one", 0o100644), ("b", b"two", 0o100644))[:-30]


OUTSIDE = f"{tempfile.gettempdir()}/mixlab-torture-out"
ZIP_LINK = stat.S_IFLNK | 0o777
HOSTILE = {
    "tar: path out": (tar_of((member("../out"), b"x")), "../out: a path that leads out of the folder"),
    "tar: path out from within": (tar_of((member("a/../../out"), b"x")), "leads out of the folder"),
    "tar: absolute path": (tar_of((member(OUTSIDE), b"x")), "out: an absolute path"),
    "tar: drive letter": (tar_of((member("C:/out"), b"x")), "C:/out: an absolute path"),
    "tar: backslashes": (tar_of((member("..\\out"), b"x")), "backslash"),
    "tar: newline": (tar_of((member("a\nb"), b"x")), "control character"),
    "tar: symbolic link": (tar_of((member("a", tarfile.SYMTYPE, link=".."), b"")), "a: neither a regular file"),
    "tar: through a link": (
        tar_of((member("a", tarfile.SYMTYPE, link=".."), b""), (member("a/out"), b"x")),
        "a: neither a regular file",
    ),
    "tar: hard link": (tar_of((member("a", tarfile.LNKTYPE, link="/etc/passwd"), b"")), "neither a regular file"),
    "tar: hard link to a member": (
        tar_of((member("a"), b"1"), (member("b", tarfile.LNKTYPE, link="a"), b"")),
        "b: neither a regular file",
    ),
    "tar: pipe": (tar_of((member("a", tarfile.FIFOTYPE), b"")), "a: neither a regular file nor a folder"),
    "tar: device": (tar_of((member("a", tarfile.CHRTYPE), b"")), "neither a regular file"),
    "tar: sparse file": (tar_of((member("a", tarfile.GNUTYPE_SPARSE), b"")), "neither a regular file"),
    "tar: twice": (tar_of((member("a"), b"1"), (member("./a"), b"2")), "a: the name appears twice"),
    "tar: file and folder": (tar_of((member("a"), b"1"), (member("a/b"), b"2")), "a/b: "),
    "tar: too large": (tar_of((member("a"), b"x" * 600), (member("b"), b"x" * 600)), "b: more than the limit of 1000"),
    "tar: too many files": (tar_of(*((member(str(n)), b"") for n in range(30))), "20: more than the limit of 20 files"),
    "tar: too many folders": (tar_of((member("a/" * 30 + "x"), b"")), "more than the limit of 20 files"),
    "tar: too deep": (tar_of((member("a/" * 3000 + "x"), b"")), "nested deeper"),
    "tar: claims more than it has": (tar_of((member("a", size=900), b""))[:700], "unexpected end of data"),
    "tar: a long header": (gzip.compress(pax_of(10**9)), "a header of 1000000000 bytes"),
    "tar: negative size": (negative_size(), "a member of negative size"),
    "tar: damaged between members": (
        tar_of((member("a"), b"1"), (member("b"), b"2")).replace(b"b\0", b"c\0"),
        "a: damaged or cut off after this member",
    ),
    "gz: a bomb after the end": (gzip.compress(tar_of((member("a"), b"1")) + bytes(10**7)), "data after the end"),
    "tar: cut off between members": (tar_of((member("a"), b"1"))[:1024], "damaged or cut off"),
    "gz: cut off": (gzip.compress(tar_of((member("a"), bytes(range(256)) * 3)))[:-60], ""),
    "gz: damaged": (gzip.compress(tar_of((member("a"), b"1")))[:-8] + bytes(8), "CRC check failed"),
    "xz: damaged": (lzma.compress(tar_of((member("a"), b"1")))[:-30] + bytes(30), ""),
    "zip: path out": (zip_of(("../out", b"x", 0)), "../out: a path that leads out of the folder"),
    "zip: absolute path": (zip_of((OUTSIDE, b"x", 0)), "an absolute path"),
    "zip: drive letter": (zip_of(("c:out", b"x", 0)), "an absolute path"),
    "zip: backslashes": (zip_of(("..\\out", b"x", 0)), "backslash"),
    "zip: name with NUL": (zip_of(("a\0b", b"x", 0)), "control character"),
    "zip: symbolic link": (zip_of(("a", b"..", ZIP_LINK)), "a: neither a regular file"),
    "zip: a link called a folder": (zip_of(("a/", b"..", ZIP_LINK)), "a/: neither a regular file"),
    "zip: device": (zip_of(("a", b"", stat.S_IFCHR)), "neither a regular file"),
    "zip: bomb": (zip_of(("a", bytes(10**7), 0)), "a: more than the limit of 1000 bytes"),
    "zip: bomb that claims to be small": (with_claimed_size(zip_of(("a", bytes(10**7), 0)), 10), "Bad CRC-32"),
    "zip: encrypted": (encrypted(zip_of(("a", b"x", 0))), "a: encrypted"),
    "zip: cut off": (cut_zip(), "not a zip file"),
    "zip: members that share bytes": (overlapping(), "b: shares bytes with another member"),
    "zip: twice": (zip_of(("a", b"1", 0), ("a", b"2", 0)), "a: the name appears twice"),
    "zip: too many files": (zip_of(*((str(n), b"", 0) for n in range(30))), "20: more than the limit of 20 files"),
    "nothing": (b"", "empty file"),
    "no archive": (b"<html>404</html>" * 100, ""),
}


def case(number: int, root: Path) -> str:
    """Extract one archive; whatever it asks for, the folder stays as it was."""
    name, (data, reason) = list(HOSTILE.items())[number]
    home = root / "home"
    home.mkdir()
    (home / "archive").write_bytes(data)
    before = contents(root)
    try:
        extract(home / "archive", home / "folder", max_bytes=1000, max_files=20)
    except DataError as error:
        problem = _complaint(str(error), str(home / "archive"), reason)
    else:
        problem = "was extracted"
    changed = contents(root).items() ^ before.items()
    if Path(OUTSIDE).exists():
        problem = f"wrote {OUTSIDE}"
    elif changed:
        problem = f"left {', '.join(sorted(dict(changed)))} behind"
    return f"{name}: {problem}" if problem else ""


def _complaint(message: str, archive: str, reason: str) -> str:
    is_good = archive in message and reason in message and "\n" not in message
    return "" if is_good else f"says {message!r}, not {reason!r}"


CHECKS = [
    Check(
        name="D5",
        claim="a hostile archive is refused by name; nothing is left in the target, and nothing outside is touched",
        case=case,
        full=len(HOSTILE),
        sample=len(HOSTILE),
        quick=len(HOSTILE),
    )
]
