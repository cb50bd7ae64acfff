"""The charts of a report; every function takes plain numbers and returns SVG."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from mixlab.evaluation.leaderboard import Leaderboard, Pair
from mixlab.evaluation.metrics import ReliabilityBins
from mixlab.evaluation.pictures import short
from mixlab.reporting.figures import INK, MUTED, PAPER, SERIES, clean, figure, look

LONGEST = 32  # letters of a name in a legend or beside an axis
LEAST = 1e-3  # of a cost, where the axis is logarithmic

Curve = Sequence[tuple[float, float]]  # (epoch, value)


def curves(
    series: Mapping[str, Sequence[Curve]], y: str, percent: bool = True, size: tuple[float, float] = (8.6, 4.2)
) -> Markup:
    """Draw the mean over seeds of each series, with a band from the lowest to the highest seed.

    Args:
        size: width and height, inches.
    """
    scale = 100.0 if percent else 1.0
    with figure(*size) as (drawn, svg):
        axes = drawn.subplots()
        for place, (name, seeds) in enumerate(series.items()):
            epochs, values = _aligned(seeds)
            if not len(epochs):
                continue
            mean = scale * values.mean(0)
            few = 7 if len(epochs) <= 24 else 0
            style = look(place) | ({} if few else {"marker": ""})
            axes.plot(epochs, mean, **style, markersize=4, linewidth=1.6, label=_label(name))
            if len(values) > 1:
                axes.fill_between(
                    epochs, scale * values.min(0), scale * values.max(0), color=SERIES[place % 8], alpha=0.18, lw=0
                )
        clean(axes, "epoch", y)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        first, last = axes.dataLim.intervalx
        if first == last:
            axes.set_xlim(first - 1, last + 1)
        drawn.legend(loc="outside upper center", ncols=min(len(series), 4 if percent else 2))
        return svg()


def costs(found: Leaderboard) -> Markup:
    """Draw test accuracy against parameters, operations and training time, each on a logarithmic axis."""
    measures = (
        ("parameters", lambda row: row.parameters),
        ("multiply-accumulates an image", lambda row: row.macs),
        ("training time, s", lambda row: row.mean("seconds")),
    )
    with figure(8.6, 3.4) as (drawn, svg):
        panels = drawn.subplots(1, 3, sharey=True)
        for axes, (name, cost) in zip(panels, measures, strict=True):
            for place, row in enumerate(found.finished):
                style = look(place) | {"linestyle": ""}
                error = 100 * (row.deviation("top1") or 0)
                axes.errorbar(
                    max(cost(row), LEAST),
                    100 * (row.mean("top1") or 0),
                    yerr=error or None,
                    capsize=3,
                    markersize=7,
                    label=_label(row.name),
                    **style,
                )
            axes.set_xscale("log")
            low, high = _limits([cost(row) for row in found.finished])
            axes.set_xlim(low, high)
            axes.xaxis.set_major_locator(FixedLocator(round_numbers(1.06 * low, high / 1.06)))
            axes.xaxis.set_major_formatter(FuncFormatter(compact))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.margins(y=0.2)
            clean(axes, name)
        panels[0].set_ylabel("test top-1, %")
        panels[0].set_ylim(top=min(panels[0].get_ylim()[1], 101))
        handles, labels = panels[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4))
        return svg()


def differences(pairs: Sequence[Pair]) -> Markup:
    """Draw each paired difference with its interval around 0."""
    with figure(8.6, 0.8 + 0.34 * len(pairs)) as (drawn, svg):
        axes = drawn.subplots()
        for place, pair in enumerate(pairs):
            value, low, high = (
                100 * each for each in (pair.difference.value, pair.difference.low, pair.difference.high)
            )
            noise = pair.difference.verdict == "within noise"
            colour = MUTED if noise else SERIES[0]
            axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot(value, place, "o", color=colour, markerfacecolor=PAPER if noise else colour, markersize=6)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(
            range(len(pairs)), [f"{short(pair.first, LONGEST)} − {short(pair.second, LONGEST)}" for pair in pairs]
        )
        axes.set_ylim(len(pairs) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        clean(axes, "difference in test top-1, points (line: 95 % interval; open circle: within noise)")
        return svg()


def reliabilities(bins: Mapping[str, ReliabilityBins]) -> Markup:
    """Draw accuracy against confidence for each model, after the temperature."""
    columns = min(len(bins), 4)
    rows = -(-len(bins) // columns)
    with figure(max(2.15 * columns + 0.4, 3.2), 2.3 * rows) as (drawn, svg):  # wide enough for the words below
        panels = drawn.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
        for place, (axes, (name, found)) in enumerate(zip(panels, bins.items(), strict=False)):
            filled = found.count > 0
            share = found.count[filled] / found.count.sum()
            axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle="--")
            axes.plot(
                100 * found.confidence[filled], 100 * found.accuracy[filled], color=SERIES[place % 8], linewidth=1
            )
            axes.scatter(
                100 * found.confidence[filled],
                100 * found.accuracy[filled],
                s=8 + 120 * share,
                color=SERIES[place % 8],
                zorder=3,
            )
            axes.set(
                xlim=(0, 103), ylim=(0, 103), aspect="equal", title=f"{short(name, 24)}\nECE {100 * found.ece:.1f} %"
            )
            clean(axes)
        for axes in list(panels)[len(bins) :]:
            axes.set_axis_off()
        drawn.supxlabel("confidence, % (size: share of the images)", fontsize=9, color=INK)
        drawn.supylabel("accuracy, %", fontsize=9, color=INK)
        return svg()


def recalls(classes: Sequence[str], by_model: Mapping[str, Mapping[str, float]]) -> Markup:
    """Draw each class's recall for each model, the hardest class first; the 40 hardest where there are more.

    A class without images has no recall, and is left out.
    """
    values = {name: [found[name] for found in by_model.values() if name in found] for name in classes}
    hardest = sorted((name for name in classes if values[name]), key=lambda name: np.mean(values[name]))[:40]
    with figure(8.6, 0.9 + 0.26 * len(hardest)) as (drawn, svg):
        axes = drawn.subplots()
        for line, name in enumerate(hardest):
            ends = [100 * min(values[name]), 100 * max(values[name])]
            axes.plot(ends, [line, line], color=MUTED, linewidth=1)
        for place, (model, found) in enumerate(by_model.items()):
            lines = [line for line, name in enumerate(hardest) if name in found]
            shares = [100 * found[hardest[line]] for line in lines]
            style = look(place) | {"linestyle": ""}
            axes.plot(shares, lines, **style, markersize=6, alpha=0.9, label=_label(model), clip_on=False)
        axes.set_yticks(range(len(hardest)), [short(name, 28) for name in hardest])
        axes.set_ylim(len(hardest) - 0.5, -0.5)
        clean(axes, "recall, % (mean over seeds)")
        drawn.legend(loc="outside upper center", ncols=min(len(by_model), 4))
        return svg()


def class_counts(classes: Sequence[str], splits: Mapping[str, NDArray[np.int64]]) -> Markup:
    """Draw how many images of each class each split has; the 60 first where there are more."""
    shown = list(classes)[:60]
    with figure(8.6, 0.9 + 0.24 * len(shown)) as (drawn, svg):
        axes = drawn.subplots()
        left = np.zeros(len(shown))
        for place, (split, counts) in enumerate(splits.items()):
            values = counts[: len(shown)]
            if values.any():
                axes.barh(range(len(shown)), values, 0.72, left=left, color=SERIES[place], label=split)
                left += values
        axes.set_yticks(range(len(shown)), [short(name, 28) for name in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,.0f}"))
        clean(axes, "images")
        drawn.legend(loc="outside upper center", ncols=3)
        return svg()


def compact(value: float, place: Any = None) -> str:
    """Return a large number as "1.2 M"."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def round_numbers(low: float, high: float) -> list[float]:
    """Return two to four round numbers from `low` > 0 to `high` >= 2.5 x `low`, for the ticks of a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(found) > 1:
            return found[:: math.ceil(len(found) / 4)]
    return found


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a logarithmic axis with room beside the values."""
    return 0.6 * max(min(values), LEAST), 1.7 * max(*values, LEAST)


def _label(name: str) -> str:
    """Return a name for a legend, which would leave out one that begins with an underscore."""
    text = short(name, LONGEST)
    return f" {text}" if text.startswith("_") else text


def _aligned(seeds: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs that every seed has, and the values (seeds, epochs)."""
    common = sorted(set.intersection(*({epoch for epoch, _ in curve} for curve in seeds))) if seeds else []
    return np.array(common), np.array([[dict(curve)[epoch] for epoch in common] for curve in seeds])
