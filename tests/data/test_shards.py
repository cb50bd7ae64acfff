"""Shards: the same pictures, order and numbers as from the folder; whatever else a tar may hold is refused by name."""

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixlab.data import cache, shard_index, shard_writer
from mixlab.data.catalogue import ShardsConfig, parse_data
from mixlab.data.check import check
from mixlab.data.data_set import DataSet
from mixlab.data.images import FileImages
from mixlab.data.loading import batches, in_order
from mixlab.data.names import expand
from mixlab.data.shard_members import read_members
from mixlab.data.shard_places import find_shards
from mixlab.errors import DataError
from mixlab.experiment import compose

ROWS = 9  # pictures' worth of bytes in a shard, about


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXLAB_CACHE", str(tmp_path / "cache"))


def pack(folder: Path, out: Path, **fields) -> shard_writer.Packed:
    config = parse_data(expand(str(folder)) | fields)
    return shard_writer.pack(config, out, shard_bytes=ROWS * 3000, workers=2, say=lambda line: None)


@pytest.fixture
def packed(pictures: Path, tmp_path: Path) -> Path:
    pack(pictures, tmp_path / "packed")
    return tmp_path / "packed"


def load(place: Path, seed: int = 0, **fields) -> DataSet:
    return parse_data(expand(str(place)) | {"image_size": 16, "canvas_scale": 1.25} | fields).load(seed, True)


def content(data: DataSet) -> list:
    return [
        (
            images.names,
            images.labels.tolist(),
            [batch.images.numpy().tobytes() for batch in batches(images, in_order(images, 16))],
        )
        for images in data.splits.values()
    ]


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def refusal(place: Path, **fields) -> str:
    with pytest.raises(DataError) as raised:
        load(place, **fields)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("seed", [0, 1])
def test_packed_pictures_are_split_named_ordered_and_decoded_as_the_folder_is(pictures: Path, packed: Path, seed: int):
    (pictures / "red" / "2").mkdir()
    os.rename(pictures / "red" / "3.png", pictures / "red" / "2" / "b.b.PNG")
    again = packed.with_name("again")
    pack(pictures, again)
    assert len(list(again.glob("train/*.tar"))) > 2
    folder, shards = load(pictures, seed), load(again, seed)
    assert content(shards) == content(folder)
    assert shards.fingerprint() == folder.fingerprint()
    assert shards.spec == folder.spec


@pytest.mark.parametrize("names", [("train", "val"), ("training", "valid", "testing")])
def test_splits_of_the_folder_are_those_of_the_shards(pictures: Path, tmp_path: Path, names: tuple[str, ...]):
    root = tmp_path / "split"
    for name in names:
        shutil.copytree(pictures, root / name)
    found = pack(root, tmp_path / "packed")
    assert [sum(counts.values()) for counts in found.counts.values()] == [40, 0 if len(names) == 2 else 40, 40]
    assert content(load(tmp_path / "packed")) == content(load(root))


def test_without_the_index_the_headers_give_the_same_pictures_in_the_same_order(packed: Path):
    whole = content(load(packed))
    (packed / shard_index.INDEX).unlink()
    again = content(load(packed))
    assert [split[1:] for split in again] == [split[1:] for split in whole]
    assert all(name.startswith("train/00000") for names, _, _ in again for name in names)


def test_headers_are_read_once_and_again_when_a_shard_changes(packed: Path, monkeypatch: pytest.MonkeyPatch):
    (packed / shard_index.INDEX).unlink()
    first, read = load(packed).fingerprint(), []
    monkeypatch.setattr(shard_index, "read_members", lambda path: read.append(path) or read_members(path))
    assert load(packed).fingerprint() == first
    assert read == []
    (kept,) = (packed.parent / "cache" / "shards").iterdir()
    os.utime(packed / "train" / "000001.tar")
    assert load(packed).fingerprint() == first
    assert len(read) == len(list(packed.glob("train/*.tar")))
    kept.write_bytes(kept.read_bytes()[:-100])
    assert load(packed).fingerprint() == first


