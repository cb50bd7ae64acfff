"""The cache of decoded pictures: the same pixels and the same reports with it as without it."""

import errno
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixlab import durable
from mixlab.data import cache
from mixlab.data.catalogue import parse_data
from mixlab.data.data_set import DataSet
from mixlab.data.downloads import data_home
from mixlab.data.images import FileImages
from mixlab.data.loading import batches, in_memory, in_order
from mixlab.data.names import expand


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIXLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pixels"


def load(pictures: Path, seed: int = 0, **fields) -> DataSet:
    return parse_data(expand(str(pictures)) | {"image_size": 16, "canvas_scale": 1.25} | fields).load(seed, True)


def training_files(pictures: Path, seed: int = 0, **fields) -> FileImages:
    images = load(pictures, seed, **fields).train
    assert isinstance(images, FileImages)
    return images


def contents(images, size: int = 7) -> list:
    found = batches(images, in_order(images, size), workers=0)
    return [(batch.images.numpy().tobytes(), batch.labels.tolist(), batch.indices.tolist()) for batch in found]


def filled(images: FileImages) -> tuple[FileImages, list[str]]:
    said: list[str] = []
    return cache.fill(images, 0, said.append), said


@pytest.mark.parametrize("fields", [{}, {"resize_mode": "pad"}, {"grayscale": True}, {"canvas_scale": 2.0}])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_pixels_are_the_same_bits_from_the_cache(pictures: Path, fields: dict, split: str):
    (pictures / "blue" / "broken.jpg").write_text("I am no picture")
    (pictures / "red" / "gone.png").symlink_to("nowhere")
    images = load(pictures, **fields).splits[split]
    assert isinstance(images, FileImages)
    found, said = filled(images)
    assert found.packed is not None
    assert len(said) == 1
    expected = contents(images)
    assert contents(found) == contents(cache.find(images, said.append)) == expected
    assert found.unreadable == images.unreadable
    assert contents(in_memory(found)) == expected


