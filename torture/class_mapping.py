"""D4: whatever the folders are called, a label means the class that the picture is of, or the data is refused by name.

Each class has its own colour, so that pixels, not paths, tell what a picture is of. A case lays out a folder, loads it
with several seeds, decodes every picture of every split, and compares its colour with the class that its label names.
The last two cases train: what ships and what is resumed has the list of classes.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mixlab.api import evaluate, load
from mixlab.data.catalogue import parse_data
from mixlab.data.data_set import DataSet
from mixlab.data.images import FileImages
from mixlab.errors import DataError
from mixlab.experiment import parse_experiment
from mixlab.run.bundle import read_bundle
from mixlab.run.checkpoint import load_newest
from mixlab.run.folder import Run
from mixlab.training.session import Options
from mixlab.training.train import resume, train
from torture.check import Check

COLORS = ((220, 30, 30), (30, 200, 30), (40, 40, 220), (230, 220, 40), (20, 20, 20))
SEEDS = (0, 1, 2)


def paint(root: Path, each: int = 6, **folders: int) -> None:
    """Fill folders with pictures in the colour of a number: paint(root, **{"train/cat": 0})."""
    for name, color in folders.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(each):
            noise = np.random.default_rng((color, index)).integers(-15, 16, (8, 8, 3))
            pixels = (np.array(COLORS[color]) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")


def shifted(data: DataSet, colors: dict[str, int]) -> str:
    """Return what is wrong with the classes of a data set, in which each class name has a colour; "" is right."""
    for split, images in data.splits.items():
        exact = replace(images, canvas_size=0) if isinstance(images, FileImages) else images
        batch = exact.batch(np.arange(len(images)))
        means = batch.images.float().mean((2, 3)) * 255
        seen = torch.cdist(means, torch.tensor(COLORS).float()).argmin(1).tolist()
        for index, color, label in zip(batch.indices, seen, batch.labels.tolist(), strict=True):
            name = data.spec.classes[label]
            if colors[name] != color:
                return f"{split} {images.names[index]} is of colour {color} and is labelled {name!r}"
    return ""


def right(root: Path, classes: tuple[str, ...], colors: dict[str, int], images: int, **fields: object) -> str:
    """Load a folder with several seeds; return what is wrong with its classes, labels or number of pictures."""
    for seed in SEEDS:
        data = parse_data({"name": str(root), "image_size": 8, **fields}).load(seed, carve_validation=True)
        if data.spec.classes != classes:
            return f"classes are {data.spec.classes}, not {classes}"
        names = [name for each in data.splits.values() for name in each.names]
        if len(names) != len(set(names)) or len(names) != images:
            return f"{len(names)} pictures, {len(set(names))} of them different, not {images}"
        if problem := shifted(data, colors):
            return problem
    return ""


def refused(root: Path, *words: str) -> str:
    """Return "" where the folder is refused with all of these words."""
    try:
        data = parse_data({"name": str(root), "image_size": 8}).load(0, carve_validation=True)
    except DataError as error:
        missing = [word for word in words if word not in str(error)]
        return f"the refusal does not name {missing}: {error}" if missing else ""
    return f"accepted, with classes {data.spec.classes}"


def validation_lacks_a_class(root: Path) -> str:
    paint(root, **{"train/a": 0, "train/b": 1, "train/c": 2, "val/c": 2, "test/b": 1})
    return right(root, ("a", "b", "c"), {"a": 0, "b": 1, "c": 2}, 30)


def validation_has_one_more(root: Path) -> str:
    paint(root, **{"train/b": 1, "train/c": 2, "val/a": 0, "val/c": 2, "test/b": 1})
    known = right(root, ("b", "c"), {"b": 1, "c": 2}, 24, ignore_unknown_classes=True)
    return known or refused(root, "validation", "'a'", "--ignore-unknown-classes")


def numeric_names(root: Path) -> str:
    paint(root, **{"train/1": 0, "train/2": 1, "train/10": 2, "test/10": 2, "test/2": 1})
    return right(root, ("1", "2", "10"), {"1": 0, "2": 1, "10": 2}, 30)


def case_collision(root: Path) -> str:
    paint(root, **{"train/Cat": 0, "train/dog": 1, "test/cat": 0})
    return refused(root, "'Cat'", "'cat'")


def unicode_collision(root: Path) -> str:
    names = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    paint(root, **{f"train/{names[0]}": 0, "train/dog": 1, f"test/{names[1]}": 0})
    return refused(root, *map(ascii, names))


def one_image(root: Path) -> str:
    paint(root, a=0, c=2)
    paint(root, each=1, b=1)
    return right(root, ("a", "b", "c"), {"a": 0, "b": 1, "c": 2}, 13)


def empty_folder(root: Path) -> str:
    paint(root, a=0, c=2)
    (root / "b").mkdir()
    notes = parse_data(str(root)).load(0, carve_validation=True).notes
    named = "" if any("b" in note.split() for note in notes) else f"the empty class is not named: {notes}"
    return named or right(root, ("a", "c"), {"a": 0, "c": 2}, 12)


def link_loop(root: Path) -> str:
    paint(root, **{"a": 0, "b/deep": 1})
    for link, target in (("a/loop", ".."), ("b/loop", "../b"), ("b/deep/other", "../../a"), ("z", ".")):
        (root / link).symlink_to(target, target_is_directory=True)
    return right(root, ("a", "b"), {"a": 0, "b": 1}, 12)


def csv_in_any_order(root: Path) -> str:
    paint(root, one=2, two=0, three=1)
    rows = [
        f"{split},{label},{folder}/{index}.png"
        for index in range(5, -1, -1)
        for split, label, folder in (("test" if index < 2 else "train", *pair) for pair in CSV_CLASSES)
        if not (split == "test" and label == "blue")
    ]
    (root / "labels.csv").write_text("\n".join(["split,class,file", *rows]))
    colors = {"red": 0, "green": 1, "blue": 2}
    return right(root, ("blue", "green", "red"), colors, 16, labels_csv="labels.csv")


CSV_CLASSES = (("red", "two"), ("green", "three"), ("blue", "one"))


def class_called_as_a_split(root: Path) -> str:
    paint(root, bus=0, test=1, train=2, val=3)
    return right(root, ("bus", "test", "train", "val"), {"bus": 0, "test": 1, "train": 2, "val": 3}, 24)


def renamed_classes(root: Path) -> str:
    paint(root, **{"train/n1": 0, "train/n2": 1, "train/n3": 2, "test/n3": 2, "test/n1": 0})
    names = {"n1": "zebra", "n2": "n3", "n3": "ape"}
    return right(root, ("zebra", "n3", "ape"), {"zebra": 0, "n3": 1, "ape": 2}, 30, rename=names)


def class_that_cannot_be_read(root: Path) -> str:
    paint(root, **{"train/a": 0, "train/b": 1, "train/c": 2, "test/c": 2, "test/b": 1})
    for path in (root / "train" / "b").iterdir():
        path.write_text("I am no picture")
    return right(root, ("a", "b", "c"), {"a": 0, "b": 1, "c": 2}, 30)


def _trained(root: Path) -> tuple[Run, Options]:
    paint(root / "data", 24, **{"train/1": 0, "train/2": 1, "train/10": 2})
    paint(root / "data", **{"val/10": 2, "val/2": 1, "test/2": 1, "test/1": 0})
    values = {"data": {"name": str(root / "data"), "image_size": 8}, "epochs": 6, "batch_size": 8}
    experiment = parse_experiment({**values, "model": {"name": "convmixer", "dim": 8, "depth": 1, "kernel_size": 3}})
    options = Options(device="cpu", workers=0, out=root / "runs", quiet=True)
    return train(experiment, options), options


def training_carries_its_classes(root: Path) -> str:
    """The bundle and each checkpoint have the classes; answers and an evaluation of other data use them."""
    run, _ = _trained(root)
    checkpoint, _ = load_newest(run)
    kept = [read_bundle(run).description.spec.classes, tuple(checkpoint.state["classes"]) if checkpoint else ()]
    if kept != [("1", "2", "10")] * 2:
        return f"classes of bundle and checkpoint: {kept}"
    paint(root / "other", **{"10": 2, "2": 1})
    classify = load(run.folder)
    for name, color in (("10", 2), ("2", 1)):
        answer = classify(root / "other" / name / "0.png").top(1)[0][0]
        if answer != name:
            return f"a picture of colour {color} is called {answer}, not {name}"
    top1 = evaluate(run, data=str(root / "other"), workers=0).metrics.top1.value
    return "" if top1 == 1 else f"top-1 of other data with fewer classes is {top1}"


def class_added_before_going_on(root: Path) -> str:
    """A class that sorts before all others would shift every label."""
    run, options = _trained(root)
    (run.folder / "summary.json").unlink()  # as if it had been stopped
    paint(root / "data", **{"train/0": 3})
    try:
        resume(run, options)
    except DataError as error:
        return "" if "train/0/" in str(error) else f"the refusal does not name the new class: {error}"
    return "a run went on although a class was added"


CASES: tuple[Callable[[Path], str], ...] = (
    validation_lacks_a_class,
    validation_has_one_more,
    numeric_names,
    case_collision,
    unicode_collision,
    one_image,
    empty_folder,
    link_loop,
    csv_in_any_order,
    class_called_as_a_split,
    renamed_classes,
    class_that_cannot_be_read,
    training_carries_its_classes,
    class_added_before_going_on,
)


def case(number: int, root: Path) -> str:
    """Run one layout of folders."""
    return CASES[number](root)


CHECKS = [
    Check(
        name="D4",
        claim="classes are mapped right or refused by name, whatever folders are called and splits lack",
        case=case,
        full=len(CASES),
        sample=13,
        quick=12,
    )
]
