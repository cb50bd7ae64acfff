"""Tars from elsewhere, member by member: nothing in them is trusted, and their damage is found."""

import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # in a name

_LONGEST_READ = 1 << 16  # bytes
_MAX_PADDING = 1 << 20  # bytes of a tar after its last member
_END_OF_TAR = bytes(512)
# What the standard library's readers raise on damaged or hostile tars and zips.
READ_ERRORS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)


def tar_members(stream: io.BufferedIOBase) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield each member of a tar that is not compressed.

    Raises:
        TarError, and whatever else is in READ_ERRORS, where it is damaged or cut off, or has something behind its end.
    """
    bounded = _Bounded(stream)
    with tarfile.open(fileobj=bounded, mode="r:") as tar:
        while member := tar.next():
            if member.size < 0:
                raise tarfile.ReadError("a member of negative size")
            yield tar, member
            # Else two million of them stay in memory; documented nowhere, but older than Python 3.
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
    if bounded.last != _END_OF_TAR:  # tarfile takes damage between members for the end
        raise tarfile.ReadError("damaged or cut off after this member")
    if len(stream.read(_MAX_PADDING)) == _MAX_PADDING:  # reading to the end is what checks gzip's and xz's sums
        raise tarfile.ReadError("data after the end")


class _Bounded:
    """A seekable stream that refuses long single reads: tarfile reads headers whole, however long they claim to be."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self.last = b""

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise tarfile.ReadError(f"a header of {size} bytes, more than the limit of {_LONGEST_READ}")
        self.last = self._stream.read(size)
        return self.last

    def write(self, data: bytes, /) -> int:
        raise io.UnsupportedOperation("read only")

    def seek(self, position: int, /) -> int:
        return self._stream.seek(position)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
