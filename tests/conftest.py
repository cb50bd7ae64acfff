"""Shapes are checked in every test; figures and threads are kept small."""

import jaxtyping

SHAPED = [
    "models",
    "optim",
    "data.augmentation",
    "data.colors",
    "data.rand_augment",
    "data.resample",
    "data.images",
    "evaluation.explanation",
    "evaluation.inference",
    "training.step",
]
jaxtyping.install_import_hook([f"mixlab.{name}" for name in SHAPED], "beartype.beartype")

import os  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from mixlab.spec import DataSpec  # noqa: E402

os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start
torch.set_num_threads(1)


@pytest.fixture
def spec() -> DataSpec:
    return DataSpec(image_size=16, classes=("a", "b", "c"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 2 classes, each with 20 pictures of 18 x 16 pixels that a tiny network can tell apart."""
    generator = np.random.default_rng(0)
    root = tmp_path / "pictures"
    for name, color in (("blue", (40, 40, 200)), ("red", (200, 40, 40))):
        (root / name).mkdir(parents=True)
        for index in range(20):
            pixels = np.array(color) + generator.integers(-40, 40, (16, 18, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index}.png")
    return root


@pytest.fixture
def tiny(pictures: Path) -> dict:
    """Values of an experiment on `pictures` that takes about a second."""
    return {
        "data": {"name": str(pictures), "image_size": 16},
        "model": {"name": "convmixer", "dim": 8, "depth": 2, "kernel_size": 3},
        "epochs": 2,
        "batch_size": 8,
    }
