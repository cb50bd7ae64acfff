"""A picture of what a network will see: some training images of each class, as evaluated and as trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mixlab.data.data_set import DataSet
from mixlab.data.images import Batch, FileImages
from mixlab.evaluation.inference import as_input, as_pixels, as_training_input
from mixlab.evaluation.pictures import save, short
from mixlab.experiment import Experiment

CLASSES = 20  # shown at most
EACH = 3  # images of a class
TRIED = 12  # images of a class that are tried, where some cannot be read
EPOCHS = 2  # first epochs whose alterations are shown
SIDE = 96  # of an image on the sheet, pixels, at least
GAP = 6


def contact_sheet(path: Path, experiment: Experiment, data: DataSet) -> None:
    """Draw a row for each class, the same images in each part of it; of many classes 20, evenly spread."""
    shown = np.unique(np.linspace(0, data.spec.num_classes - 1, CLASSES).round().astype(int))
    chosen = np.concatenate([_some_of(data, label) for label in shown])
    parts = {"as evaluated": _evaluated(data, chosen)}
    parts |= {f"in training, epoch {epoch + 1}": _altered(experiment, data, chosen, epoch) for epoch in range(EPOCHS)}
    labels = data.train.labels[chosen]
    sheet = np.concatenate([_part(pixels, [labels == label for label in shown]) for pixels in parts.values()], axis=1)
    left_out = data.spec.num_classes - len(shown)
    title = f"{short(experiment.data.label, 60)}: what the network sees, {data.spec.image_size} pixels"
    title += f"; {left_out} more classes are not shown" if left_out else ""
    _draw(path, sheet, [data.spec.classes[label] for label in shown], list(parts), title)


def _some_of(data: DataSet, label: int) -> NDArray[np.int64]:
    """Return a few readable images of a class, evenly spread."""
    members = np.flatnonzero(data.train.labels == label)
    spread = np.linspace(0, len(members) - 1, min(TRIED, len(members))).astype(int)
    spread = spread[np.argsort(np.arange(len(spread)) % (TRIED // EACH), kind="stable")]  # far from each other first
    return data.train.batch(members[spread]).indices[:EACH]


def _evaluated(data: DataSet, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
    exact = replace(data.train, canvas_size=0) if isinstance(data.train, FileImages) else data.train
    return as_pixels(as_input(exact.batch(chosen).images, data.spec))


def _altered(experiment: Experiment, data: DataSet, chosen: NDArray[np.int64], epoch: int) -> NDArray[np.uint8]:
    batch: Batch = data.train.batch(chosen)
    step = epoch * experiment.steps_per_epoch(len(data.train))
    return as_pixels(as_training_input(experiment, data.spec, batch, step, epoch)[0])


def _part(pixels: NDArray[np.uint8], rows: list[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Put the images of each row side by side on white, enlarged by a whole factor."""
    factor = max(1, -(-SIDE // pixels.shape[1]))
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3)).repeat(factor, 1).repeat(factor, 2)
    side = pixels.shape[1] + GAP
    sheet = np.full((len(rows) * side, EACH * side + 4 * GAP, 3), 255, dtype=np.uint8)
    for row, belongs in enumerate(rows):
        for column, image in enumerate(pixels[belongs]):
            sheet[row * side : row * side + side - GAP, column * side : column * side + side - GAP] = image
    return sheet


def _draw(path: Path, sheet: NDArray[np.uint8], classes: list[str], parts: list[str], title: str) -> None:
    height, width = sheet.shape[:2]
    figure = Figure(figsize=(10, 10 * height / width + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, interpolation="antialiased")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks(
        [(row + 0.5) * height / len(classes) for row in range(len(classes))], [short(c, 24) for c in classes]
    )
    axes.set_xticks([(part + 0.45) * width / len(parts) for part in range(len(parts))], parts)
    axes.xaxis.tick_top()
    axes.set_title(title, fontsize=10, pad=12)
    save(figure, path)
