"""The page in a browser, asked about files as a person would; its answers are read from the CSV it gives."""

import contextlib
import csv
import functools
import http.server
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

import mixlab
from mixlab.run.folder import Run
from tests.page.chromium import Chromium

HOSTILE = "<img src=x onerror=alert(1)>"  # the name of a class


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def static_host(folder: Path) -> Iterator[str]:
    """Serve a folder as any static host does and yield its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def ask(browser: Chromium, files: Sequence[Path], seconds: float = 120) -> None:
    """Put files into the page's input and wait until it has shown something for each."""
    before = browser.run("document.querySelectorAll('.card').length")
    browser.choose("#chooser", files)
    browser.wait(f"document.querySelectorAll('.card').length === {before + len(files)}", seconds)
    browser.wait("document.getElementById('stop').hidden")


def downloaded(browser: Chromium, folder: Path) -> list[dict[str, str]]:
    """Download the CSV and return its rows."""
    browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.run("document.getElementById('save').click()")
    until = time.monotonic() + 20
    while not (folder / "answers.csv").exists():
        assert time.monotonic() < until, "no answers.csv"
        time.sleep(0.05)
    with (folder / "answers.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def top(row: dict[str, str]) -> dict[str, float]:
    """Return the classes of a row and their probabilities, the best first."""
    places = [name.removeprefix("class_") for name in row if name.startswith("class_")]
    return {row[f"class_{place}"]: float(row[f"probability_{place}"]) for place in places if row[f"class_{place}"]}


def check_clean(browser: Chromium, address: str) -> None:
    """Nothing was complained of, refused, or asked of another host."""
    assert browser.complaints == []
    assert browser.run("violations") == []
    assert [url for url in browser.requests if not url.startswith((address, f"blob:{address}", "data:"))] == []


def furthest(run: Run, files: list[Path], rows: list[dict[str, str]]) -> float:
    """Compare the page's answers with Python's and return the largest difference of a probability."""
    classifier = mixlab.load(run.folder, device="cpu")
    assert [row["file"] for row in rows] == [file.name for file in files]
    largest = 0.0
    for file, row in zip(files, rows, strict=True):
        answer, found = classifier(file), {name.removeprefix("'"): share for name, share in top(row).items()}
        assert next(iter(found)) == answer.label
        expected = dict(zip(answer.classes, answer.probabilities, strict=True))
        largest = max(largest, *(abs(expected[name] - share) for name, share in found.items()))
    return largest


def classes_of(pictures: Sequence[Image.Image], root: Path) -> Path:
    """Save pictures in two folders, of names that must stay text."""
    for index, picture in enumerate(pictures):
        folder = root / (HOSTILE if index % 2 else "=china")
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{index}.png")
    return root


def saved(pictures: Sequence[Image.Image], folder: Path, suffix: str = ".png", **options: Any) -> list[Path]:
    folder.mkdir()
    files = [folder / f"{index}{suffix}" for index in range(len(pictures))]
    for file, picture in zip(files, pictures, strict=True):
        picture.save(file, **options)
    return files
