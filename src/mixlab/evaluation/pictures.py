"""Plots of what was measured, as PNG files: confusion, calibration, classes, training curves and a gallery.

Colours are those of Okabe and Ito (2008), which the colour-blind can tell apart, and none carries a meaning alone.
"""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from mixlab import durable
from mixlab.errors import DataError
from mixlab.evaluation.metrics import ClassMetrics, Estimate, Metrics, ReliabilityBins, wilson
from mixlab.evaluation.rejection import Acceptance

Rows = Sequence[Mapping[str, int | float]]  # of metrics.jsonl, one an epoch

BLUE, SKY, GREEN, ORANGE, VERMILLION, GREY = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#666666"
DPI = 150  # pixels an inch
GALLERY_IMAGES = 40  # shown at most
GALLERY_COLUMNS = 8  # at most
NAMED_CLASSES = 120  # a confusion matrix of more has no room for their names
BARS = 100  # classes shown at most as bars


def confusion(path: Path, metrics: Metrics) -> None:
    """Draw the share of each true class (row, %) that was given each class (column), with counts up to 20 classes.

    Cells of up to 10 classes also name the share. The colour scale is a square root, so that rare confusions show. A
    class without images is an empty row.
    """
    counts = np.array(metrics.confusion)
    classes = len(counts)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(3.0, classes * (0.52 if classes <= 20 else 0.15)), 16.0)  # inches, of the matrix alone
    figure, axes = panel(side + 2.4, side + 1.6)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, ticks=[0, 1, 5, 10, 25, 50, 75, 100], shrink=0.8, pad=0.02, aspect=30)
    bar.set_label("share of the true class, %")
    bar.outline.set_visible(False)
    axes.set(xlabel="predicted class", ylabel="true class", title=f"Confusion of {metrics.images:,} images")
    _name_classes(axes, [each.name for each in metrics.per_class])
    if classes <= 20:
        _write_counts(axes, counts, shares)
    save(figure, path)


def reliability(path: Path, before: ReliabilityBins, after: ReliabilityBins, temperature: float) -> None:
    """Draw accuracy against confidence, and how many images have it, before and after temperature scaling."""
    figure = Figure(figsize=(8.6, 5.2), layout=ConstrainedLayoutEngine(w_pad=0.12))
    panels = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[3, 1])
    titles = ("Before scaling", f"After scaling, temperature {temperature:.2f}")
    for column, (bins, title) in enumerate(zip((before, after), titles, strict=True)):
        _accuracy_by_confidence(panels[0, column], bins)
        _images_by_confidence(panels[1, column], bins)
        panels[0, column].set_title(f"{title}\ncalibration error (ECE) {100 * bins.ece:.1f} %")
    panels[0, 0].set_ylabel("accuracy, %")
    panels[1, 0].set_ylabel("images")
    panels[0, 0].legend(loc="upper left", frameon=False, fontsize=8)
    save(figure, path)


def coverage(
    path: Path, confidence: NDArray[np.float64], right: NDArray[np.bool_], accepted: Acceptance | None
) -> None:
    """Draw how often answers are right (with its 95 % interval), and their least confidence, by the share answered.

    The surest are answered first; `accepted`, where there is one, is marked.
    """
    falling = np.argsort(-confidence, kind="stable")
    counts = np.unique(np.linspace(1, len(right), min(len(right), 200)).astype(np.int64))
    hits = np.cumsum(right[falling])[counts - 1]
    shares, values = 100 * counts / len(right), 100 * hits / counts
    low, high = 100 * np.array([wilson(int(hit), int(count)) for hit, count in zip(hits, counts, strict=True)]).T
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    accuracy, threshold = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    accuracy.fill_between(shares, low, high, color=SKY, alpha=0.35, linewidth=0, label="95 % interval")
    accuracy.plot(shares, values, color=BLUE, label="right of the answered")
    threshold.plot(shares, 100 * confidence[falling][counts - 1], color=GREY)
    lowest = math.floor(min(values.min(), 99) / 5) * 5
    accuracy.set(ylabel="right of the answered, %", ylim=(lowest, 100.5), title="The surest are answered first")
    threshold.set(ylabel="least\nconfidence, %", xlabel="answered images, %", ylim=(0, 103), xlim=(0, 100))
    if accepted:
        _mark_accepted((accuracy, threshold), accepted)
    accuracy.legend(frameon=False, loc="lower left")
    for axes in (accuracy, threshold):
        clean(axes)
    figure.align_ylabels()
    save(figure, path)


