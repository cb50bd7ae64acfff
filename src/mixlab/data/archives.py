"""Downloads that are checked before they count, and archives that cannot write outside their folder."""

import contextlib
import gzip
import hashlib
import http.client
import io
import lzma
import os
import re
import stat
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch

from mixlab.data.tars import CONTROL, READ_ERRORS, tar_members
from mixlab.errors import DataError

MAX_BYTES = 50_000_000_000
MAX_FILES = 2_000_000

_CHUNK = 1 << 16
_MAX_DEPTH = 64
_ZIP_HEADER = 30  # bytes, before the name; more may follow the name
_DRIVE = re.compile(r"[A-Za-z]:")


def download(url: str, target: Path, digest: str) -> Path:
    """Fetch `url` to `target` unless it is there with this digest already, and return `target`.

    Args:
        url: what to fetch.
        target: the file to make; a file of another digest is replaced once the right one is here.
        digest: "sha256:..." or "md5:..." in hexadecimal.

    Raises:
        DataError: where the network fails or the digest differs; nothing but `target`'s folder is left behind.
    """
    algorithm, _, expected = digest.lower().partition(":")
    if algorithm not in ("sha256", "md5") or not expected:
        raise DataError(f"cannot check {url}: digest {digest!r} is neither sha256:... nor md5:...")
    if target.is_file() and _digest(target, algorithm) == expected:
        return target
    with _beside(target) as temporary:
        fetched = temporary / "fetched"
        _fetch(url, fetched, target, digest)
        got = _digest(fetched, algorithm)
        if got != expected:
            raise DataError(f"{url} has another digest: expected {digest}, got {algorithm}:{got}")
        _sync(fetched)
        fetched.replace(target)
    _sync_names(target.parent)
    return target


