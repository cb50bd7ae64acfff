"""CIFAR reads the same from both official layouts, and its pickles cannot do anything."""

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from mixlab.data.catalogue import parse_data
from mixlab.data.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES, kind_of, read_cifar
from mixlab.errors import DataError

BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
FOLDERS = {
    ("cifar10", "binary"): "cifar-10-batches-bin",
    ("cifar10", "pickled"): "cifar-10-batches-py",
    ("cifar100", "binary"): "cifar-100-binary",
    ("cifar100", "pickled"): "cifar-100-python",
}


def batches(name):
    """Return {file: (pixels uint8 (n, 3072), labels)} of a tiny data set; the files have 2, 3, 4, ... images."""
    random = np.random.default_rng(0)
    files = [*BATCHES, "test_batch"] if name == "cifar10" else ["train", "test"]
    classes = 10 if name == "cifar10" else 100
    return {
        file: (random.integers(0, 256, (size, 3072), np.uint8), random.integers(0, classes, size).tolist())
        for size, file in enumerate(files, start=2)
    }


def old_pickle(pixels, labels, labels_key):
    """Return a pickle as Python 2 wrote it: byte strings as STRING, numpy's old module path."""

    def text(data):
        return b"T" + struct.pack("<i", len(data)) + data

    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    rows = b"K" + bytes([len(pixels)])
    return (
        b"\x80\x02}("
        + text(b"data")
        + b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        + b"(K\x01" + rows + b"M\x00\x0c\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(pixels.tobytes()) + b"tb"
        + text(labels_key.encode()) + b"](" + numbers + b"eu."
    )  # fmt: skip


def write(folder, name, form):
    place = folder / FOLDERS[name, form]
    place.mkdir()
    key = "labels" if name == "cifar10" else "fine_labels"
    for number, (file, (pixels, labels)) in enumerate(batches(name).items()):
        if form == "binary":
            coarse = [] if name == "cifar10" else [np.full((len(labels), 1), 7, np.uint8)]
            rows = np.hstack([*coarse, np.array(labels, np.uint8)[:, None], pixels])
            (place / f"{file}.bin").write_bytes(rows.tobytes())
        elif number % 2:  # as numpy writes them today; the other half as the official ones are
            (place / file).write_bytes(pickle.dumps({"data": pixels, key: labels}, protocol=2))
        else:
            (place / file).write_bytes(old_pickle(pixels, labels, key))
    return place


@pytest.mark.parametrize(("name", "form"), FOLDERS)
def test_both_layouts_hold_the_same_images(tmp_path, name, form):
    place = write(tmp_path, name, form)
    contents = batches(name)
    *train, test = contents.values()
    for folder in (tmp_path, place):
        found = read_cifar(folder, name)
        assert np.array_equal(
            found.train_images, np.concatenate([pixels for pixels, _ in train]).reshape(-1, 3, 32, 32)
        )
        assert found.train_labels.tolist() == [label for _, labels in train for label in labels]
        assert np.array_equal(found.test_images, test[0].reshape(-1, 3, 32, 32))
        assert found.test_labels.tolist() == test[1]
        assert (found.train_images.dtype, found.train_labels.dtype) == (np.uint8, np.int64)
    expected = [f"{file}/{index}" for file, (_, labels) in contents.items() for index in range(len(labels))]
    assert [*found.train_names, *found.test_names] == expected
    torch.from_numpy(found.test_images)  # warns of memory that is not writable


def test_the_classes_are_the_official_ones(tmp_path):
    write(tmp_path, "cifar10", "binary")
    write(tmp_path, "cifar100", "binary")
    assert read_cifar(tmp_path, "cifar10").classes == CIFAR10_CLASSES
    assert read_cifar(tmp_path, "cifar100").classes == CIFAR100_CLASSES
    assert len(set(CIFAR100_CLASSES)) == 100
    assert list(CIFAR100_CLASSES) == sorted(CIFAR100_CLASSES)


@pytest.mark.parametrize("form", ["binary", "pickled"])
def test_the_names_of_cifar100_come_from_its_own_file(tmp_path, form):
    place = write(tmp_path, "cifar100", form)
    names = [f"class {number}".replace(" ", "_") for number in range(100)]
    path = place / ("fine_label_names.txt" if form == "binary" else "meta")

    def put(names):
        data = "\n".join(names).encode() if form == "binary" else pickle.dumps({"fine_label_names": names}, protocol=2)
        path.write_bytes(data)

    put(names)
    assert read_cifar(tmp_path, "cifar100").classes == tuple(names)
    put(names[:99])
    with pytest.raises(DataError, match=f"{path.name} names 99 classes, not 100"):
        read_cifar(tmp_path, "cifar100")