def test_packing_writes_the_same_bytes_again_and_leaves_the_folder_alone(pictures: Path, packed: Path):
    before = {path: path.stat().st_mtime_ns for path in pictures.rglob("*")}
    pack(pictures, packed.with_name("again"))
    assert {path: path.stat().st_mtime_ns for path in pictures.rglob("*")} == before
    files = sorted(path.relative_to(packed) for path in packed.rglob("*") if path.is_file())
    assert len(files) > 4
    assert all((packed / file).read_bytes() == (packed.with_name("again") / file).read_bytes() for file in files)


def test_members_hold_the_bytes_of_the_files_and_their_class(pictures: Path, packed: Path):
    files = {path.read_bytes(): path.parent.name for path in pictures.rglob("*.png")}
    classes = (packed / shard_index.CLASS_NAMES).read_text().splitlines()
    found = {}
    for shard in sorted(packed.glob("train/*.tar")):
        assert shard.stat().st_size <= ROWS * 3000
        with tarfile.open(shard) as tar:
            members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
        for (label, number), (name, data) in zip(members[::2], members[1::2], strict=True):
            assert label.removesuffix(".cls") == name.removesuffix(".png")
            found[data] = classes[int(number)]
    assert found == files


def test_a_picture_that_cannot_be_read_is_named_and_left_out(pictures: Path, tmp_path: Path):
    (pictures / "blue" / "5.png").write_text("no picture")
    os.mkfifo(pictures / "blue" / "pipe.png")
    found = pack(pictures, tmp_path / "packed")
    assert set(found.left_out) == {"blue/5.png", "blue/pipe.png"}
    assert found.counts["train"] == {"blue": 19, "red": 20}
    assert sum(map(len, load(tmp_path / "packed").splits.values())) == 39


def test_a_packing_that_fails_or_was_killed_leaves_nothing(pictures: Path, tmp_path: Path, monkeypatch):
    aside = tmp_path / ".packed.partial"
    (aside / "train").mkdir(parents=True)  # as left by a killed one
    (aside / "train" / "999999.tar").write_bytes(b"")

    def full(*_):
        raise OSError(28, "No space left on device", "x.tar")

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer, "write_index", full)
        with pytest.raises(DataError, match="No space left on device"):
            pack(pictures, tmp_path / "packed")
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}
    pack(pictures, tmp_path / "packed")
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "packed"}
    assert not (tmp_path / "packed" / "train" / "999999.tar").exists()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("pictures/x", "lie in each other"),
        (".", "lie in each other"),
        ("full", "there already"),
        ("file", "there already"),
    ],
)
def test_nothing_is_written_over_or_among_pictures(pictures: Path, tmp_path: Path, out: str, message: str):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=message):
        pack(pictures, tmp_path / out)


def test_what_is_a_folder_of_shards_and_what_is_one_of_pictures(pictures: Path, packed: Path, tmp_path: Path):
    (pictures / "backup.tar").write_bytes(b"")
    (packed / "notes.txt").write_text("")
    first = packed / "train" / "000000.tar"
    given = {pictures: "folder", packed: "shards", packed / "train": "shards", first: "shards"}
    given[packed / "train" / "{000000..000001}.tar"] = "shards"
    assert {place: expand(str(place))["name"] for place in given} == given


def test_shards_without_split_folders_go_by_their_names(tmp_path: Path):
    names = ["in-train-0.tar", "in-train-10.tar", "in-train-2.tar", "in-val-0.tar", "in-test-0.tar"]
    for name in names:
        write_tar(tmp_path / "flat" / name, {})
    found = find_shards(tmp_path / "flat")
    assert [path.name for path in found["train"]] == ["in-train-0.tar", "in-train-2.tar", "in-train-10.tar"]
    assert [len(found[split]) for split in ("validation", "test")] == [1, 1]
    chosen = find_shards(tmp_path / "flat" / "in-{train,test}-0.tar")
    assert {split: [path.name for path in paths] for split, paths in chosen.items()} == {
        "train": ["in-train-0.tar"],
        "test": ["in-test-0.tar"],
    }
    with pytest.raises(DataError, match=r"there is no shard .*in-train-1.tar"):
        find_shards(tmp_path / "flat" / "in-train-{0..2}.tar")
    write_tar(tmp_path / "flat" / "more.tar", {})
    with pytest.raises(DataError, match="only some shards"):
        find_shards(tmp_path / "flat")


def sample(key: str, label: str, suffix: str = "png", **more: str) -> dict[str, bytes]:
    return {
        f"{key}.cls": label.encode(),
        f"{key}.{suffix}": png(),
        **{f"{key}.{k}": v.encode() for k, v in more.items()},
    }


