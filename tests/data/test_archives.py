"""Downloads count only with the right digest; archives write whole folders or nothing, and nothing outside."""

import contextlib
import gzip
import hashlib
import io
import lzma
import socket
import stat
import struct
import tarfile
import zipfile

import pytest

from mixlab.data import archives
from mixlab.data.archives import download, extract
from mixlab.errors import DataError

CONTENT = {"a/1.txt": b"one", "a/b/2.txt": b"two" * 50_000, "3.txt": b""}


def member(name, kind=tarfile.REGTYPE, size=0, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, size, link, 0o4777
    return info


def tar_of(*members, form=tarfile.PAX_FORMAT):
    """Return a tar of (member, content) pairs."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for info, content in members:
            info.size = info.size or len(content)
            tar.addfile(info, io.BytesIO(content.ljust(info.size, b"\0")) if info.isreg() else None)
    return stream.getvalue()


def zip_of(*members):
    """Return a zip of (name, content, mode) triples."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.create_system, info.external_attr = name, 3, mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return stream.getvalue()


def good_tar():
    return tar_of((member("a", tarfile.DIRTYPE), b""), *((member(name), content) for name, content in CONTENT.items()))


def good_zip():
    return zip_of(("a/", b"", 0o40755), *((name, content, 0o100644) for name, content in CONTENT.items()))


@pytest.mark.parametrize(
    "data",
    [good_tar(), gzip.compress(good_tar()), lzma.compress(good_tar()), good_zip()],
    ids=["tar", "gz", "xz", "zip"],
)
def test_an_archive_is_unpacked_with_default_permissions(tmp_path, data):
    (tmp_path / "archive").write_bytes(data)
    folder = tmp_path / "new" / "folder"
    extract(tmp_path / "archive", folder)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in files.items()} == CONTENT
    (tmp_path / "plain").touch()
    assert {path.stat().st_mode for path in files.values()} == {(tmp_path / "plain").stat().st_mode}
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE((tmp_path / "new").stat().st_mode)
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]


def test_names_that_differ_in_case_are_kept_apart(tmp_path):
    (tmp_path / "archive").write_bytes(tar_of((member("./A.txt"), b"1"), (member("a.txt"), b"2")))
    extract(tmp_path / "archive", tmp_path / "folder")
    assert (tmp_path / "folder" / "A.txt").read_bytes() == b"1"
    assert (tmp_path / "folder" / "a.txt").read_bytes() == b"2"


def pax_of(size):
    """Return a tar whose first header claims to be followed by `size` bytes of further header."""
    return member("x", tarfile.XHDTYPE, size).tobuf(tarfile.USTAR_FORMAT) + bytes(4096)


def negative_size():
    header = bytearray(member("a").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) * 2 + bytes(1024)


def with_claimed_size(data, size):
    """Return a zip whose directory and header claim another size for the only member."""
    data = bytearray(data)
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = data.index(signature) + offset
        data[start : start + 4] = struct.pack("<I", size)
    return bytes(data)


def encrypted(data):
    data = bytearray(data)
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


ZIP_LINK = stat.S_IFLNK | 0o777
HOSTILE = {
    "tar: path out": (tar_of((member("../out"), b"x")), "../out: a path that leads out of the folder"),
    "tar: path out from within": (tar_of((member("a/../../out"), b"x")), "leads out of the folder"),
    "tar: absolute path": (tar_of((member("/tmp/out"), b"x")), "/tmp/out: an absolute path"),
    "tar: drive letter": (tar_of((member("C:/out"), b"x")), "C:/out: an absolute path"),
    "tar: backslashes": (tar_of((member("..\\out"), b"x")), "backslash"),
    "tar: newline": (tar_of((member("a\nb"), b"x")), "control character"),
    "tar: symbolic link": (tar_of((member("a", tarfile.SYMTYPE, link=".."), b"")), "a: neither a regular file"),
    "tar: through a link": (
        tar_of((member("a", tarfile.SYMTYPE, link=".."), b""), (member("a/out"), b"x")),
        "a: neither a regular file",
    ),
    "tar: hard link": (tar_of((member("a", tarfile.LNKTYPE, link="/etc/passwd"), b"")), "neither a regular file"),
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
    "zip: absolute path": (zip_of(("/tmp/out", b"x", 0)), "an absolute path"),
    "zip: drive letter": (zip_of(("c:out", b"x", 0)), "an absolute path"),
    "zip: backslashes": (zip_of(("..\\out", b"x", 0)), "backslash"),
    "zip: name with NUL": (zip_of(("a\0b", b"x", 0)), "control character"),
    "zip: symbolic link": (zip_of(("a", b"..", ZIP_LINK)), "a: neither a regular file"),
    "zip: a link called a folder": (zip_of(("a/", b"..", ZIP_LINK)), "a/: neither a regular file"),
    "zip: device": (zip_of(("a", b"", stat.S_IFCHR)), "neither a regular file"),
    "zip: bomb": (zip_of(("a", bytes(10**7), 0)), "a: more than the limit of 1000 bytes"),
    "zip: bomb that claims to be small": (with_claimed_size(zip_of(("a", bytes(10**7), 0)), 10), "Bad CRC-32"),
    "zip: encrypted": (encrypted(zip_of(("a", b"x", 0))), "a: encrypted"),
    "zip: cut off": (good_zip()[:-30], "not a zip file"),
    "nothing": (b"", "empty file"),
    "no archive": (b"<html>404</html>" * 100, ""),
}


