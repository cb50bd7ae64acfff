"""Shapes are checked in every test; figures and threads are kept small; drawn examples are the same in every run."""

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
import shutil  # noqa: E402
import signal  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402
from PIL import Image  # noqa: E402

from mixlab.spec import DataSpec  # noqa: E402

os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts in the background ignore it
settings.register_profile("repeatable", derandomize=True)  # others: make test, then pytest --hypothesis-profile=default
settings.load_profile("repeatable")


@pytest.fixture
def spec() -> DataSpec:
    return DataSpec(image_size=16, classes=("a", "b", "c"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 2 classes, each with 20 pictures of 18 x 16 pixels that a tiny network can tell apart, for all."""
    generator = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("drawn") / "pictures"
    for name, color in (("blue", (40, 40, 200)), ("red", (200, 40, 40))):
        (root / name).mkdir(parents=True)
        for index in range(20):
            pixels = np.array(color) + generator.integers(-40, 40, (16, 18, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index}.png")
    return root


@pytest.fixture
def pictures(drawn: Path, tmp_path: Path) -> Path:
    """A copy of `drawn` that a test may change."""
    return shutil.copytree(drawn, tmp_path / "pictures")


@pytest.fixture
def others(drawn: Path, tmp_path: Path) -> Path:
    """A folder of as many pictures of the same classes that no model has learned, by their names."""
    shutil.copytree(drawn, tmp_path / "others")
    for path in (tmp_path / "others").glob("*/*.png"):
        path.rename(path.with_name(f"other-{path.name}"))
    return tmp_path / "others"


@pytest.fixture(scope="session")
def tiny_on() -> Callable[[Path], dict]:
    """Return the values of an experiment on a folder that takes about a second."""
    return lambda folder: {
        "data": {"name": str(folder), "image_size": 16},
        "model": {"name": "convmixer", "dim": 8, "depth": 2, "kernel_size": 3},
        "epochs": 2,
        "batch_size": 8,
        "optimizer": "adamw",  # in so few steps Muon has not learned two colours for sure
    }


@pytest.fixture
def tiny(tiny_on: Callable[[Path], dict], pictures: Path) -> dict:
    return tiny_on(pictures)
