"""Downloads count only with the right digest; archives write whole folders or nothing (hostile ones: D5 of torture)."""

import contextlib
import gzip
import hashlib
import lzma
import socket
import stat
import tarfile

import pytest

from mixlab.data import archives
from mixlab.data.archives import download, extract
from mixlab.errors import DataError
from torture.hostile_archives import member, tar_of, zip_of

CONTENT = {"a/1.txt": b"one", "a/b/2.txt": b"two" * 50_000, "3.txt": b""}


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


@contextlib.contextmanager
def nothing_changes(folder):
    before = {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
    yield
    assert {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")} == before


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
