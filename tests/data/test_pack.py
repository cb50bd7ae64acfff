"""Packs of decoded pictures: what is read from one is what was written, or nothing."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from mixlab import durable
from mixlab.data.pack import Identity, PackedPixels, open_pack, write_pack
from mixlab.errors import UnreadableImage

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 5), dtype=np.uint8)
ROWS = [
    (Identity(f"a/\udce9{index}.jpg", 10, 20, index), PIXELS[index], "0 bytes" * (index == 2)) for index in range(4)
]


def packed(path: Path) -> PackedPixels | None:
    pack = open_pack(path)
    return pack and PackedPixels((pack,), np.array([[0, row] for row in range(4)]), lambda line: None)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_what_is_read_is_what_was_written(tmp_path: Path, dtype: str):
    write_pack(tmp_path / "a.pixels", ((identity, row.astype(dtype), reason) for identity, row, reason in ROWS))
    found = packed(tmp_path / "a.pixels")
    assert found is not None
    assert [entry.identity for entry in found.packs[0].entries] == [identity for identity, _, _ in ROWS]
    for index in (0, 1, 3):
        read = found.read(index)
        assert read is not None
        assert read.dtype == dtype
        assert np.array_equal(read, PIXELS[index])
    with pytest.raises(UnreadableImage, match="0 bytes"):
        found.read(2)
    assert PackedPixels(found.packs, np.array([[-1, -1]]), print).read(0) is None, "it is in no pack"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A pack as it was written, once: each writing is synced to the disk."""
    path = tmp_path_factory.mktemp("whole") / "a.pixels"
    write_pack(path, ROWS)
    return path.read_bytes()


def test_a_flipped_bit_anywhere_never_gives_other_pixels(whole: bytes, tmp_path: Path):
    path = tmp_path / "a.pixels"
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        found = packed(path)
        if found is None:
            continue
        reads = [found.read(index) for index in (0, 1, 3)]
        wrong = [index for index, read in zip((0, 1, 3), reads, strict=True) if read is None]
        assert len(wrong) == (place // 75 != 2), "one row has the flipped bit, or the unreadable one has"
        assert all(
            read is None or np.array_equal(read, PIXELS[index]) for index, read in zip((0, 1, 3), reads, strict=True)
        )
        assert path.exists() == (not wrong), "a damaged pack is not left for the next run"


def test_a_file_that_is_cut_anywhere_is_no_pack(tmp_path: Path):
    path = tmp_path / "a.pixels"
    write_pack(path, ROWS)
    for size in reversed(range(path.stat().st_size)):
        os.truncate(path, size)
        assert open_pack(path) is None
    assert open_pack(tmp_path / "nothing.pixels") is None


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_pack_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.os, failing, full)
    with pytest.raises(OSError, match="No space"):
        write_pack(tmp_path / "a.pixels", ROWS)
    assert list(tmp_path.iterdir()) == []
