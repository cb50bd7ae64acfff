"""A small training that uses whatever can go wrong, and its result without any fault."""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from mixlab.config import flatten
from mixlab.experiment import Experiment, parse_experiment
from mixlab.run.folder import Run
from mixlab.training.session import Options
from mixlab.training.train import train
from torture.exact_resume import draw_pictures, fingerprint

VALUES: dict[str, Any] = {
    "model": {"name": "convmixer", "dim": 8, "depth": 2, "kernel_size": 3, "dropout": 0.1},
    "epochs": 3,
    "batch_size": 8,
    "accumulate": 1,
    "precision": "float32",
    "weight_average": 0.9,
    "augmentation": {"horizontal_flip": {"probability": 0.5}, "mix": {"mixup": 0.4}},
}


def prepared(root: Path, each: int = 12) -> Path:
    """Draw the pictures of the training, and return their folder."""
    draw_pictures(root / "pictures", each)
    return root / "pictures"


def experiment(pictures: Path, **values: Any) -> Experiment:
    return parse_experiment(VALUES | {"data": {"name": str(pictures), "image_size": 16}} | values)


def command(root: Path, pictures: Path, *flags: str, image_size: int = 16, **values: Any) -> list[str]:
    """Return the words of the command that trains the same into the same folder of `root`."""
    values = VALUES | {"data": {"name": "folder", "path": str(pictures), "image_size": image_size}} | values
    lines = [f"{key} = {json.dumps(value)}" for key, value in flatten(values).items()]
    (root / "recipe.toml").write_text("\n".join(lines))
    return ["train", "-c", "recipe.toml", "--device", "cpu", "--quiet", "--name", "run", *(flags or ("--workers", "0"))]


def options(root: Path) -> Options:
    return Options(device="cpu", workers=0, out=root / "runs", name="run", quiet=True)


def trained(root: Path, pictures: Path, **values: Any) -> Run:
    torch.set_num_threads(1)  # as in the processes that are compared with it
    return train(experiment(pictures, **values), options(root))


def result(run: Run) -> str:
    """Return the SHA-256 of everything that no fault may change."""
    return fingerprint(run.folder)


@functools.cache
def without_fault(each: int = 12, precision: str = "float32") -> str:
    """Return the result of the training that nothing happened to; it is trained once."""
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        return result(trained(Path(folder), prepared(Path(folder), each), precision=precision))
