"""What `make demo` does: compare four networks on real handwriting, and use the best one on single pictures.

Each step prints the command that does the same.
"""

import subprocess
import sys
from pathlib import Path

from PIL import Image

import mixlab
from mixlab.data.catalogue import parse_data
from mixlab.data.images import MemoryImages

MODELS = ("convmixer_64_4", "vit_64_4_patch2", "vit_64_4_patch2_conv", "resnet9")
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
    command("compare", "--data", "digits", "--models", ",".join(MODELS), "--seeds", "2")
    found = mixlab.compare(MODELS, data="digits", seeds=2, quiet=True)  # the same comparison: returns what is finished
    best = found.folder.parent / found.leaderboard.rows[0].runs[0].run
    command("predict", str(best), *write_pictures())
    print(f"""
The winner is in {best}; what ships of it is in bundle/.
The report of the comparison is {found.folder / "report.html"}
Next, with a folder of your own pictures in one folder per class:
  .venv/bin/mixlab compare --data FOLDER --models convmixer,vit,resnet9 --budget time=5m
  .venv/bin/mixlab train --data FOLDER --max-time 10m
  .venv/bin/mixlab predict runs/NAME picture.jpg""")


if __name__ == "__main__":
    main()
