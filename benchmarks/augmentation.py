"""Images a second through mixlab's augmentation and through timm's on Pillow, one thread each.

    OMP_NUM_THREADS=1 python benchmarks/augmentation.py

mixlab: a uint8 batch to augmented, normalised floats, with every operation enabled, drawing included. timm (optional;
no dependency of mixlab): Pillow images to a normalised batch through `create_transform` with its defaults for
training: random resized crop (bilinear), horizontal flip, RandAugment with 2 operations (each applied half the time),
random erasing. Both are measured in turn, in seconds of this process's CPU time; the figures are medians.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from mixlab.data.augmentation import augment
from mixlab.data.augmentation_config import AugmentationConfig
from mixlab.data.draws import draw
from mixlab.spec import DataSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((32, 512), (224, 64))  # side in pixels, images in a batch
LIKE_TIMM = {
    "resized_crop": {"scale": (0.08, 1.0), "ratio": (0.75, 1.3333)},
    "horizontal_flip": {"probability": 0.5},
    "rand_augment": {"operations": 2, "magnitude": 9.0},
    "random_erasing": {"probability": 0.25},
}
EVERYTHING = LIKE_TIMM | {
    "pad_crop": {"padding": 4},
    "vertical_flip": {"probability": 0.5},
    "zoom": {"amount": 0.2},
    "rotation": {"turns": 0.1},
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
    "random_grayscale": {"probability": 0.2},
    "coarse_dropout": {"size": 0.25},
    "mix": {"mixup": 0.8, "cutmix": 1.0},
}


def mixlab_batches(values: dict, pixels: np.ndarray) -> Callable[[int], None]:
    """Return a function that augments the batch as training step number `step` would."""
    config, images = AugmentationConfig.parse(values), torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    count, size = images.shape[0], images.shape[-1]
    spec = DataSpec(image_size=size, classes=tuple(str(number) for number in range(10)), mean=MEAN, std=STD)
    targets = torch.eye(10)[torch.arange(count) % 10]
    mean, std = torch.tensor(MEAN).view(-1, 1, 1), torch.tensor(STD).view(-1, 1, 1)

    def one_batch(step: int) -> None:
        out, _ = augment(config, spec, images, targets, draw(config, size, np.arange(count), 0, step, 0))
        out.sub_(mean).div_(std)

    return one_batch


def import_timm() -> Callable[..., Any] | None:
    """Return timm's `create_transform`, or None where timm does not import.

    Where torchvision's compiled part does not fit torch (as beside its CPU build), its Python part still imports once
    these two operators are declared.
    """
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        from timm.data import create_transform  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:
        print(f"timm does not import ({error}): measuring mixlab only", file=sys.stderr)
        return None
    return create_transform


def timm_batches(create_transform: Callable[..., Any], pixels: np.ndarray) -> Callable[[int], None]:
    """Return a function that sends the batch through timm's transforms, image by image."""
    options = {"auto_augment": "rand-m9-n2", "re_prob": 0.25, "interpolation": "bilinear", "mean": MEAN, "std": STD}
    transform = create_transform(pixels.shape[1], is_training=True, **options)
    images = [Image.fromarray(image) for image in pixels]

    def one_batch(_: int) -> None:
        torch.stack([transform(image) for image in images])

    return one_batch


def measure(works: dict[str, Callable[[int], None]], rounds: int, count: int) -> dict[str, float]:
    """Return the median images a CPU second of each work; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for step in range(rounds + 1):
        for name, work in works.items():
            started = time.process_time()
            work(step)
            seconds[name].append(time.process_time() - started)
    return {name: count / statistics.median(times[1:]) for name, times in seconds.items()}  # the first warms up


def main() -> None:
    parser = argparse.ArgumentParser(description="Images a CPU second through augmentation, one thread.")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    create_transform = import_timm()
    results = {}
    for size, count in SIZES:
        pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        works = {"everything": mixlab_batches(EVERYTHING, pixels), "like timm": mixlab_batches(LIKE_TIMM, pixels)}
        if create_transform:
            works["timm"] = timm_batches(create_transform, pixels)
        results[size] = measure(works, chosen.rounds, count)
    print(json.dumps(results) if chosen.json else table(results))


def table(results: dict[int, dict[str, float]]) -> str:
    """Write images a CPU second, and the ratios to timm's."""
    lines = ["images a CPU second" + "".join(f"{f'{count} x {size} px':>16}" for size, count in SIZES)]
    for name in results[32]:
        lines.append(f"{name:19}" + "".join(f"{results[size][name]:16,.0f}" for size, _ in SIZES))
    for name in ("everything", "like timm") if "timm" in results[32] else ():
        ratios = [results[size][name] / results[size]["timm"] for size, _ in SIZES]
        lines.append(f"{name + ' / timm':19}" + "".join(f"{ratio:16.2f}" for ratio in ratios))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
