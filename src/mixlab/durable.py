"""Files and folders that are there whole or not at all, whatever is killed, full or cut.

Write aside in the same folder, flush, fsync, rename, fsync the folder. A folder carries a manifest of SHA-256 sums.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from mixlab.errors import RunError

MANIFEST = "manifest.json"


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step.

    Raises:
        RunError: where it cannot be written; what was there before stays.
    """
    with _explained(path, len(content)), replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes its place in one step once the block has ended well.

    Raises:
        OSError: where it cannot be written; what was there before stays.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        _sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step; raises as `write_bytes`."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder that appears with all its files and their manifest, or does not appear.

    A folder of other content that is there already is moved away just before; one of the same content is left alone.

    Raises:
        RunError: where it cannot be written; what was there before stays.
    """
    aside, replaced = (folder.with_name(f".{folder.name}.{os.getpid()}.{what}.partial") for what in ("new", "old"))
    manifest = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    if _manifest(folder) == manifest and verify_folder(folder) == "":
        return
    needed = sum(len(content) for content in files.values())
    with _explained(folder, needed):
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            for name, content in files.items():
                _write_and_sync(aside / name, content)
            _write_and_sync(aside / MANIFEST, json.dumps(manifest, indent=2).encode())
            _sync_folder(aside)
            if folder.exists():
                os.replace(folder, replaced)
            os.replace(aside, folder)
            _sync_folder(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)


def put_in_place(aside: Path, folder: Path) -> None:
    """Rename a folder of files that are synced already; `folder` does not exist or is empty. Raises OSError."""
    os.replace(aside, folder)
    _sync_folder(folder.parent)


def put_files(files: Sequence[Path], folder: Path) -> None:
    """Sync files and move them into a folder of the same file system; the last is the one that others belong to.

    What had its name goes first, so that it never stands beside files of another time.

    Raises:
        RunError: where that cannot be done.
    """
    with _explained(folder, sum(path.stat().st_size for path in files)):
        for path in files:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        (folder / files[-1].name).unlink(missing_ok=True)
        for path in files:
            os.replace(path, folder / path.name)
        _sync_folder(folder)


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file: a pipe or a device might never end.

    Raises:
        OSError: where it is none, or cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return path.read_bytes()


def parse_json(text: str | bytes) -> Any:
    """Return what JSON says; raises ValueError where it is none, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """Return what a JSON file says; raises OSError as `read_bytes` and ValueError as `parse_json`."""
    return parse_json(read_bytes(path))


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it is there; what is then written into it lasts.

    Raises:
        RunError: where it cannot be made.
    """
    try:
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in new:
            _sync_folder(path.parent)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror}; choose another --out") from None


def verify_folder(folder: Path) -> str:
    """Return "" where every file is as its manifest says, else what is wrong."""
    manifest = _manifest(folder)
    if not manifest:
        return f"{MANIFEST} is missing or cannot be read"
    try:
        for name, expected in manifest.items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    return f"{name} does not match its SHA-256"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read: {error.strerror}"
    return ""


def append_line(path: Path, text: str) -> None:
    """Append one line and sync it.

    Raises:
        RunError: where it cannot be written.
    """
    line = text.encode("utf-8", "backslashreplace") + b"\n"
    with _explained(path, len(line)), path.open("ab+") as file:
        if file.tell() and not _ends_a_line(file):
            line = b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def remove_partials(folder: Path) -> None:
    """Remove what a killed writer left behind."""
    for aside in folder.glob(".*.partial"):
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink(missing_ok=True)


def _manifest(folder: Path) -> dict[str, str]:
    """Return {file: SHA-256}, or nothing where there is no readable manifest."""
    try:
        found = read_json(folder / MANIFEST)
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict) or not all(isinstance(digest, str) for digest in found.values()):
        return {}
    return found if all(Path(name).name == name for name in found) else {}  # no file outside the folder


def _ends_a_line(file: IO[bytes]) -> bool:
    """Whether the last byte is a line's end; a killed writer leaves half a line."""
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _write_and_sync(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows has no handle of a folder to sync; its rename is journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(path: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise RunError(f"{path} needs {needed:,} bytes, more than a file may have here (ulimit -f)") from None
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"cannot write {path}: {error.strerror or error}") from None
        free = shutil.disk_usage(path.parent if path.parent.exists() else Path.cwd()).free
        raise RunError(
            f"the disk is full: {path} needs {needed:,} bytes and {free:,} are free. "
            "What was saved before is intact; free some space and run the same command again"
        ) from None
