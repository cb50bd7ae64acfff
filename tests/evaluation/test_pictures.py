"""Claims about pictures: each is written, is a PNG, and warns of nothing, whatever the classes are called."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mixlab.errors import DataError
from mixlab.evaluation import pictures
from mixlab.evaluation.calibration import softmax
from mixlab.evaluation.metrics import Metrics, measure
from mixlab.evaluation.metrics import reliability as sort_into_bins

pytestmark = pytest.mark.filterwarnings("error")
CLASS_COUNTS = pytest.mark.parametrize("classes", [2, 10, 100])
DPI = 50  # a third of what people get, to be quick
AWKWARD = [
    "hen at $5",
    "$",
    r"$\frac$",
    "two\nlines",
    "_^{\\",
    "",
    "x" * 300,
    "American Staffordshire terrier, Staffie",
]


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "DPI", DPI)


def names(count: int) -> tuple[str, ...]:
    return tuple(AWKWARD[index] if index < len(AWKWARD) else f"class {index}" for index in range(count))


def predictions(classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return logits (images, classes) and labels; the last class is absent, and the first never predicted."""
    generator = np.random.default_rng(classes)
    labels = generator.integers(max(classes - 1, 1), size=4 * classes)
    logits = generator.normal(size=(len(labels), classes)) + 3 * np.eye(classes)[labels]
    logits[:, 0] = -50
    return logits, labels


def metrics(classes: int) -> Metrics:
    logits, labels = predictions(classes)
    return measure(softmax(logits), labels, names(classes))


def size_in_pixels(path: Path) -> tuple[int, int]:
    """Return width and height from the head of a PNG file."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


@CLASS_COUNTS
def test_confusion_is_written_and_grows_with_the_classes(tmp_path: Path, classes: int) -> None:
    pictures.confusion(tmp_path / "confusion.png", metrics(classes))
    assert min(size_in_pixels(tmp_path / "confusion.png")) > DPI * min(0.15 * classes, 16)


def test_confusion_of_very_many_classes_stays_viewable(tmp_path: Path) -> None:
    pictures.confusion(tmp_path / "confusion.png", metrics(300))
    assert max(size_in_pixels(tmp_path / "confusion.png")) < DPI * 25


@CLASS_COUNTS
def test_per_class_is_written(tmp_path: Path, classes: int) -> None:
    pictures.per_class(tmp_path / "per_class.png", metrics(classes))
    assert size_in_pixels(tmp_path / "per_class.png")[1] > DPI * 0.15 * classes


def test_per_class_of_very_many_classes_shows_the_lowest(tmp_path: Path) -> None:
    pictures.per_class(tmp_path / "per_class.png", metrics(300))
    assert size_in_pixels(tmp_path / "per_class.png")[1] < DPI * 25


@CLASS_COUNTS
def test_reliability_is_written(tmp_path: Path, classes: int) -> None:
    logits, labels = predictions(classes)
    before, after = (sort_into_bins(softmax(logits, temperature), labels) for temperature in (1.0, 1.7))
    pictures.reliability(tmp_path / "reliability.png", before, after, 1.7)
    assert min(size_in_pixels(tmp_path / "reliability.png")) > DPI * 4


TRAINING = {"epoch": 1, "train_loss": 2.0, "train_top1": 0.2, "learning_rate": 0.01}
VALIDATION = {"validation_loss": 1.8, "validation_top1": 0.3}


@pytest.mark.parametrize(
    "rows",
    [
        [TRAINING],
        [TRAINING | VALIDATION],
        [TRAINING | {"epoch": epoch} | (VALIDATION if epoch % 2 else {}) for epoch in range(1, 51)],
        [TRAINING | VALIDATION | {"epoch": 0.5, "learning_rate": 0.0}, TRAINING | {"epoch": 1.0}],
        [{"epoch": 1, "learning_rate": 0.1}],
    ],
    ids=["one epoch", "one validated", "every second validated", "parts of epochs", "rate alone"],
)
def test_curves_are_written(tmp_path: Path, rows: list[dict[str, float]]) -> None:
    pictures.curves(tmp_path / "curves.png", rows)
    assert min(size_in_pixels(tmp_path / "curves.png")) > DPI * 4


def test_curves_of_no_epoch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no epoch"):
        pictures.curves(tmp_path / "curves.png", [])


def draw_gallery(path: Path, count: int, shape: tuple[int, int, int], classes: int) -> None:
    generator = np.random.default_rng(count)
    images = generator.integers(256, size=(count, *shape), dtype=np.uint8)
    labels, predicted = generator.integers(classes, size=(2, count))
    pictures.gallery(path, images, labels, predicted, generator.random(count), names(classes), "$ome mi$takes")


@pytest.mark.parametrize(
    ("count", "shape", "classes"),
    [(1, (8, 8, 1), 2), (13, (28, 28, 1), 10), (10, (32, 32, 3), 100), (3, (40, 90, 3), 10)],
)
def test_gallery_is_written(tmp_path: Path, count: int, shape: tuple[int, int, int], classes: int) -> None:
    draw_gallery(tmp_path / "gallery.png", count, shape, classes)
    assert size_in_pixels(tmp_path / "gallery.png")[1] > DPI


def test_gallery_shows_no_more_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "GALLERY_IMAGES", 2)
    for count in (2, 20):
        draw_gallery(tmp_path / f"{count}.png", count, (8, 8, 3), 2)
    assert size_in_pixels(tmp_path / "2.png") == size_in_pixels(tmp_path / "20.png")


@pytest.mark.parametrize("lengths", [(0, 0), (3, 2)])
def test_gallery_refuses_nothing_and_lengths_that_differ(tmp_path: Path, lengths: tuple[int, int]) -> None:
    images, labels = np.zeros((lengths[0], 4, 4, 3), np.uint8), np.zeros(lengths[1], int)
    with pytest.raises(DataError, match="at least 1"):
        pictures.gallery(tmp_path / "gallery.png", images, labels, labels, labels * 0.5, names(2), "none")


def test_no_figure_is_left_in_global_state(tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pictures.confusion(tmp_path / "new folder" / "confusion.png", metrics(2))
    assert pyplot.get_fignums() == []


def test_the_same_numbers_give_the_same_file(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        pictures.per_class(tmp_path / name, metrics(10))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