def refusal(folder, name="cifar10"):
    with pytest.raises(DataError) as error:
        read_cifar(folder, name)
    return str(error.value)


@pytest.mark.parametrize(("name", "form"), FOLDERS)
def test_missing_and_damaged_files_are_named(tmp_path, name, form):
    assert f"does not hold {name}" in refusal(tmp_path, name)
    place = write(tmp_path, name, form)
    last = sorted(place.iterdir())[-1]
    whole = last.read_bytes()
    for damaged in (b"", whole[:-1], whole[: len(whole) // 3]):
        last.write_bytes(damaged)
        assert str(last) in refusal(tmp_path, name)
    last.unlink()
    assert refusal(tmp_path, name) == f"{last} is missing; extract the archive again"


def test_a_label_out_of_range_is_refused(tmp_path):
    place = write(tmp_path, "cifar10", "binary")
    (place / "test_batch.bin").write_bytes(bytes([10]) + bytes(3072))
    assert "test_batch.bin has labels from 10 to 10, not 0 to 9" in refusal(tmp_path)


class Reduces:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile_pickles(marker):
    """Yield pickles that would make a file at `marker`, or take the place of an array."""
    touch = f"open({str(marker)!r}, 'w').close()"
    yield pickle.dumps(Reduces(os.system, f"touch {marker}"))
    yield pickle.dumps({"data": Reduces(eval, touch), "labels": [0]})
    yield pickle.dumps({"data": Reduces(exec, touch), "labels": [0]}, protocol=5)
    yield pickle.dumps({"data": Reduces(Path.touch, marker), "labels": [0]})
    yield b"cos\nsystem\n(S'touch %s'\ntR." % str(marker).encode()
    yield b"(S'touch %s'\nios\nsystem\n." % str(marker).encode()
    yield b"\x80\x02cnumpy.testing._private.utils\nrunstring\n(S'%s'\n}tR." % touch.replace("'", '"').encode()
    yield pickle.dumps({"data": np.array([Reduces(os.system, f"touch {marker}")], object), "labels": [0]})
    yield pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0]}, protocol=5)  # numpy's newer pickles
    yield pickle.dumps({"data": np.zeros((1, 3072), np.float32), "labels": [0]}, protocol=2)
    yield pickle.dumps({"data": np.zeros((3072, 1), np.uint8), "labels": [0]}, protocol=2)
    yield pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": ["0"]}, protocol=2)
    yield pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [-1]}, protocol=2)
    yield pickle.dumps([1, 2, 3])
    yield b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR}b."
    yield b"\x80\x02cnumpy\ndtype\n}(X\x01\x00\x00\x00aK\x01ub."
    yield b"(" * 100_000
    yield b"\x80\x02" + b"\x8c\xff"
    yield b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f."


HOSTILE = len(list(hostile_pickles(Path("marker"))))


@pytest.mark.parametrize("number", range(HOSTILE))
def test_hostile_pickles_do_nothing_and_are_named(tmp_path, number):
    place = write(tmp_path, "cifar10", "pickled")
    marker = tmp_path / "marker"
    (place / "data_batch_3").write_bytes(list(hostile_pickles(marker))[number])
    assert "data_batch_3" in refusal(tmp_path)
    assert not marker.exists()


def test_what_a_hostile_pickle_asks_for_is_named(tmp_path):
    place = write(tmp_path, "cifar10", "pickled")
    (place / "data_batch_1").write_bytes(pickle.dumps({"data": Reduces(eval, "1"), "labels": []}, protocol=2))
    assert "it asks for __builtin__.eval, which CIFAR's files do not" in refusal(tmp_path)


def test_the_hostile_pickles_would_work_elsewhere(tmp_path):
    pickle.load(io.BytesIO(next(hostile_pickles(tmp_path / "marker"))))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize(("name", "form"), FOLDERS)
def test_a_folder_in_an_official_layout_is_known_without_its_name(tmp_path, name, form):
    place = write(tmp_path, name, form)
    assert (kind_of(place), kind_of(tmp_path)) == (name, None)
    found = parse_data(str(place))
    assert (found.name, found.path) == (name, str(place))
    next(place.glob("test*")).unlink()
    assert kind_of(place) is None
