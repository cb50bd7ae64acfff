"""Images a second of `mixlab train` on a folder of pictures, beside the network alone: what the data path costs.

    python benchmarks/data_path.py [FOLDER] [KEY=VALUE]...

Without a folder, or with "drawn", it draws 2,400 JPEGs of 500 x 375 pixels into a temporary one. The experiment is
that of `mixlab train --data FOLDER KEY=VALUE...`. Each way to get at the pictures trains one short epoch through the
loop of mixlab, all take turns, and the figures are medians of the rounds. "network alone" repeats the training step on
one batch that lies on the device. Where the network computes on the CPU, decoding takes time from it: "decoding, nobody
waits" is what can be left, 1 / (1 / network + seconds of decoding / cores).
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mixlab import devices
from mixlab.data import cache
from mixlab.data.data_set import DataSet
from mixlab.data.images import FileImages, Images
from mixlab.data.loading import in_memory
from mixlab.errors import DataError, MixlabError
from mixlab.experiment import Experiment, compose
from mixlab.run import timing
from mixlab.run.folder import Request, open_run
from mixlab.training.loop import train_to_end
from mixlab.training.plan import settle
from mixlab.training.progress import Screen
from mixlab.training.session import Options, Session
from mixlab.training.signals import StopSignals
from mixlab.training.state import fresh_model, state_of
from mixlab.training.step import train_step

DECODED = 256  # pictures that decoding is timed with
DRAWN = (1200, (375, 500))  # pictures of each of two classes; height and width


def draw(root: Path) -> Path:
    """Write JPEGs of blurred noise with a little grain, about as large as photographs of their size."""
    count, (height, width) = DRAWN
    for label, name in enumerate(("blue", "red")):
        (root / name).mkdir(parents=True)
        for index in range(count):
            generator = np.random.default_rng((label, index))
            coarse = Image.fromarray(generator.integers(0, 256, (height // 25, width // 25, 3), dtype=np.uint8))
            pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
            grain = generator.integers(-12, 13, (height, width, 1), dtype=np.int16)
            picture = Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))
            picture.save(root / name / f"{index}.jpg", quality=90)
    return root


def network_alone(experiment: Experiment, data: DataSet, device: torch.device) -> float:
    """Return the images a second of training steps on one batch."""
    state = state_of(fresh_model(experiment, data.spec), experiment, data, device)
    state.train_mode()
    batch = data.train.batch(np.arange(experiment.batch_size)).to(device)
    steps = experiment.steps(len(data.train))
    started = time.perf_counter()
    for _ in range(steps):
        train_step(state, experiment, data.spec, batch, rate=1e-4)
    state.is_finite()  # waits for the device
    return steps * experiment.batch_size / (time.perf_counter() - started)


def one_epoch(experiment: Experiment, data: DataSet, device: torch.device, workers: int) -> float:
    """Return the images a second that a training of one epoch writes down."""
    with tempfile.TemporaryDirectory() as place, Screen(None, quiet=True) as screen:
        run = open_run(Request(experiment=experiment), "run", Path(place), new=False)
        session = Session(run, experiment, Options(workers=workers), data, device, screen, StopSignals())
        train_to_end(session, state_of(fresh_model(experiment, data.spec), experiment, data, device))
        return timing.speed(run.timings())


def decoding(images: FileImages) -> float:
    """Return the CPU seconds that one picture takes to decode."""
    started = time.process_time()
    images.batch(np.linspace(0, len(images) - 1, DECODED).astype(np.int64))
    return (time.process_time() - started) / DECODED


def measure(works: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return the figures of all rounds; the works take turns, and a first one warms up."""
    for work in works.values():
        work()
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(work())
    return found


def ways(experiment: Experiment, files: FileImages, data: DataSet, device: torch.device) -> dict[str, Callable]:
    """Return what is measured: name -> a function that returns images a second."""
    held = in_memory(files, workers=2)
    packed = cache.fill(files, 2, print)
    if packed.packed is None:
        raise DataError("nothing is measured without the cache")

    def epoch(images: Images, workers: int = 0) -> Callable[[], float]:
        return lambda: one_epoch(experiment, replace(data, train=images), device, workers)

    return {
        "network alone": lambda: network_alone(experiment, replace(data, train=held), device),
        "from memory": epoch(held.to(device) if not isinstance(held, FileImages) else held),
        "from the cache": epoch(packed),
        **{f"decoded each epoch, {workers} workers": epoch(files, workers) for workers in (0, 1, 2)},
    }


def report(found: dict[str, list[float]], seconds: float, device: torch.device) -> dict[str, list[float]]:
    """Return the rows of the table: median, lowest and highest images a second, and the share of the network alone."""
    rows = {name: [statistics.median(figures), min(figures), max(figures)] for name, figures in found.items()}
    network = rows["network alone"][0]
    if device.type == "cpu":
        most = 1 / (1 / network + seconds / (os.cpu_count() or 1))
        rows["decoding, nobody waits"] = [most, most, most]
    return {name: [*row, row[0] / network] for name, row in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Images a second of training on a folder, beside the network alone.")
    parser.add_argument("folder", nargs="?", default="drawn", help="of pictures, or drawn")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the experiment, such as epochs=1")
    parser.add_argument("--images", type=int, default=2048, help="of one round of each way")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    chosen = parser.parse_args()
    try:
        rows, seconds = run(chosen)
    except MixlabError as error:
        raise SystemExit(f"error: {error}") from None
    print(json.dumps(rows) if chosen.json else table(rows, seconds))


def run(chosen: argparse.Namespace) -> tuple[dict[str, list[float]], float]:
    """Return the rows of the table, and the seconds of one core that a picture takes to decode."""
    device = devices.choose_device(chosen.device)
    with tempfile.TemporaryDirectory(prefix="mixlab-data-path-") as place:
        os.environ["MIXLAB_CACHE"] = f"{place}/cache"
        folder = draw(Path(place) / "pictures") if chosen.folder == "drawn" else Path(chosen.folder)
        experiment = settle(compose("", {"data": str(folder), "epochs": 1}, chosen.overrides), device)
        data = experiment.data.load(experiment.seed, carve_validation=True)
        spread = np.linspace(0, len(data.train) - 1, min(chosen.images, len(data.train))).astype(np.int64)
        files, nothing = data.train.select(spread), data.train.select(np.arange(0))
        if not isinstance(files, FileImages):
            raise DataError(f"{chosen.folder} is no folder of pictures")
        if len(files) < experiment.batch_size:
            raise DataError(f"{len(files)} training pictures are fewer than a batch; try batch_size={len(files)}")
        seconds = decoding(files)
        found = measure(ways(experiment, files, replace(data, train=files, validation=nothing), device), chosen.rounds)
    return report(found, seconds, device), seconds


def table(rows: dict[str, list[float]], seconds: float) -> str:
    """Write images a second and shares."""
    lines = [f"decoding one picture for training takes {seconds * 1e3:.2f} ms of one core", ""]
    lines.append(f"{'':34}{'img/s':>8}{'lowest':>8}{'highest':>8}{'share':>8}")
    for name, (median, low, high, share) in rows.items():
        lines.append(f"{name:34}{median:8,.0f}{low:8,.0f}{high:8,.0f}{share:8.1%}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
