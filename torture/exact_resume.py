"""T1: trainings killed at random moments and resumed end byte-identical to the uninterrupted one.

Each case has its own seed and uses every augmentation, mixing, dropout, drop-path, a weight average and accumulation;
every second one computes in bfloat16. Each is killed twice with SIGKILL at a random moment, and the number of worker
processes is drawn anew at each start. Compared are the SHA-256 of the last checkpoint (weights, average, optimiser,
best weights), the shipped weights, the metrics and the summary.
"""

import hashlib
import random
import signal
import time
from pathlib import Path

import numpy as np
from PIL import Image

from torture import processes
from torture.check import Check

RECIPE = """
epochs = 6
batch_size = 16
accumulate = 2
label_smoothing = 0.1
weight_average = 0.95
precision = "{precision}"
seed = {seed}
[data]
name = "{pictures}"
image_size = 24
canvas_scale = 1.25
[model]
name = "convmixer"
dim = 24
depth = 3
kernel_size = 5
dropout = 0.1
drop_path = 0.1
[augmentation]
resized_crop = {{ scale = [0.5, 1.0], ratio = [0.75, 1.333] }}
pad_crop = {{ padding = 2 }}
horizontal_flip = {{ probability = 0.5 }}
vertical_flip = {{ probability = 0.1 }}
zoom = {{ amount = 0.1 }}
rotation = {{ turns = 0.05 }}
rand_augment = {{ operations = 2, magnitude_deviation = 2.0, probability = 0.8 }}
color_jitter = {{ brightness = 0.3, contrast = 0.3, saturation = 0.3 }}
random_grayscale = {{ probability = 0.2 }}
random_erasing = {{ probability = 0.3 }}
coarse_dropout = {{ size = 0.25 }}
mix = {{ mixup = 0.4, cutmix = 1.0, probability = 0.8 }}
"""


def draw_pictures(folder: Path, each: int = 80) -> None:
    """Make 3 classes of noisy pictures of 32 x 30 pixels."""
    generator = np.random.default_rng(0)
    for number in range(3):
        (folder / f"class{number}").mkdir(parents=True)
        for index in range(each):
            pixels = generator.integers(0, 200, (30, 32, 3))
            pixels[:, :, number] += 55
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"class{number}" / f"{index}.jpg")


def command(recipe: Path, out: Path, workers: int) -> list[str]:
    flags = ["--workers", str(workers), "--stream", "--save-every", "1s", "--name", "run", "--quiet"]
    return ["train", "-c", str(recipe), "--out", str(out), "--device", "cpu", *flags]


def fingerprint(run: Path) -> str:
    """Return the SHA-256 of everything that must not depend on interruptions."""
    newest = max((run / "checkpoints").glob("0*"))
    files = [newest / "tensors.safetensors", newest / "state.json", run / "bundle" / "model.safetensors"]
    files += [run / name for name in ("metrics.jsonl", "metrics.csv", "summary.json")]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def kill_at(words: list[str], folder: Path, moment: float) -> bool:
    """Start a command, kill it after `moment` seconds, and return whether it was still running."""
    process = processes.start(words, folder)
    running = not process.wait(moment)
    process.send(signal.SIGKILL)
    process.wait(10)
    return running


def case(number: int, root: Path) -> str:
    """Train once uninterrupted, once killed twice, and compare."""
    draw_pictures(root / "pictures")
    recipe = write_recipe(root / "recipe.toml", number, root / "pictures")
    return compare(number, root, recipe, recipe)


def write_recipe(path: Path, number: int, pictures: Path) -> Path:
    """Write the recipe of a case, on a folder of pictures or shards."""
    precision = ("float32", "bfloat16")[number % 2]
    path.write_text(RECIPE.format(precision=precision, seed=number, pictures=pictures))
    return path


def compare(number: int, root: Path, whole: Path, broken: Path) -> str:
    """Train one recipe uninterrupted and another, which must give the same, with two kills."""
    dice, started = random.Random(number), time.monotonic()
    _train(command(whole, root / "whole", workers=0), root)
    length = time.monotonic() - started
    kills = 0
    for _ in range(2):
        words = command(broken, root / "broken", dice.randrange(4))
        kills += kill_at(words, root, dice.uniform(0.1, 0.8) * length)
    _train(command(broken, root / "broken", dice.randrange(4)), root)
    same = fingerprint(root / "whole" / "run") == fingerprint(root / "broken" / "run")
    return "" if same else f"the run differs after {kills} kills"


def _train(words: list[str], folder: Path) -> None:
    process = processes.ended(words, folder)
    if process.code != 0:
        raise RuntimeError(f"exit code {process.code}: {process.text()}")


CHECKS = [
    Check(
        name="T1",
        claim="a training killed twice with SIGKILL and resumed ends byte-identical to the uninterrupted one",
        case=case,
        full=100,
        sample=5,
        others="Lightning 0 of 16, timm 0; transformers and ignite at epoch ends only",
    )
]