def per_class(path: Path, metrics: Metrics) -> None:
    """Draw each class's recall with its 95 % interval, lowest first, and its precision; the 100 lowest, where more."""
    rows = sorted(metrics.per_class, key=lambda each: each.recall.value if each.recall else math.inf)[:BARS]
    row_height = 0.3 if len(rows) <= 20 else 0.19  # inches
    figure, axes = panel(7.2, 1.6 + row_height * len(rows))
    _recall_bars(axes, rows)
    precisions = [100 * row.precision.value if row.precision else math.nan for row in rows]
    axes.plot(precisions, range(len(rows)), "D", color=VERMILLION, mec="white", markersize=5, clip_on=False)
    axes.axvline(100 * metrics.top1.value, color=GREY, linestyle="--", linewidth=1, zorder=0)
    axes.set_yticks(range(len(rows)), [short(row.name, 28) for row in rows], fontsize=9 if len(rows) <= 20 else 7)
    axes.set(xlim=(0, 101), ylim=(len(rows) - 0.4, -0.6), xlabel="recall and precision, %")
    axes.tick_params(axis="y", length=0)
    left_out = "" if len(rows) == len(metrics.per_class) else f", the {len(rows)} lowest of {len(metrics.per_class):,}"
    axes.set_title(f"Recall by class{left_out}", loc="left", pad=24)
    _class_legend(axes, metrics.top1)
    save(figure, path)


def curves(path: Path, rows: Rows) -> None:
    """Draw loss, accuracy and learning rate by epoch from the rows of `metrics.jsonl`.

    Args:
        rows: each with `epoch` and any of `train_loss`, `validation_loss` (nats), `train_top1`, `validation_top1`
            (in [0, 1]) and `learning_rate`; a row that lacks one has no point on that line.

    Raises:
        DataError: where there is no row.
    """
    if not rows:
        raise DataError("no epoch to draw: metrics.jsonl has no row yet")
    figure = Figure(figsize=(7.2, 7.6), layout="constrained")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1])
    _train_and_validation(loss, rows, "loss")
    _train_and_validation(accuracy, rows, "top1", scale=100.0)
    _line(rate, rows, "learning_rate", 1.0, (GREY, "-", "learning rate"))
    loss.set_ylabel("loss, nats")
    accuracy.set_ylabel("top-1 accuracy, %")
    rate.set(ylabel="learning rate", xlabel="epoch", ylim=(0, None))
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if len(rows) == 1:
        rate.set_xlim(rows[0]["epoch"] - 1, rows[0]["epoch"] + 1)
    if loss.lines:
        loss.legend(frameon=False)
    _mark_highest(accuracy, rows)
    for axes in (loss, accuracy, rate):
        clean(axes)
    figure.align_ylabels()
    save(figure, path)


