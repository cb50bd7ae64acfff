"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from either official layout, as arrays.

The Python layout is made of pickles. They are read by an unpickler that calls nothing: what a pickle would call is
kept as plain values, of which only the shape of a uint8 array is understood.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import Unpickler, UnpicklingError
from typing import Any, Literal

import numpy as np

from mixlab.errors import DataError

CifarName = Literal["cifar10", "cifar100"]

# Both archives unpack into the Python layout.
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_DIGEST = "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CIFAR100_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
CIFAR100_DIGEST = "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_CLASSES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
    lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
    pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
    shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
    television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split()
)

_PIXELS = 3 * 32 * 32
_ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
_PICKLE_ERRORS = (
    UnpicklingError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)


@dataclass(frozen=True)
class CifarArrays:
    """A CIFAR data set; images are uint8 (n, 3, 32, 32), labels int64 (n,), names such as "data_batch_1/17"."""

    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    train_names: tuple[str, ...]
    test_images: np.ndarray
    test_labels: np.ndarray
    test_names: tuple[str, ...]


def read_cifar(folder: Path, name: CifarName) -> CifarArrays:
    """Read the official binary or Python layout; each file holds as many images as its size says.

    Args:
        folder: the layout's own folder (such as cifar-10-batches-bin), or the one that holds it.
        name: which of the two data sets.

    Raises:
        DataError: naming the file that is missing, damaged, or is a pickle of anything but arrays and containers.
    """
    layout, place = _find(folder, name)
    batches = {batch: _read_batch(place, layout, batch) for batch in (*layout.train, layout.test)}
    train_images, train_labels = zip(*(batches[batch] for batch in layout.train), strict=True)
    test_images, test_labels = batches[layout.test]
    return CifarArrays(
        classes=_classes(place, layout),
        train_images=np.concatenate(train_images),
        train_labels=np.concatenate(train_labels),
        train_names=tuple(f"{batch}/{index}" for batch in layout.train for index in range(len(batches[batch][1]))),
        test_images=test_images,
        test_labels=test_labels,
        test_names=tuple(f"{layout.test}/{index}" for index in range(len(test_labels))),
    )


@dataclass(frozen=True)
class _Layout:
    folder: str
    suffix: str  # of the batch files
    train: tuple[str, ...]
    test: str
    label_bytes: int  # before each image of the binary layout; the last of them is the class
    labels_key: str  # in the pickles
    names_file: str  # of the classes; "" where they are known
    classes: tuple[str, ...]

    @property
    def is_binary(self) -> bool:
        return self.suffix == ".bin"


_CIFAR10_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_LAYOUTS: dict[CifarName, tuple[_Layout, ...]] = {
    "cifar10": (
        _Layout("cifar-10-batches-bin", ".bin", _CIFAR10_TRAIN, "test_batch", 1, "", "", CIFAR10_CLASSES),
        _Layout("cifar-10-batches-py", "", _CIFAR10_TRAIN, "test_batch", 0, "labels", "", CIFAR10_CLASSES),
    ),
    "cifar100": (
        _Layout("cifar-100-binary", ".bin", ("train",), "test", 2, "", "fine_label_names.txt", CIFAR100_CLASSES),
        _Layout("cifar-100-python", "", ("train",), "test", 0, "fine_labels", "meta", CIFAR100_CLASSES),
    ),
}


def kind_of(folder: Path) -> CifarName | None:
    """Return which of the two data sets a folder itself holds, whole, in one of its official layouts."""
    for name, layouts in _LAYOUTS.items():
        for layout in layouts:
            if all(os.path.isfile(folder / f"{batch}{layout.suffix}") for batch in (*layout.train, layout.test)):
                return name
    return None


def _find(folder: Path, name: CifarName) -> tuple[_Layout, Path]:
    for layout in _LAYOUTS[name]:
        for place in (folder, folder / layout.folder):
            # Files, because a folder of images may well have a folder "train" in it.
            if any((place / f"{batch}{layout.suffix}").is_file() for batch in (*layout.train, layout.test)):
                return layout, place
    layout = _LAYOUTS[name][0]
    known = " or ".join(layout.folder for layout in _LAYOUTS[name])
    raise DataError(f"{folder} does not hold {name}: expected {layout.test}{layout.suffix} and the like, in {known}")


