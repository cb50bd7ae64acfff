"""What `make demo` does: train ConvMixer on real handwriting, measure it, classify single pictures.

Each step prints the command that does the same.
"""

import subprocess
import sys
from pathlib import Path

from PIL import Image

import mixlab
from mixlab.data.catalogue import parse_data
from mixlab.data.images import MemoryImages

PICTURES = Path("runs/demo-pictures")


def command(*words: str) -> None:
    """Run one mixlab command as a person would."""
    print(f"\n$ mixlab {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "mixlab", *words], check=True)


def write_pictures() -> list[str]:
    """Write a test digit of each of five classes as a PNG file."""
    images = parse_data("digits").load(seed=0, carve_validation=True).test
    if not isinstance(images, MemoryImages):
        raise TypeError("digits are kept in memory")
    PICTURES.mkdir(parents=True, exist_ok=True)
    paths = []
    for digit in range(0, 10, 2):
        index = int((images.labels == digit).argmax())
        path = PICTURES / f"a-{digit}.png"
        Image.fromarray(images.images[index, 0].numpy()).resize((64, 64), Image.Resampling.NEAREST).save(path)
        paths.append(str(path))
    return paths


def main() -> None:
    command("train", "--data", "digits")
    run = mixlab.train(data="digits", quiet=True)  # the same experiment: returns the finished run
    command("evaluate", str(run.folder))
    command("predict", str(run.folder), *write_pictures())
    print(f"""
The run is in {run.folder}: curves in plots/, pictures of the test in evaluation/test/, the model in bundle/.
Next, with a folder of your own pictures in one folder per class:
  .venv/bin/mixlab train --data FOLDER --max-time 10m
  .venv/bin/mixlab predict runs/NAME picture.jpg""")


if __name__ == "__main__":
    main()
