"""The page of `mixlab serve` in real headless Chromium."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mixlab
from mixlab.run.folder import Run
from tests.page.asking import HOSTILE, ask, check_clean, classes_of, downloaded, furthest, saved

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(photographs, tmp_path_factory) -> Iterator[tuple[Run, str]]:
    place = tmp_path_factory.mktemp("served")
    data = {"name": str(classes_of(photographs, place / "data")), "image_size": 32, "resize_mode": "pad"}
    model = {"name": "convmixer", "dim": 16, "depth": 2, "kernel_size": 3, "patch_size": 4}
    run = mixlab.train(data=data, model=model, epochs=4, batch_size=16, out=place / "runs", precision="float32")
    command = [sys.executable, "-m", "mixlab", "serve", str(run.folder), "--port", "0", "--device", "cpu"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        lines = iter(server.stderr.readline, "")
        yield run, next(found[0] for line in lines if (found := re.search(r"http://\S+", line))).rstrip("/") + "/"
    finally:
        server.terminate()
        server.wait(30)
        server.stderr.close()


def test_the_page_shows_what_the_server_says(served, photographs, browser, tmp_path: Path):
    run, address = served
    files = saved(photographs[:20], tmp_path / "png")
    files[0] = files[0].rename(tmp_path / "png" / '日本 "1".png')
    browser.open(address)
    ask(browser, files)
    assert furthest(run, files, downloaded(browser, tmp_path)) < 1e-4
    assert browser.run("document.querySelectorAll('.card img[src^=data]').length") == 20
    assert browser.run("document.querySelectorAll('.card .heat:not([hidden])').length") == 20
    assert HOSTILE in browser.run("document.getElementById('answers').textContent")
    check_clean(browser, address)


def test_the_server_s_reason_for_an_unreadable_file_is_shown(served, browser, tmp_path: Path):
    _, address = served
    (tmp_path / "text.png").write_bytes(b"text")
    browser.open(address)
    ask(browser, [tmp_path / "text.png"])
    assert "not an image" in browser.run("document.querySelector('.broken .why').textContent")
    assert [line for line in browser.complaints if "422" not in line] == []  # Chromium notes the status
    assert browser.run("violations") == []