def test_from_the_cache_no_file_is_decoded_and_nothing_is_said(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    images = training_files(pictures)
    filled(images)

    def decoded(*_):
        raise AssertionError("a file was decoded")

    monkeypatch.setattr("mixlab.data.images.read_canvas", decoded)
    again, said = filled(training_files(pictures))
    assert len(contents(again)) == 4
    assert said == []


def test_only_what_is_new_is_decoded(pictures: Path):
    first, second = training_files(pictures), training_files(pictures, seed=1)
    filled(first)
    new = set(second.names) - set(first.names)
    assert f"decoding {len(new)} pictures" in filled(second)[1][0], "the seed has other validation images"
    Image.new("RGB", (20, 20)).save(pictures / first.names[0])
    found, said = filled(first)
    assert "decoding 1 pictures" in said[0]
    assert contents(found) == contents(first)


def rewritten(path: Path) -> None:
    """Other pixels under the same name, size and modification time, as an archive that was unpacked again leaves."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [Path.unlink, rewritten, lambda path: path.write_bytes(path.read_bytes() + b" ")])
def test_a_file_that_changed_is_not_read_from_the_cache(pictures: Path, change):
    images = training_files(pictures)
    filled(images)
    change(images.root / images.names[3])
    assert cache.find(images, print).packed is None
    assert contents(filled(images)[0]) == contents(images)


@pytest.mark.parametrize(
    "field", [{"image_size": 8}, {"canvas_scale": 2.0}, {"resize_mode": "squash"}, {"mean": [0] * 3}]
)
def test_whatever_changes_pixels_has_a_folder_of_its_own(pictures: Path, place: Path, field: dict):
    filled(training_files(pictures))
    images = training_files(pictures, **field)
    assert cache.find(images, print).packed is None
    assert contents(filled(images)[0]) == contents(images)
    assert len(cache.kept()) == 2


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, *names: str) -> None:
    """Let Pillow fail on files as it does where a disk does, or the memory."""
    opened = Image.open

    def fail(stream, **options):
        if any(stream.name.endswith(name) for name in names):
            raise error
        return opened(stream, **options)

    monkeypatch.setattr(Image, "open", fail)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), OSError(errno.EMFILE, "Too many open files"), MemoryError()]
)
def test_a_failure_that_may_pass_is_not_kept(pictures: Path, error: BaseException, workers: int):
    images, said = training_files(pictures), []
    name = images.names[3]
    with pytest.MonkeyPatch.context() as monkeypatch:
        failing(monkeypatch, error, name)
        found = cache.fill(images, workers, said.append)
        assert found.packed is not None, "the others have their pixels"
        assert len(contents(found, 28)[0][1]) == 27
        assert f"{name} cannot be read now" in said[-1]
    assert contents(found) == contents(images), "it is tried again in the same run"
    assert cache.find(images, said.append).packed is None
    again, said = filled(images)
    assert "decoding 1 pictures" in said[0]
    assert contents(again) == contents(cache.find(images, print)) == contents(images)


def test_where_all_files_fail_no_pack_is_written_and_the_next_run_has_them(pictures: Path, place: Path):
    images = training_files(pictures)
    with pytest.MonkeyPatch.context() as monkeypatch:
        failing(monkeypatch, OSError(errno.EIO, "Input/output error"), ".png")
        found, said = filled(images)
        assert (found.packed, list(place.glob("*/*.pixels"))) == (None, [])
        assert "and 27 more cannot be read now (input/output error)" in said[-1]
    assert contents(filled(images)[0]) == contents(images)


def test_what_is_wrong_with_a_file_itself_is_kept(pictures: Path):
    (pictures / "blue" / "broken.jpg").write_text("I am no picture")
    (pictures / "red" / "gone.png").symlink_to("nowhere")
    bad = ("blue/broken.jpg", "red/gone.png")
    images = FileImages(pictures, bad, np.arange(2), training_files(pictures).spec, canvas_size=20)
    _, said = filled(images)
    assert len(said) == 1
    found, said = filled(images)
    assert (found.packed is not None, said) == (True, [])
    assert found.unreadable["red/gone.png"] == "a link to a missing file"
    assert found.unreadable["blue/broken.jpg"].startswith("not an image")


def only_pack(place: Path) -> Path:
    (path,) = place.glob("*/*.pixels")
    return path


def test_a_damaged_picture_is_decoded_again_and_its_pack_replaced_in_the_next_run(pictures: Path, place: Path):
    images = training_files(pictures)
    filled(images)
    path = only_pack(place)
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    found, said = filled(images)
    assert contents(found) == contents(found) == contents(images)
    assert [line for line in said if "damaged" in line] == [
        f"cache    {path} is damaged and removed; what it held wrongly is decoded again"
    ]
    again, said = filled(images)
    assert "decoding 28 pictures" in said[0]
    assert contents(again) == contents(images)


@pytest.mark.parametrize("kept", [0, 1, 500, -1])
def test_a_cut_pack_and_what_a_killed_writer_left_are_removed(pictures: Path, place: Path, kept: int):
    images = training_files(pictures)
    filled(images)
    path = only_pack(place)
    os.truncate(path, kept % path.stat().st_size)
    (path.parent / ".0123.pixels.99.partial").write_bytes(b"half")
    assert cache.find(images, print).packed is None
    found, said = filled(images)
    assert "damaged" in said[0]
    assert contents(found) == contents(images)
    assert not list(path.parent.glob(".*"))


def test_of_two_that_fill_at_once_one_decodes(pictures: Path, place: Path):
    images, said, found = training_files(pictures), [], []
    both = threading.Barrier(2)

    def fill() -> None:
        both.wait()
        found.append(cache.fill(images.select(np.arange(28)), 0, said.append))

    threads = [threading.Thread(target=fill) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("decoding" in line for line in said) == 1
    assert all(contents(each) == contents(images) for each in found)
    assert only_pack(place)


def no_space(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=cache.LEFT_FREE + 100)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage)


def full_while_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)


def a_file_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.home().parent.mkdir(exist_ok=True)
    cache.home().write_text("a file")


def inside_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXLAB_CACHE", str(cache.home().parents[1] / "pictures" / "blue"))


@pytest.mark.parametrize(
    ("hinder", "reason"),
    [
        (no_space, r"it needs .* MiB, and 1.0 GiB of the disk are free"),
        (full_while_writing, "No space left on device"),
        (a_file_in_the_way, "Not a directory|File exists"),
        (inside_the_pictures, "it lies among the pictures"),
    ],
)
def test_where_nothing_can_be_kept_that_is_said_in_a_line(pictures: Path, monkeypatch, hinder, reason: str):
    images, before = training_files(pictures), sorted(pictures.rglob("*"))
    hinder(monkeypatch)
    found, said = filled(images)
    assert found.packed is None
    assert len([line for line in said if "cannot be kept" in line]) == 1
    assert re.search(reason, said[-1])
    assert sorted(pictures.rglob("*")) == before


def test_clearing_removes_what_is_ours_alone(pictures: Path, place: Path):
    data = load(pictures)
    for images in (data.train, data.validation):
        filled(images)  # pyright: ignore[reportArgumentType]
    assert {(each.kind, each.shape) for each in cache.kept()} == {
        ("training", (3, 20, 20)),
        ("evaluation", (3, 16, 16)),
    }
    assert sum(each.bytes for each in cache.kept()) > 28 * 1200 + 6 * 3072
    next(place.glob("*/about.json")).write_text("damaged")
    assert "unknown" in {each.kind for each in cache.kept()}
    (place / "mine").mkdir()
    (place / "mine" / "photo.pixels").write_text("not ours")
    cache.clear()
    assert [path.name for path in place.rglob("*")] == ["mine", "photo.pixels"]
    assert cache.kept() == []


def test_the_place_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Path):
    assert cache.home() == place
    monkeypatch.delenv("MIXLAB_CACHE")
    monkeypatch.delenv("MIXLAB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert (data_home(), cache.home()) == (tmp_path / "mixlab", tmp_path / "mixlab" / "pixels")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.home() == Path.home() / ".cache" / "mixlab" / "pixels"
