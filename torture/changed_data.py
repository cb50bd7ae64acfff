"""D6: data that changed since a run began is reported, by name, before the resumed run takes a step.

Each case trains a tiny network on 16 pictures of one size in bytes, stops it after 3 steps, changes the folder in one
way, and resumes. Every change of names, classes, splits or sizes must be refused, one that only the pixels
can show must be noted, and what is no change must be neither.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from mixlab.errors import DataError, Interrupted
from mixlab.experiment import parse_experiment
from mixlab.training import loop
from mixlab.training.session import Options
from mixlab.training.train import train
from torture.check import Check

STOP_AFTER = 3  # steps, of 12
REFUSED, NOTED, NOTHING = "the data changed since", "touched since the run began", ""


def draw(path: Path, dice: random.Random) -> None:
    """Write a picture of 12 x 12 pixels, as many bytes as every other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.frombuffer(dice.randbytes(432), np.uint8).reshape(12, 12, 3)).save(path)


def files(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.bmp"))


def add(root: Path, dice: random.Random) -> None:
    draw(root / "red" / "new.bmp", dice)


def remove(root: Path, dice: random.Random) -> None:
    dice.choice(files(root)).unlink()


def rename(root: Path, dice: random.Random) -> None:
    path = dice.choice(files(root))
    path.rename(path.with_name("other.bmp"))


def move_to_other_class(root: Path, dice: random.Random) -> None:
    path = dice.choice(files(root))
    path.rename(root / ("red" if path.parent.name == "blue" else "blue") / "moved.bmp")


def add_class(root: Path, dice: random.Random) -> None:
    draw(root / "green" / "0.bmp", dice)


def rename_class(root: Path, dice: random.Random) -> None:
    (root / "red").rename(root / "rose")


def truncate(root: Path, dice: random.Random) -> None:
    path = dice.choice(files(root))
    path.write_bytes(path.read_bytes()[:-50])


def lengthen(root: Path, dice: random.Random) -> None:
    path = dice.choice(files(root))
    path.write_bytes(path.read_bytes() + b"x")


def relabel(root: Path, dice: random.Random) -> None:
    _edit_labels(root, dice, ",red,", ",blue,")


def change_split(root: Path, dice: random.Random) -> None:
    _edit_labels(root, dice, ",train", ",validation")


def rename_class_in_labels(root: Path, dice: random.Random) -> None:
    _edit_labels(root, dice, ",red,", ",rose,", everywhere=True)


def rewrite(root: Path, dice: random.Random) -> None:
    draw(dice.choice(files(root)), dice)


def rewrite_with_old_time(root: Path, dice: random.Random) -> None:
    path = dice.choice(files(root))
    status = path.stat()
    draw(path, dice)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def swap_between_classes(root: Path, dice: random.Random) -> None:
    first, second = files(root)[0], files(root)[-1]
    first.rename(root / "aside")
    second.rename(first)
    (root / "aside").rename(second)


def replace_by_link(root: Path, dice: random.Random) -> None:
    path = dice.choice(files(root))
    draw(root.parent / "elsewhere.bmp", dice)
    path.unlink()
    path.symlink_to(root.parent / "elsewhere.bmp")


def copy_whole(root: Path, dice: random.Random) -> None:
    shutil.copytree(root, root.with_name("copy"))
    shutil.rmtree(root)
    root.with_name("copy").rename(root)


def nothing(root: Path, dice: random.Random) -> None:
    pass


def add_other_files(root: Path, dice: random.Random) -> None:
    (root / "red" / "notes.txt").write_text("not an image")
    (root / "red" / ".hidden.bmp").write_bytes(b"")


def read_every_file(root: Path, dice: random.Random) -> None:
    for path in files(root):
        path.read_bytes()


def _edit_labels(root: Path, dice: random.Random, old: str, new: str, everywhere: bool = False) -> None:
    path = root / "labels.csv"
    lines = path.read_text().splitlines()
    fitting = [place for place, line in enumerate(lines) if old in line]
    for place in fitting if everywhere else [dice.choice(fitting)]:
        lines[place] = lines[place].replace(old, new)
    path.write_text("\n".join(lines))


Change = Callable[[Path, random.Random], None]
CHANGES: tuple[tuple[Change, str], ...] = (
    (rewrite_with_old_time, NOTED),
    (remove, REFUSED),
    (add, REFUSED),
    (rename, REFUSED),
    (move_to_other_class, REFUSED),
    (add_class, REFUSED),
    (rename_class, REFUSED),
    (truncate, REFUSED),
    (lengthen, REFUSED),
    (relabel, REFUSED),
    (change_split, REFUSED),
    (rename_class_in_labels, REFUSED),
    (rewrite, NOTED),
    (swap_between_classes, NOTED),
    (replace_by_link, NOTED),
    (copy_whole, NOTED),
    (nothing, NOTHING),
    (add_other_files, NOTHING),
    (read_every_file, NOTHING),
)
WITH_LABELS = (relabel, change_split, rename_class_in_labels)


def case(number: int, root: Path) -> str:
    """Begin a run, change its data, go on."""
    change, expected = CHANGES[number % len(CHANGES)]
    dice, pictures = random.Random(number), root / "pictures"
    for name in ("blue", "red"):
        for index in range(8):
            draw(pictures / name / f"{index}.bmp", dice)
    rows = [f"{path.parent.name}/{path.name},{path.parent.name},train" for path in files(pictures)]
    (pictures / "labels.csv").write_text("\n".join([*rows[1:-1], *(row[:-5] + "validation" for row in rows[::15])]))
    values = _experiment(pictures, "labels.csv" if change in WITH_LABELS else "")
    _train(root, values)
    change(pictures, dice)
    steps, answer = _train(root, values)
    log = next((root / "runs").glob("*/train.log")).read_text()
    is_right = {
        REFUSED: REFUSED in answer and "such as" in answer and steps == 0,
        NOTED: NOTED in log and log.index(NOTED) < log.index("resumed") and steps == STOP_AFTER,
        NOTHING: NOTED not in log and steps == STOP_AFTER and not answer,
    }[expected]
    return "" if is_right else f"{change.__name__}: {steps} steps, {answer or log}"


def _experiment(pictures: Path, labels: str) -> dict:
    return {
        "data": {"name": str(pictures), "image_size": 8, **({"labels_csv": labels} if labels else {})},
        "model": {"name": "convmixer", "dim": 8, "depth": 1, "kernel_size": 3},
        "epochs": 6,
        "batch_size": 4,
        "precision": "float32",
    }


def _train(root: Path, values: dict) -> tuple[int, str]:
    """Train until STOP_AFTER steps are done; return how many were, and what stopped the training before."""
    taken, real = [], loop.train_step

    def counted(*arguments: object) -> None:
        if len(taken) == STOP_AFTER:
            raise Interrupted("a test")
        real(*arguments)  # pyright: ignore[reportArgumentType]
        taken.append(1)

    options = Options(device="cpu", workers=0, out=root / "runs", name="run", quiet=True)
    with mock.patch.object(loop, "train_step", counted):
        try:
            train(parse_experiment(values), options)
        except DataError as error:
            return len(taken), str(error)
        except Interrupted:
            return len(taken), ""
    return len(taken), "finished"


CHECKS = [
    Check(
        name="D6",
        claim="data that changed since a run began is refused or noted, by name, before the resumed run takes a step",
        case=case,
        full=3 * len(CHANGES),
        sample=len(CHANGES),
        quick=1,
    )
]
