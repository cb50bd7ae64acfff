"""The exported page beside Python: how far its answers lie apart, and how long one takes in the browser.

    python -m benchmarks.page_answers RUN PICTURE...

The pictures are asked as they are, and once more as PNG of the same pixels.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from PIL import Image

from mixlab import api
from mixlab.run.folder import Run
from tests.page.asking import ask, downloaded, furthest, static_host
from tests.page.chromium import Chromium

TIMES = "[...document.querySelectorAll('.time')].map((time) => parseInt(time.textContent))"


def main(place: str, *names: str) -> None:
    run, files = Run(Path(place)), [Path(name) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        web = Path(folder) / "web"
        api.export(run.folder, "web", out=web)
        compare("as they are", run, web, files)
        compare("as PNG", run, web, [as_png(file, Path(folder)) for file in files])


def as_png(file: Path, folder: Path) -> Path:
    Image.open(file).convert("RGB").save(folder / f"{file.stem}.png")
    return folder / f"{file.stem}.png"


def compare(what: str, run: Run, web: Path, files: list[Path]) -> None:
    with static_host(web) as address, Chromium() as browser, tempfile.TemporaryDirectory() as folder:
        browser.open(address)
        ask(browser, files)
        largest = furthest(run, files, downloaded(browser, Path(folder)))
        times = browser.run(TIMES)
    print(f"{what}: {len(files)} pictures, the same classes, probabilities within {largest:.1e}")
    print(f"  median {statistics.median(times):.0f} ms, longest {max(times)} ms")


if __name__ == "__main__":
    main(*sys.argv[1:])
