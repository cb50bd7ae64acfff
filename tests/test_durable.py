import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlab import durable
from mixlab.errors import RunError

FILES = {"tensors.bin": b"x" * 5000, "state.json": b'{"step": 3}'}


def test_a_folder_verifies_when_it_is_whole(tmp_path: Path):
    durable.write_folder(tmp_path / "a", FILES)
    assert durable.verify_folder(tmp_path / "a") == ""
    assert (tmp_path / "a" / "tensors.bin").read_bytes() == FILES["tensors.bin"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([*FILES, durable.MANIFEST]), st.integers(0, 10**6), st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_found(tmp_path_factory, name: str, place: int, bit: int):
    folder = tmp_path_factory.mktemp("flip") / "a"
    durable.write_folder(folder, FILES)
    content = bytearray((folder / name).read_bytes())
    content[place % len(content)] ^= 1 << bit
    (folder / name).write_bytes(content)
    assert durable.verify_folder(folder)


@pytest.mark.parametrize("name", [*FILES, durable.MANIFEST])
@pytest.mark.parametrize("kept", [0, 1, 10])
def test_a_truncated_or_missing_file_is_found(tmp_path: Path, name: str, kept: int):
    durable.write_folder(tmp_path / "a", FILES)
    os.truncate(tmp_path / "a" / name, kept)
    assert durable.verify_folder(tmp_path / "a")
    (tmp_path / "a" / name).unlink()
    assert f"{name} is missing" in durable.verify_folder(tmp_path / "a")


def test_the_same_content_is_not_written_again_and_other_content_replaces_it(tmp_path: Path):
    durable.write_folder(tmp_path / "a", FILES)
    before = (tmp_path / "a").stat().st_ino
    durable.write_folder(tmp_path / "a", FILES)
    assert (tmp_path / "a").stat().st_ino == before
    durable.write_folder(tmp_path / "a", {"other": b"y"})
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"other", durable.MANIFEST}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


WRITES = {
    "bytes": lambda root: durable.write_bytes(root / "file", b"new content"),
    "folder": lambda root: durable.write_folder(root / "folder", {"tensors.bin": b"new"}),
    "line": lambda root: durable.append_line(root / "lines", "text"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_full_disk_keeps_what_was_there_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write):
    durable.write_bytes(tmp_path / "file", b"old")
    durable.write_folder(tmp_path / "folder", FILES)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"disk is full: .* needs [\d,]+ bytes and [\d,]+ are free"):
        write(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert durable.verify_folder(tmp_path / "folder") == ""
    assert not list(tmp_path.glob(".*partial"))


def test_half_a_line_does_not_swallow_the_next(tmp_path: Path):
    (tmp_path / "lines").write_text('{"a": 1}\n{"b": ')
    durable.append_line(tmp_path / "lines", '{"c": 3}')
    durable.append_line(tmp_path / "lines", "caf\udce9")
    assert (tmp_path / "lines").read_text().splitlines() == ['{"a": 1}', '{"b": ', '{"c": 3}', "caf\\udce9"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        durable.write_bytes(tmp_path / "file" / "below", b"x")


WRITER = """
import sys
from pathlib import Path
from mixlab import durable
folder, number = Path(sys.argv[1]), 0
while True:
    number += 1
    durable.write_folder(folder, {"tensors.bin": bytes([number % 256]) * 300_000, "state.json": b"{}"})
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_folder_or_none(tmp_path: Path):
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)])
        while not folder.exists():
            time.sleep(0.005)
        time.sleep(0.013 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert not folder.exists() or durable.verify_folder(folder) == ""
        durable.remove_partials(tmp_path)
    assert not list(tmp_path.glob(".*partial"))


def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path: Path):
    durable.make_folder(tmp_path / "a" / "b")
    durable.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot make .*file/runs: Not a directory; choose another --out"):
        durable.make_folder(tmp_path / "file" / "runs")
    with pytest.raises(RunError, match=r"cannot make .*file: File exists"):
        durable.make_folder(tmp_path / "file")