FOREIGN = {
    "cls": sample("a", "1") | sample("b", "0\n", "jpg") | sample("c.d", "2", "seg"),
    "words": sample("a", "cat") | sample("b", "dog"),
    "json": {"a.jpg": png(), "a.json": b'{"label": 1}', "b.json": b'{"class": 0}', "b.jpg": png()},
    "folder": {"./x/1/a.JPG": png(), "x/0/b.webp": png(), "x/0/._b.jpg": b"", "__meta__/0/c.jpg": b""},
    "beside": sample("a", "1", json="{}", txt="a red square") | sample("b", "0"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_shards_of_others(tmp_path: Path, kind: str):
    write_tar(tmp_path / "theirs" / "0.tar", FOREIGN[kind])
    found = shard_index.read_index(tmp_path / "theirs")
    train = found.parts["train"]
    assert [found.classes[label] for label in train.labels] == (["cat", "dog"] if kind == "words" else ["1", "0"])
    assert [train.slices.read(index) for index in range(2)] == [png(), png()]


def test_class_names_stand_beside_numbers(tmp_path: Path):
    write_tar(tmp_path / "t" / "0.tar", sample("a", "2") | sample("b", "10") | sample("c", "2"))
    names = [f"name {number}" for number in range(11)]
    (tmp_path / "t" / "classnames.txt").write_text("\n".join(names))
    assert shard_index.read_index(tmp_path / "t").classes == ("name 2", "name 10")
    (tmp_path / "t" / "classnames.txt").write_text("\n".join(names[:10]))
    with pytest.raises(DataError, match="has 10 names, and a picture is of class 10"):
        shard_index.read_index(tmp_path / "t")


BAD = {
    "two pictures": (sample("a", "0") | {"a.jpg": png()}, "has the same key"),
    "no class": ({"a.png": png()}, "a.png: no class: expected a .cls or .json"),
    "one lacks its class": (sample("k/a", "0") | {"k/b.png": png()}, "k/b.png has its class from its folder"),
    "odd class": (sample("a", "\x07"), "expected a class as a number or a word"),
    "empty class": (sample("a", ""), "expected a class"),
    "damaged json": ({"a.png": png(), "a.json": b"{"}, "is not JSON"),
    "one class": (sample("a", "0"), "one class only, '0'"),
    "nothing": ({"readme.txt": b""}, "no pictures to train on"),
    "case": (sample("a", "Cat") | sample("b", "cat"), "differ only in case"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_shard_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, kind: str):
    members, message = BAD[kind]
    write_tar(tmp_path / "bad" / "0.tar", members)
    assert message in refusal(tmp_path / "bad")


def test_a_name_may_be_anything_for_nothing_is_extracted(tmp_path: Path):
    write_tar(tmp_path / "t" / "0.tar", sample("../../a", "0") | sample("/etc/b", "1") | sample("c\x1b[2J", "1"))
    before = set(tmp_path.rglob("*"))
    data = load(tmp_path / "t")
    names = [name for images in data.splits.values() for name in images.names]
    assert sorted(names) == ["0.tar/../../a.png", "0.tar//etc/b.png", "0.tar/c\\x1b[2J.png"]
    assert not any(images.unreadable for images in data.splits.values())
    assert {path for path in set(tmp_path.rglob("*")) - before if "cache" not in path.parts} == set()


@pytest.mark.parametrize("cut", [600, 1100, 3000, -1024, -1500])
def test_a_cut_shard_is_refused_by_its_size_or_its_headers(packed: Path, cut: int):
    shard = packed / "train" / "000001.tar"
    shard.write_bytes(shard.read_bytes()[:cut])
    assert "when it was packed; copy it again" in refusal(packed)
    (packed / shard_index.INDEX).unlink()
    assert f"cannot read the shard {shard}" in refusal(packed)


@pytest.mark.parametrize("kind", [gzip, lzma, bz2])
@pytest.mark.parametrize("name", ["0.tar.gz", "0.tar"])
def test_a_compressed_shard_is_refused_with_the_way_to_unpack_it(tmp_path: Path, kind, name: str):
    shard = write_tar(tmp_path / "t" / "0.tar", sample("a", "0"))
    (tmp_path / "t" / name).write_bytes(kind.compress(shard.read_bytes()))
    assert "is compressed" in refusal(tmp_path / "t" / name)


def test_splits_with_other_classes_are_refused_or_ignored_as_in_a_folder(tmp_path: Path):
    write_tar(tmp_path / "t" / "train" / "0.tar", sample("a", "0") | sample("b", "2"))
    write_tar(tmp_path / "t" / "test" / "0.tar", sample("a", "2") | sample("b", "1"))
    assert "test has a class that training does not: '1' (1 image)" in refusal(tmp_path / "t")
    data = load(tmp_path / "t", ignore_unknown_classes=True)
    assert (data.spec.classes, data.test.labels.tolist()) == (("0", "2"), [1])
    assert data.ignored == 1


def test_a_missing_or_foreign_shard_beside_the_index_is_named(packed: Path):
    shutil.copy(packed / "train" / "000000.tar", packed / "train" / "9.tar")
    assert "9.tar is not in" in refusal(packed)
    (packed / "train" / "9.tar").unlink()
    (packed / "train" / "000000.tar").unlink()
    assert "000000.tar is missing" in refusal(packed)


@pytest.mark.parametrize(
    ("key", "value"),
    [("offsets", 10**9), ("offsets", -1), ("labels", 7), ("sizes", 2**70), ("names", 3), ("names", ...)],
)
def test_a_damaged_index_is_refused(packed: Path, key: str, value):
    index = packed / shard_index.INDEX
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    lines[1][key] = lines[1][key][1:] if value is ... else [value, *lines[1][key][1:]]
    index.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert f"{index} is damaged" in refusal(packed)


def test_a_shard_that_changes_after_loading_is_never_read(packed: Path):
    images = load(packed).train
    shard = packed / "train" / "000000.tar"
    shard.write_bytes(shard.read_bytes())
    found = images.batch(np.arange(len(images)))
    assert 0 < len(found.indices) < len(images)
    assert set(images.unreadable.values()) == {"the shard 000000.tar changed since it was loaded"}


def test_data_check_compares_the_sums_of_packed_shards(packed: Path):
    config = parse_data(str(packed))
    assert check(config, workers=2).failures("unreadable") == []
    shard = packed / "train" / "000001.tar"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert check(config, workers=2).failures("unreadable") == ["1 shard that changed"]


def test_decoded_pictures_of_shards_are_cached_until_the_shard_changes(packed: Path):
    images = load(packed).train
    assert isinstance(images, FileImages)
    filled = cache.fill(images, 0, lambda line: None)
    assert filled.packed is not None
    assert np.array_equal(filled.batch(np.arange(9)).images, images.batch(np.arange(9)).images)
    os.utime(packed / "train" / "000000.tar")
    assert cache.find(load(packed).train, print).packed is None  # type: ignore[arg-type]


def test_a_shard_that_cannot_be_read_now_is_tried_again(packed: Path):
    images, opened = load(packed).train, Path.open

    def fail(path: Path, *words, **options):
        if path.name == "000000.tar":
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, *words, **options)

    assert isinstance(images, FileImages)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Path, "open", fail)
        filled = cache.fill(images, 0, lambda line: None)
    assert np.array_equal(filled.batch(np.arange(9)).images, images.batch(np.arange(9)).images)


def test_the_recipe_of_folders_is_the_one_of_shards(pictures: Path, packed: Path):
    folder = compose("", {"data": str(pictures)}, ["data.image_size=32"])
    shards = compose("", {"data": str(packed)}, ["data.image_size=32"])
    assert isinstance(shards.data, ShardsConfig)
    ours, theirs = folder.model_dump(exclude={"data"}), shards.model_dump(exclude={"data"})
    assert ours == theirs
    different = {"name", "path", "labels_csv"}
    assert folder.data.model_dump(exclude=different) == shards.data.model_dump(exclude=different)


def test_clearing_the_cache_forgets_the_indexes_of_foreign_shards(packed: Path, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("MIXLAB_CACHE", str(tmp_path / "cache"))
    (packed / shard_index.INDEX).unlink()
    shard_index.read_index(packed)
    assert len(list((tmp_path / "cache" / "shards").glob("*.jsonl"))) == 1
    shard_index.clear_cached()
    assert list((tmp_path / "cache" / "shards").iterdir()) == []