def extract(archive: Path, folder: Path, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> None:
    """Unpack a tar (plain, gzip, xz) or zip into `folder`, which must not exist or be empty.

    Only regular files and folders below `folder` are made, with default permissions. Everything is written beside
    `folder` and renamed at the end, so that `folder` is either whole or not there.

    Args:
        archive: the file to read; its kind is told from its first bytes.
        folder: where its content goes.
        max_bytes: limit of all content together, in bytes as unpacked.
        max_files: limit of files and folders together.

    Raises:
        DataError: naming archive and member, for links, devices, paths that lead out, names given twice, limits
            exceeded and damage.
    """
    if not archive.is_file():
        raise DataError(f"there is no archive {archive}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"cannot extract {archive}: {folder} exists already; remove it, or name another folder")
    with _beside(folder) as temporary:
        content = temporary / "content"
        content.mkdir()
        writer = _Writer(archive, content, max_bytes, max_files)
        try:
            _read_into(writer)
            content.replace(folder)
        except READ_ERRORS as error:
            reason = str(error) or type(error).__name__
            where = f": {writer.member}" if writer.member else ""
            raise DataError(f"cannot extract {archive}{where}: {reason}") from None


class _Writer:
    """Writes members below one folder and keeps count of what came out."""

    def __init__(self, archive: Path, folder: Path, max_bytes: int, max_files: int) -> None:
        self.archive, self.folder = archive, folder
        self.max_bytes, self.max_files = max_bytes, max_files
        self.bytes_written = 0
        self.member = ""
        self._made: set[Path] = set()

    def begin(self, name: str) -> Path:
        """Name the member at hand and return the path it will have."""
        self.member = ascii(name) if CONTROL.search(name) else name
        return self.folder.joinpath(*self._parts(name))

    def make_folder(self, path: Path) -> None:
        if path == self.folder or path in self._made:
            return
        self.make_folder(path.parent)
        path.mkdir()
        self._count(path)

    def make_file(self, path: Path, source: IO[bytes]) -> None:
        if path in self._made:
            raise self.refuse("the name appears twice")
        self.make_folder(path.parent)
        with path.open("xb") as file:  # x: a name that differs only in case must not overwrite where case is ignored
            self._count(path)
            while chunk := source.read(_CHUNK):
                self.bytes_written += len(chunk)
                if self.bytes_written > self.max_bytes:
                    raise self.refuse(f"more than the limit of {self.max_bytes} bytes")
                file.write(chunk)

    def refuse(self, reason: str) -> DataError:
        return DataError(f"cannot extract {self.archive}: {self.member}: {reason}")

    def _count(self, path: Path) -> None:
        self._made.add(path)
        if len(self._made) > self.max_files:
            raise self.refuse(f"more than the limit of {self.max_files} files and folders")

    def _parts(self, name: str) -> list[str]:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or _DRIVE.match(name):
            raise self.refuse("an absolute path")
        if ".." in parts:
            raise self.refuse("a path that leads out of the folder")
        if "\\" in name or CONTROL.search(name):
            raise self.refuse("a name with a backslash or control character")
        if len(parts) > _MAX_DEPTH:
            raise self.refuse(f"nested deeper than {_MAX_DEPTH} folders")
        return parts


def _read_into(writer: _Writer) -> None:
    with writer.archive.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"PK"):
        return _read_zip(writer)
    with _uncompressed(writer.archive, start) as stream:
        return _read_tar(writer, stream)


@contextlib.contextmanager
def _uncompressed(archive: Path, start: bytes) -> Iterator[io.BufferedIOBase]:
    if start.startswith(b"\x1f\x8b"):
        with gzip.open(archive, "rb") as stream:
            yield stream
    elif start.startswith(b"\xfd7zXZ\x00"):
        with lzma.open(archive, "rb") as stream:
            yield stream
    else:
        with archive.open("rb") as stream:
            yield stream


def _read_tar(writer: _Writer, stream: io.BufferedIOBase) -> None:
    for tar, member in tar_members(stream):
        _read_tar_member(writer, tar, member)


def _read_tar_member(writer: _Writer, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    path = writer.begin(member.name)
    if member.isdir():
        return writer.make_folder(path)
    if not member.isreg() or member.issparse():
        raise writer.refuse("neither a regular file nor a folder")
    if path == writer.folder:
        raise writer.refuse("a file without a name")
    source = tar.extractfile(member)
    if source is None:
        raise writer.refuse("a file without content")
    with source:
        return writer.make_file(path, source)


def _read_zip(writer: _Writer) -> None:
    with zipfile.ZipFile(writer.archive) as archive:
        _check_apart(writer, archive)
        for member in archive.infolist():
            _read_zip_member(writer, archive, member)


def _check_apart(writer: _Writer, archive: zipfile.ZipFile) -> None:
    """Refuse members that share bytes of the archive: so a small one can hold any number of large ones."""
    free = 0  # first byte after the members so far
    for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
        writer.begin(member.orig_filename)
        if member.header_offset < free:
            raise writer.refuse("shares bytes with another member")
        free = member.header_offset + _ZIP_HEADER + len(member.orig_filename.encode()) + member.compress_size


def _read_zip_member(writer: _Writer, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    path = writer.begin(member.orig_filename)  # `filename` is cut at the first NUL
    kind = stat.S_IFMT(member.external_attr >> 16)
    if member.is_dir() and kind in (0, stat.S_IFDIR):
        return writer.make_folder(path)
    if kind not in (0, stat.S_IFREG):
        raise writer.refuse("neither a regular file nor a folder")
    if member.flag_bits & 1:
        raise writer.refuse("encrypted")
    if path == writer.folder:
        raise writer.refuse("a file without a name")
    with archive.open(member) as source:
        return writer.make_file(path, source)


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `target`, so that a rename stays on one file system."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise DataError(f"cannot write into {target.parent}: {error.strerror}") from None
    with temporary as name:
        yield Path(name)


def _fetch(url: str, fetched: Path, target: Path, digest: str) -> None:
    try:
        torch.hub.download_url_to_file(url, str(fetched), progress=sys.stderr.isatty())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(
            f"cannot download {url}: {error}; fetch it by other means and put it at {target} ({digest})"
        ) from None


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _sync(fetched: Path) -> None:
    with fetched.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_names(folder: Path) -> None:
    if os.name != "posix":
        return  # only there can a folder be opened
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