@contextlib.contextmanager
def nothing_changes(folder):
    before = {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
    yield
    assert {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")} == before


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_archives_leave_nothing_behind(tmp_path, name):
    data, reason = HOSTILE[name]
    archive = tmp_path / "home" / "archive"
    archive.parent.mkdir()
    archive.write_bytes(data)
    with nothing_changes(tmp_path), pytest.raises(DataError) as error:
        extract(archive, tmp_path / "home" / "folder", max_bytes=1000, max_files=20)
    assert str(archive) in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_in_use_is_not_touched(tmp_path):
    (tmp_path / "archive").write_bytes(good_tar())
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    with nothing_changes(tmp_path), pytest.raises(DataError, match="exists already"):
        extract(tmp_path / "archive", tmp_path / "folder")
    with pytest.raises(DataError, match="there is no archive"):
        extract(tmp_path / "missing", tmp_path / "other")


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    (tmp_path / "archive").write_bytes(good_tar())
    monkeypatch.setattr(archives._Writer, "make_file", interrupt)
    with nothing_changes(tmp_path), pytest.raises(KeyboardInterrupt):
        extract(tmp_path / "archive", tmp_path / "folder")


@pytest.fixture
def source(tmp_path):
    """Return a URL and the digests of what it holds."""
    path = tmp_path / "remote" / "data.bin"
    path.parent.mkdir()
    path.write_bytes(b"content" * 1000)
    digests = {name: f"{name}:{hashlib.new(name, path.read_bytes()).hexdigest()}" for name in ("sha256", "md5")}
    return path.as_uri(), digests


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_download_is_kept_with_the_right_digest(tmp_path, source, algorithm):
    url, digests = source
    target = tmp_path / "cache" / "data.bin"
    assert download(url, target, digests[algorithm].upper()) == target
    assert target.read_bytes() == b"content" * 1000
    assert list(target.parent.iterdir()) == [target]
    assert download("file:///nowhere", target, digests[algorithm]) == target, "a file that is there needs no network"


def test_a_wrong_digest_is_refused_with_both(tmp_path, source):
    url, digests = source
    target = tmp_path / "cache" / "data.bin"
    with pytest.raises(DataError) as error:
        download(url, target, "sha256:00")
    assert all(part in str(error.value) for part in (url, "sha256:00", digests["sha256"]))
    assert list(target.parent.iterdir()) == []


def test_a_stale_target_is_replaced_only_by_the_right_file(tmp_path, source):
    url, digests = source
    target = tmp_path / "data.bin"
    target.write_bytes(b"stale")
    with pytest.raises(DataError):
        download(url, target, "md5:00")
    assert target.read_bytes() == b"stale"
    download(url, target, digests["md5"])
    assert target.read_bytes() == b"content" * 1000


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/data.bin", "file:///nowhere/data.bin"])
def test_a_failed_download_says_what_to_do(tmp_path, url):
    target = tmp_path / "cache" / "data.bin"
    with pytest.raises(DataError) as error:
        download(url.format(port=closed_port()), target, "sha256:00")
    assert f"fetch it by other means and put it at {target} (sha256:00)" in str(error.value)
    assert list(target.parent.iterdir()) == []


def test_an_unknown_digest_is_refused_before_the_network(tmp_path):
    with pytest.raises(DataError, match="neither sha256"):
        download("http://127.0.0.1:1/", tmp_path / "cache" / "data.bin", "crc32:00")
    assert not (tmp_path / "cache").exists()
