"""What a range test leaves behind: a picture of loss over rate, and its numbers as CSV and JSON."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from mixlab import durable
from mixlab.evaluation import pictures
from mixlab.experiment import Experiment
from mixlab.models import catalogue
from mixlab.run.table import as_csv
from mixlab.training.lr_range import RangeTest

COLUMNS: tuple[str, ...] = ("learning_rate", "smoothed_loss", "loss")


def label(experiment: Experiment) -> str:
    """Return data and model of an experiment, such as digits-convmixer_64_4."""
    return f"{experiment.data.label}-{catalogue.published_name(experiment.model)}"


def write(folder: Path, experiment: Experiment, found: RangeTest) -> Path:
    """Write lr_range.png, lr_range.csv and lr_range.json into a folder, and return the picture.

    Raises:
        RunError: where they cannot be written.
    """
    durable.make_folder(folder)
    picture = folder / "lr_range.png"
    draw(picture, found, f"Range test: {label(experiment)}, {experiment.optimizer.name}, seed {experiment.seed}")
    columns = zip(found.rates, found.losses, found.raw_losses, strict=True)
    table = [dict(zip(COLUMNS, numbers, strict=True)) for numbers in columns]
    durable.write_bytes(folder / "lr_range.csv", as_csv(table))
    durable.write_json(folder / "lr_range.json", as_values(found))
    return picture


def as_values(found: RangeTest) -> dict[str, Any]:
    """Return a range test as plain values; a suggestion that there is none of is null."""
    return {
        "steepest": found.steepest,
        "minimum_tenth": found.minimum_tenth,
        "note": found.note,
        "rates": list(found.rates),
        "losses": list(found.losses),
        "raw_losses": list(found.raw_losses),
    }


def draw(path: Path, found: RangeTest, title: str) -> None:
    """Draw the loss of each batch and its average over the learning rate, with both suggestions."""
    figure, axes = pictures.panel(7.2, 4.6)
    axes.plot(found.rates, found.raw_losses, "o", color=pictures.SKY, markersize=3, label="each batch")
    axes.plot(found.rates, found.losses, color=pictures.BLUE, linewidth=2, label="smoothed")
    axes.set_xscale("log")
    lowest, highest = min(found.raw_losses), max(found.losses[: len(found.losses) // 2 + 1])
    axes.set_ylim(lowest - 0.15 * (highest - lowest), highest + 0.35 * (highest - lowest) + 1e-9)
    axes.set(xlabel="learning rate", ylabel="training loss, nats")
    axes.set_title(pictures.short(title, 80), loc="left", pad=30)
    if found.steepest is not None and found.minimum_tenth is not None:
        _mark(axes, found.steepest, (pictures.VERMILLION, "--", "steepest fall"))
        _mark(axes, found.minimum_tenth, (pictures.GREEN, "-.", "minimum / 10"))
    axes.legend(ncols=4, frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    pictures.save(figure, path)


def _mark(axes: Axes, rate: float, look: tuple[str, str, str]) -> None:
    """Draw a vertical line at a suggestion; `look` is colour, line style and label."""
    colour, style, name = look
    axes.axvline(rate, color=colour, linestyle=style, linewidth=1.5, label=f"{name}: {rate:g}")
