"""A disk that is watched: what is done to files below a folder is noted, and fails from a given operation on.

The order of the notes is what a crash can cut: `Disk` replays them, and knows what a power cut would leave.
"""

import builtins
import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

GROWS = ("create", "write", "sync", "sync folder", "rename", "mkdir")  # what a full disk refuses


@dataclass(frozen=True)
class Operation:
    kind: str
    path: str  # relative to the watched folder, as all paths here
    target: str = ""  # of a rename
    content: bytes = b""  # of a file that is synced


@dataclass
class Disk:
    """A folder, a file, or all of a disk: what programs see, and what a crash leaves of it."""

    content: bytes | None = None  # of a file, that a crash leaves; None: a folder
    seen: dict[str, "Disk"] = field(default_factory=dict)
    kept: dict[str, "Disk"] = field(default_factory=dict)  # entries of a folder that a crash leaves at least

    def apply(self, operation: Operation) -> None:
        folder, name = self._parent(operation.path)
        if operation.kind == "create":
            folder.seen.setdefault(name, Disk(b"")).content = b""
        if operation.kind == "mkdir":
            folder.seen[name] = Disk()
        if operation.kind == "sync":
            folder.seen[name].content = operation.content
        if operation.kind == "sync folder":
            synced = folder.seen[name] if name else folder
            synced.kept = dict(synced.seen)
        if operation.kind == "remove":
            del folder.seen[name]
        if operation.kind == "rename":
            other, new = self._parent(operation.target)
            other.seen[new] = folder.seen.pop(name)

    def write(self, place: Path, entries: Callable[["Disk"], dict[str, "Disk"]]) -> None:
        """Write what `entries` chooses of each folder to a real one."""
        place.mkdir()
        for name, node in entries(self).items():
            if node.content is None:
                node.write(place / name, entries)
            else:
                (place / name).write_bytes(node.content)

    def _parent(self, path: str) -> tuple["Disk", str]:
        *folders, name = Path(path).parts or ("",)
        node = self
        for folder in folders:
            node = node.seen[folder]
        return node, name


def read_disk(place: Path) -> Disk:
    """Return a real folder, all of it synced."""
    if not place.is_dir():
        return Disk(place.read_bytes())
    entries = {path.name: read_disk(path) for path in place.iterdir()}
    return Disk(None, entries, dict(entries))


@contextlib.contextmanager
def watched(root: Path, full_from: int = -1) -> Iterator[list[Operation]]:
    """Note every operation below a folder; those that need space fail from number `full_from` on."""
    notes: list[Operation] = []

    @contextlib.contextmanager
    def noted(kind: str, path: Any, target: Any = "", content: bytes = b"") -> Iterator[None]:
        place = Path(os.path.abspath(path))
        inside = place.is_relative_to(root)
        if inside and 0 <= full_from <= len(notes) and kind in GROWS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
        yield
        if inside:
            new = str(Path(os.path.abspath(target)).relative_to(root)) if target else ""
            notes.append(Operation(kind, str(place.relative_to(root)), new, content))

    with contextlib.ExitStack() as stack:
        for owner, name, wrapped in _wrappers(noted):
            stack.enter_context(mock.patch.object(owner, name, wrapped))
        yield notes


class _File:
    """An open file whose writes are noted."""

    def __init__(self, file: Any, path: Any, noted: Callable) -> None:
        self._file, self._path, self._noted = file, path, noted

    def write(self, content: Any) -> int:
        with self._noted("write", self._path):
            return self._file.write(content)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def __iter__(self) -> Iterator:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _wrappers(noted: Callable) -> Iterator[tuple[Any, str, Callable]]:
    """Yield the functions that change files, and what stands in for each."""
    real_open, real_sync = builtins.open, os.fsync

    def opened(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if isinstance(path, int) or not set(mode) & set("wax+"):
            return real_open(path, mode, *arguments, **named)
        made = noted("create", path) if "w" in mode or not os.path.exists(path) else contextlib.nullcontext()
        with made:
            return _File(real_open(path, mode, *arguments, **named), path, noted)

    def synced(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        content = b"" if path.is_dir() else path.read_bytes()
        with noted("sync folder" if path.is_dir() else "sync", path, content=content):
            real_sync(descriptor)

    def on_one(kind: str, real: Callable) -> Callable:
        def changed(path: Any, *arguments: Any, dir_fd: int | None = None, **named: Any) -> Any:
            place = path if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
            with noted(kind, place):
                return real(path, *arguments, dir_fd=dir_fd, **named)

        return changed

    def renamed(real: Callable) -> Callable:
        def changed(source: Any, target: Any) -> None:
            with noted("rename", source, target):
                real(source, target)

        return changed

    yield from ((owner, "open", opened) for owner in (builtins, io))
    yield os, "fsync", synced
    yield from ((os, name, renamed(getattr(os, name))) for name in ("replace", "rename"))
    yield from ((os, name, on_one("remove", getattr(os, name))) for name in ("unlink", "remove", "rmdir"))
    yield os, "mkdir", on_one("mkdir", os.mkdir)
