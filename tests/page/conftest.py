"""Folders that `mixlab export RUN --to web` would write, on a static host, and the browser that opens them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mixlab
from mixlab import api
from mixlab.errors import RunError
from mixlab.exporting.web_runtime import web_runtime
from mixlab.run import bundle
from mixlab.run.bundle import Bundle
from mixlab.run.folder import Run
from tests.page.asking import classes_of, static_host
from tests.page.chromium import Chromium, find_chromium


@pytest.fixture(scope="session")
def runtime() -> None:
    try:
        web_runtime(download=shutil.which("npm") is not None)
    except RunError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def photographs() -> list[Image.Image]:
    """Fifty pieces of two photographs, of many sizes and shapes."""
    images = pytest.importorskip("sklearn.datasets").load_sample_images().images
    draw = np.random.default_rng(0)
    pieces = []
    for index in range(50):
        whole = Image.fromarray(images[index % 2])
        width, height = draw.integers(20, 300, 2)
        left, upper = draw.integers(0, (whole.width - width, whole.height - height))
        pieces.append(whole.crop((left, upper, left + width, upper + height)))
    return pieces


def page_folder(run: Run, folder: Path, data: str) -> Path:
    """Export a run whose answers below 0.7 count as not known."""
    found = bundle.read_bundle(run)
    found = Bundle(found.description.model_copy(update={"reject_below": 0.7}), found.state)
    bundle.write_bundle(folder.with_name("bundle"), found, "")
    api.export(folder.with_name("bundle"), "web", data=data, images=32, out=folder)
    return folder


@pytest.fixture(scope="session", params=["crop", "pad", "squash"])
def photo_run(request, photographs, runtime, tmp_path_factory) -> Iterator[tuple[Run, str, Path]]:
    place = tmp_path_factory.mktemp(request.param)
    data = {"name": str(classes_of(photographs, place / "data")), "image_size": 32, "resize_mode": request.param}
    model = {"name": "convmixer", "dim": 16, "depth": 2, "kernel_size": 3, "patch_size": 4}
    run = mixlab.train(data=data, model=model, epochs=4, batch_size=16, out=place / "runs", precision="float32")
    with static_host(folder := page_folder(run, place / "web", str(place / "data"))) as address:
        yield run, address, folder


@pytest.fixture(scope="session")
def digits(runtime, tmp_path_factory) -> Iterator[tuple[Run, str, Path]]:
    place = tmp_path_factory.mktemp("digits")
    run = mixlab.train(data="digits", optimizer="adamw", epochs=2, out=place / "runs", precision="float32")
    with static_host(folder := page_folder(run, place / "web", "digits")) as address:
        yield run, address, folder


@pytest.fixture
def browser() -> Iterator[Chromium]:
    if find_chromium() is None:
        pytest.skip("Chromium is not installed")
    with Chromium() as browser:
        yield browser