def gallery(
    path: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    predictions: NDArray[np.int64],
    confidences: NDArray[np.float64],
    classes: Sequence[str],
    title: str,
) -> None:
    """Draw up to 40 images, each with what was predicted, how surely, and what it is where that was wrong.

    Args:
        images: (n, height, width, channels), 1 or 3 channels.
        labels: (n,), indices of the true classes.
        predictions: (n,), indices of the predicted classes.
        confidences: (n,), the probability of the predicted class, in [0, 1].

    Raises:
        DataError: where there is no image, or the lengths differ.
    """
    if not len(images) == len(labels) == len(predictions) == len(confidences) or len(images) == 0:
        given = ", ".join(str(len(each)) for each in (images, labels, predictions, confidences))
        raise DataError(f"a gallery needs as many images, labels, predictions and confidences, at least 1, not {given}")
    shown = min(len(images), GALLERY_IMAGES)
    columns = min(shown, GALLERY_COLUMNS)
    rows = math.ceil(shown / columns)
    row_height = 0.45 + 1.45 * images.shape[1] / images.shape[2]  # inches, of a caption and an image
    figure = Figure(figsize=(1.5 * columns, 0.6 + row_height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for place, axes in enumerate(panels):
        if place >= shown:
            axes.set_axis_off()
            continue
        show(axes, images[place])
        _caption(axes, classes, int(predictions[place]), int(labels[place]), float(confidences[place]))
    figure.suptitle(short(title, 80))
    figure.supxlabel("✓ right   ✗ wrong   %: confidence in the prediction", fontsize=8, color=GREY)
    save(figure, path)


def panel(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of one panel, of a size in inches, that no other code can see."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    clean(axes)
    return figure, axes


def clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    durable.make_folder(path.parent)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # of names in scripts that the font lacks
        figure.savefig(content, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.1)
    durable.write_bytes(path, content.getvalue())


def short(name: str, longest: int) -> str:
    """Return a name on one line with its middle left out where it is long, for names often differ at their ends."""
    name = " ".join(name.split())
    if len(name) > longest:
        head = longest // 2
        name = f"{name[:head]}…{name[len(name) - (longest - head - 1) :]}"
    return name.replace("$", r"\$")  # matplotlib reads text between dollars as a formula


def _name_classes(axes: Axes, names: Sequence[str]) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if len(names) > NAMED_CLASSES:
        axes.set(xlabel="predicted class, index", ylabel="true class, index")
        return
    size = 9 if len(names) <= 20 else 7
    shown = [short(name, 22) for name in names]
    axes.set_yticks(range(len(names)), shown, fontsize=size)
    if max(map(len, shown)) * len(names) <= 20:  # letters that fit beside each other under the matrix
        axes.set_xticks(range(len(names)), shown, fontsize=size)
    elif len(names) <= 20:
        axes.set_xticks(range(len(names)), shown, fontsize=size, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(range(len(names)), shown, fontsize=size, rotation=90)


def _write_counts(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    size = 12 if len(counts) <= 4 else 8
    for row, column in np.argwhere(counts > 0):
        colour = "white" if shares[row, column] > 35 else "black"
        share = f"\n{shares[row, column]:.1f} %" if len(counts) <= 10 else ""
        text = f"{counts[row, column]:,}{share}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _accuracy_by_confidence(axes: Axes, bins: ReliabilityBins) -> None:
    filled = bins.count > 0
    accuracy, confidence = 100 * bins.accuracy[filled], 100 * bins.confidence[filled]
    width = 100 / len(bins.count)
    middles = (np.flatnonzero(filled) + 0.5) * width
    axes.bar(middles, accuracy, width, color=SKY, edgecolor="white", label="accuracy")
    axes.vlines(confidence, accuracy, confidence, color=VERMILLION, linewidth=1.5, label="gap to confidence")
    axes.plot(confidence, accuracy, "o", color=BLUE, markersize=4, clip_on=False)
    axes.plot([0, 100], [0, 100], "--", color=GREY, linewidth=1, label="perfect calibration")
    axes.set(xlim=(0, 100), ylim=(0, 100))
    clean(axes)


def _mark_accepted(panels: Sequence[Axes], accepted: Acceptance) -> None:
    place = 100 * accepted.coverage.value
    right = f", {100 * accepted.accuracy.value:.1f} % right" if accepted.accuracy else ""
    label = f"unknown below {100 * accepted.threshold:.1f} %: {place:.1f} % answered{right}"
    for axes, name in zip(panels, (label, ""), strict=True):
        axes.axvline(place, color=VERMILLION, linestyle="--", linewidth=1.2, label=name)


def _images_by_confidence(axes: Axes, bins: ReliabilityBins) -> None:
    width = 100 / len(bins.count)
    axes.bar((np.arange(len(bins.count)) + 0.5) * width, bins.count, width, color=GREY, edgecolor="white")
    axes.set_xlabel("confidence, %")
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    clean(axes)


def _recall_bars(axes: Axes, rows: Sequence[ClassMetrics]) -> None:
    seen = [(place, row.recall) for place, row in enumerate(rows) if row.recall]
    places, values = [place for place, _ in seen], [100 * recall.value for _, recall in seen]
    below = [100 * (recall.value - recall.low) for _, recall in seen]
    above = [100 * (recall.high - recall.value) for _, recall in seen]
    axes.barh(places, values, 0.7, color=SKY)
    axes.errorbar(values, places, xerr=[below, above], color="black", linestyle="", elinewidth=1.2, capsize=2)
    for place in set(range(len(rows))) - set(places):
        axes.text(2, place, "no images", va="center", fontsize=7, color=GREY)


def _class_legend(axes: Axes, top1: Estimate) -> None:
    handles = [
        Line2D([], [], color=SKY, linewidth=6, label="recall"),
        Line2D([], [], color="black", marker="|", linewidth=1.2, label="95 % interval"),
        Line2D([], [], color=VERMILLION, marker="D", linestyle="", markersize=5, label="precision"),
        Line2D([], [], color=GREY, linestyle="--", linewidth=1, label=f"top-1 of all images: {100 * top1.value:.1f} %"),
    ]
    axes.legend(handles=handles, ncols=4, frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))


def _train_and_validation(axes: Axes, rows: Rows, what: str, scale: float = 1.0) -> None:
    _line(axes, rows, f"train_{what}", scale, (ORANGE, "--", "training"))
    _line(axes, rows, f"validation_{what}", scale, (BLUE, "-", "validation"))
    _line(axes, rows, f"test_{what}", scale, (BLUE, "-.", "test, watched"))


def _line(axes: Axes, rows: Rows, key: str, scale: float, look: tuple[str, str, str]) -> None:
    """Draw `scale` times the values of `key` by epoch; `look` is colour, line style and label."""
    there = [row for row in rows if key in row]
    if not there:
        return
    colour, style, label = look
    epochs, values = [row["epoch"] for row in there], [scale * row[key] for row in there]
    marker = "o" if len(there) <= 20 else ""
    axes.plot(epochs, values, color=colour, linestyle=style, label=label, marker=marker, markersize=3)


def _mark_highest(axes: Axes, rows: Rows) -> None:
    there = [row for row in rows if "validation_top1" in row]
    if not there:
        return
    highest = max(there, key=lambda row: row["validation_top1"])
    epoch, accuracy = highest["epoch"], 100 * highest["validation_top1"]
    axes.plot(epoch, accuracy, "o", color=BLUE, markersize=6, markerfacecolor="white")
    text = f"validation at most {accuracy:.1f} %, epoch {epoch:g}"
    axes.text(0.99, 0.04, text, transform=axes.transAxes, ha="right", fontsize=9, color=BLUE)


def show(axes: Axes, image: NDArray[np.uint8]) -> None:
    """Draw one image (height, width, channels): pixels stay squares where it is smaller than its place."""
    tiny = max(image.shape[:2]) <= DPI
    squeezed = image[:, :, 0] if image.shape[2] == 1 else image
    axes.imshow(squeezed, cmap="gray", vmin=0, vmax=255, interpolation="nearest" if tiny else "antialiased")
    axes.set(xticks=[], yticks=[])


def _caption(axes: Axes, classes: Sequence[str], predicted: int, true: int, confidence: float) -> None:
    right = predicted == true
    colour, mark = (GREEN, "✓") if right else (VERMILLION, "✗")
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2, linestyle="-" if right else "--")
    text = f"{mark} {short(classes[predicted], 18)}\n{100 * confidence:.0f} %"
    if not right:
        text += f", is {short(classes[true], 14)}"
    axes.set_xlabel(text, fontsize=7, color="black", labelpad=3, loc="left")
