"""Plots of what a network sees, as PNG files: filters, depthwise kernels, feature maps and heat maps.

Weights have a diverging scale with 0 in its middle, everything else a scale that rises evenly in brightness, so that
both can be read by the colour-blind and in grey.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from mixlab.evaluation import pictures
from mixlab.evaluation.pictures import BLUE, GREY, SKY

FILTERS, FILTER_COLUMNS = 64, 16  # shown at most; in a row
KERNELS, KERNEL_LAYERS = 16, 16  # of one layer, shown at most; layers at most
CHANNELS, LAYERS = 8, 9  # feature maps of one layer at most; layers at most
WEIGHTS, HEAT, ACTIVATIONS = "RdBu_r", "inferno", "viridis"  # names of matplotlib's colour maps
CELL = 0.62  # inches, of one filter or kernel


def patch_filters(path: Path, filters: NDArray[np.float32], layer: str = "the first layer") -> None:
    """Draw the first 64 filters (filters, channels, side, side), all on one scale.

    Three channels are drawn as the colours they read, with 0 as grey; else the weights of each channel follow each
    other.
    """
    shown = filters[:FILTERS]
    limit = float(np.abs(shown).max()) or 1.0
    coloured = filters.shape[1] == 3
    tiles = shown if coloured else shown.transpose(1, 0, 2, 3).reshape(-1, 1, *filters.shape[2:])
    figure, panels = _grid(len(tiles), FILTER_COLUMNS)
    for axes, tile in zip(panels, tiles, strict=True):
        _weights(axes, tile / limit)
    figure.suptitle(f"{_of(len(shown), len(filters), 'filters')} of {layer}, the largest norm first")
    if coloured:
        scale = f"grey: weight 0   darkest and brightest: weights -{limit:.2g} and +{limit:.2g}, in each colour"
        figure.supxlabel(scale, fontsize=8, color=GREY)
    else:
        _weight_bar(figure, "weight", (f"-{limit:.2g}", "0", f"+{limit:.2g}"))
    pictures.save(figure, path)


def depthwise_kernels(path: Path, kernels: Mapping[str, NDArray[np.float32]]) -> None:
    """Draw some kernels (channels, side, side) of each layer, a row a layer, the first on top; each row on its scale.

    Those of the largest norm are shown, of at most 16 layers spread over the depth.
    """
    names = _spread(list(kernels), KERNEL_LAYERS)
    most = max(len(kernels[name]) for name in names)
    columns = min(most, KERNELS)
    size = (CELL * columns + 2.8, CELL * len(names) + 1.2)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
    panels = figure.subplots(len(names), columns, squeeze=False)
    for row, name in zip(panels, names, strict=True):
        _row_of_kernels(row, name, kernels[name])
    layers = f", {len(names)} of {len(kernels)} layers" if len(names) < len(kernels) else ""
    figure.suptitle(f"Depthwise kernels: {_of(columns, most, 'channels')}{layers}, the largest norm first")
    _weight_bar(figure, "weight, share of\nthe row's largest", ("-1", "0", "+1"))
    pictures.save(figure, path)


def heat_map(
    path: Path,
    image: NDArray[np.uint8],
    heat: NDArray[np.float32],
    top: Sequence[tuple[str, float]],
    kind: str,
    title: str,
) -> None:
    """Draw an image as the network sees it, a heat map over it, and the most probable classes.

    Args:
        image: (height, width, channels), 1 or 3 channels.
        heat: (rows, columns), in [0, 1], of the whole image.
        top: classes and their probabilities in [0, 1], the best first.
        kind: what the heat map is, such as "class activation".
    """
    figure = Figure(figsize=(9.0, 3.3), layout=ConstrainedLayoutEngine(w_pad=0.08))
    plain, lit, bars = figure.subplots(1, 3)
    pictures.show(plain, image)
    plain.set_title(f"as the network sees it, {image.shape[0]} x {image.shape[1]} px", fontsize=9)
    pictures.show(lit, image)
    _lay_over(lit, heat)
    _bar(figure, lit, ScalarMappable(Normalize(0, 1), HEAT), "share of the largest", ("0", "0.5", "1"))
    lit.set_title(_heat_title(kind, top[0][0], heat.shape), fontsize=9)
    _probabilities(bars, top)
    figure.suptitle(_title(title, 90), fontsize=11)
    pictures.save(figure, path)


def feature_maps(path: Path, image: NDArray[np.uint8], maps: Mapping[str, NDArray[np.float32]], title: str) -> None:
    """Draw an image, and of each layer the 8 channels that vary most over it, a row a layer, the first on top.

    Args:
        image: (height, width, channels), 1 or 3 channels.
        maps: name of a layer -> (channels, rows, columns). At most 9 layers, spread over the depth, are drawn; those
            of a single place have nothing to show.
    """
    wide = [name for name, found in maps.items() if found[0].size > 1]
    names = _spread(wide or list(maps), LAYERS)
    columns = min(max(len(maps[name]) for name in names), CHANNELS)
    width = 0.95 * columns + 2.4  # inches, of the maps with their labels and scale
    figure = Figure(figsize=(2.2 + width, max(0.95 * len(names) + 0.9, 3.2)), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=[2.2, width])
    left, right = halves
    shown = left.subplots()
    pictures.show(shown, image)
    shown.set_title("the picture", fontsize=9)
    panels = right.subplots(len(names), columns, squeeze=False)
    for row, name in zip(panels, names, strict=True):
        _row_of_maps(row, name, maps[name])
    _bar(
        right, panels, ScalarMappable(Normalize(0, 1), ACTIVATIONS), "activation, within its map", ("lowest", "highest")
    )
    layers = f", {len(names)} of {len(maps)} layers" if len(names) < len(maps) else ""
    figure.suptitle(f"{_title(title, 60)}: the {columns} channels that vary most{layers}", fontsize=11)
    pictures.save(figure, path)


def _row_of_kernels(row: Sequence[Axes], name: str, kernels: NDArray[np.float32]) -> None:
    largest = np.argsort(-np.linalg.norm(kernels.reshape(len(kernels), -1), axis=1), kind="stable")[: len(row)]
    limit = float(np.abs(kernels[largest]).max()) or 1.0
    for axes, place in zip(row, largest, strict=False):
        _weights(axes, kernels[place : place + 1] / limit)
    _finish_row(row, len(largest), f"{name}\n{kernels.shape[1]} x {kernels.shape[2]}, largest {limit:.2g}")


def _row_of_maps(row: Sequence[Axes], name: str, maps: NDArray[np.float32]) -> None:
    liveliest = np.argsort(-maps.var(axis=(1, 2)), kind="stable")[: len(row)]
    for axes, place in zip(row, liveliest, strict=False):
        axes.imshow(_stretched(maps[place]), cmap=ACTIVATIONS, vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
    _finish_row(row, len(liveliest), f"{name}\n{maps.shape[1]} x {maps.shape[2]}")


def _finish_row(row: Sequence[Axes], filled: int, label: str) -> None:
    row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7.5, labelpad=6)
    for axes in row[filled:]:
        axes.set_axis_off()


def _grid(count: int, most_columns: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` square panels, at most so many in a row."""
    columns = min(count, most_columns)
    rows = math.ceil(count / columns)
    size = (max(CELL * columns, 4) + 1.2, CELL * rows + 0.9)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def _weights(axes: Axes, weights: NDArray[np.float32]) -> None:
    """Draw weights (1 or 3 channels, rows, columns) in [-1, 1], a square a weight: 3 as colours, with 0 as grey."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=GREY, linewidth=0.4)
    if len(weights) == 3:
        axes.imshow((weights.transpose(1, 2, 0) + 1) / 2, interpolation="nearest")
        return
    axes.imshow(weights[0], cmap=WEIGHTS, vmin=-1, vmax=1, interpolation="nearest")


def _weight_bar(figure: Figure, label: str, ticks: Sequence[str]) -> None:
    _bar(figure, figure.axes, ScalarMappable(Normalize(-1, 1), WEIGHTS), label, ticks)


def _bar(figure: Figure, panels: Any, colours: ScalarMappable, label: str, ticks: Sequence[str]) -> None:
    """Draw one colour bar for many panels, its ticks spread evenly from end to end."""
    places = np.linspace(*colours.get_clim(), len(ticks))
    bar = figure.colorbar(colours, ax=panels, ticks=places, shrink=0.8, aspect=25, pad=0.02)
    bar.ax.set_yticklabels(ticks)
    bar.set_label(label)
    bar.outline.set_visible(False)


def _lay_over(axes: Axes, heat: NDArray[np.float32]) -> None:
    """Draw a heat map over an image: the hotter, the less of the image shows."""
    whole = (*axes.get_xlim(), *axes.get_ylim())
    look = {"cmap": HEAT, "vmin": 0, "vmax": 1, "interpolation": "bilinear"}
    axes.imshow(heat, extent=whole, alpha=0.25 + 0.4 * heat, **look)


def _heat_title(kind: str, predicted: str, shape: tuple[int, ...]) -> str:
    if shape == (1, 1):
        return f"{kind}: a single place"
    of_class = f" for {pictures.short(predicted, 18)}" if kind == "class activation" else ""
    return f"{kind}{of_class}, {shape[0]} x {shape[1]}"


def _title(name: str, longest: int) -> str:
    """Shorten a title that may hold the name of a file, which need not be UTF-8."""
    return pictures.short(name.encode("utf-8", "replace").decode(), longest)


def _probabilities(axes: Axes, top: Sequence[tuple[str, float]]) -> None:
    places, shares = range(len(top)), [100 * share for _, share in top]
    axes.barh(places, shares, 0.45, color=[BLUE, *[SKY] * (len(top) - 1)])
    for place, (name, share) in enumerate(top):
        axes.text(0, place - 0.32, f"{pictures.short(name, 30)}  {share:.1%}", fontsize=9, va="bottom")
    axes.set(xlim=(0, 100), ylim=(max(len(top), 3) - 0.5, -0.75), yticks=[], xlabel="probability, %")
    axes.set_title("most probable classes", fontsize=9)
    pictures.clean(axes)


def _stretched(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map between 0, its lowest, and 1, its highest; 0 everywhere where all is alike."""
    span = float(values.max() - values.min())
    return (values - values.min()) / (span or 1.0)


def _spread(names: list[str], most: int) -> list[str]:
    """Return at most so many names, the first and the last among them, evenly spread."""
    if len(names) <= most:
        return names
    return [names[round(place)] for place in np.linspace(0, len(names) - 1, most)]


def _of(shown: int, there: int, what: str) -> str:
    return f"{shown} {what}" if shown == there else f"{shown} of {there:,} {what}"