def _read_batch(place: Path, layout: _Layout, batch: str) -> tuple[np.ndarray, np.ndarray]:
    path = place / f"{batch}{layout.suffix}"
    if not path.is_file():
        raise DataError(f"{path} is missing; extract the archive again")
    images, labels = _read_binary(path, layout) if layout.is_binary else _read_pickled(path, layout)
    if len(labels) == 0:
        raise DataError(f"{path} holds no images")
    if labels.min() < 0 or labels.max() >= len(layout.classes):
        raise DataError(f"{path} has labels from {labels.min()} to {labels.max()}, not 0 to {len(layout.classes) - 1}")
    return images, labels


def _read_binary(path: Path, layout: _Layout) -> tuple[np.ndarray, np.ndarray]:
    values = np.fromfile(path, np.uint8)
    row = layout.label_bytes + _PIXELS
    if len(values) % row:
        raise DataError(f"{path} has {len(values)} bytes, which is no multiple of {row}; it is damaged or cut off")
    rows = values.reshape(-1, row)
    images = rows[:, layout.label_bytes :].reshape(-1, 3, 32, 32)
    return images.copy(), rows[:, layout.label_bytes - 1].astype(np.int64)


def _read_pickled(path: Path, layout: _Layout) -> tuple[np.ndarray, np.ndarray]:
    content = _unpickle(path)
    pixels = _array_bytes(content.get("data"))
    labels = content.get(layout.labels_key)
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise DataError(f"{path} has no list of numbers {layout.labels_key!r}")
    if len(pixels) != len(labels) * _PIXELS:
        raise DataError(f"{path} has {len(labels)} labels but no uint8 array of {len(labels)} x {_PIXELS} pixels")
    images = np.frombuffer(pixels, np.uint8).reshape(-1, 3, 32, 32)
    return images.copy(), np.array(labels, np.int64)


def _classes(place: Path, layout: _Layout) -> tuple[str, ...]:
    path = place / layout.names_file
    if not layout.names_file or not path.is_file():
        return layout.classes
    names = _names_from_text(path) if layout.is_binary else _unpickle(path).get("fine_label_names")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{path} holds no list of class names")
    if not len(set(names)) == len(names) == len(layout.classes):
        raise DataError(f"{path} names {len(set(names))} classes, not {len(layout.classes)}")
    return tuple(names)


def _names_from_text(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except UnicodeDecodeError:
        raise DataError(f"{path} is not text") from None


class _Recorded:
    """What a pickle calls, with its arguments and the state given to it, kept without doing any of it."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _PlainUnpickler(Unpickler):
    """Knows plain containers and the parts of a numpy array; every call that a pickle asks for is only recorded."""

    def find_class(self, module_name: str, global_name: str, /) -> Callable[..., _Recorded]:
        if (module_name, global_name) not in _ARRAY_PARTS:
            raise UnpicklingError(f"it asks for {module_name}.{global_name}, which CIFAR's files do not")
        return _Recorded


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file, encoding="latin1").load()  # the official files are from Python 2
    except _PICKLE_ERRORS as error:
        raise DataError(f"cannot read {path} as a CIFAR file: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"cannot read {path} as a CIFAR file: it holds no dictionary")
    return content


def _array_bytes(value: object) -> bytes:
    """Return the content of a recorded numpy array in C order, or b"" for anything but a plain uint8 one."""
    if not isinstance(value, _Recorded):
        return b""
    match value.state:
        case (_, (int(), int(columns)), _Recorded(arguments=("u1" | "|u1" | "uint8", *_)), False | 0, data):
            return _plain_bytes(data) if columns == _PIXELS else b""
    return b""


def _plain_bytes(data: object) -> bytes:
    """Return bytes, or the text that Python 2's bytes become where they are read as latin1."""
    match data:
        case bytes():
            return data
        case str(text) | _Recorded(arguments=(str(text), "latin1")):
            with contextlib.suppress(UnicodeEncodeError):  # damaged
                return text.encode("latin1")
    return b""
