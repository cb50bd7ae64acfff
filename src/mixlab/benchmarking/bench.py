"""`bench`: one model at one size on one device, in inference and in training, beside what people use today."""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter
from torch import nn

from mixlab import devices, durable
from mixlab.benchmarking import contenders, measure
from mixlab.benchmarking.contenders import Batch
from mixlab.benchmarking.measure import Ceilings, Failed, Result
from mixlab.evaluation import pictures
from mixlab.models import inspection
from mixlab.run.environment import environment

TICKS = [digit * 10.0**power for power in range(-3, 9) for digit in (1, 2, 5)]
SIZES = {"float32": 4, "bfloat16": 2}  # bytes of a number


@dataclass(frozen=True)
class Work:
    """What is measured."""

    model: str  # with the fields that were changed
    parameters: int
    macs: int  # of one image, forward
    numbers: int  # that the layers of one image write, and read
    image_size: int
    batch_size: int
    device: str
    rounds: int


@dataclass(frozen=True)
class Bench:
    """What was found, for each of "inference" and "training" that was asked for."""

    work: Work
    machine: dict[str, Any]
    ceilings: Ceilings
    results: dict[str, list[Result]]
    failed: dict[str, list[Failed]]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def speedup(self, kind: str) -> float:
        """Return how many times faster our fastest is than the fastest of the others; 0 where one is missing."""
        ours, others = (measure.fastest(self.results[kind], each) for each in (True, False))
        return ours / others if others else 0.0


def bench(
    name: str,
    model: nn.Module,
    channels: int,
    image_size: int,
    classes: int,
    batch_size: int,
    device: str = "auto",
    kinds: Sequence[str] = ("inference", "training"),
    rounds: int = 5,
    compiled: bool = False,
) -> Bench:
    """Measure a model on random images; its weights stay as they are.

    Args:
        compiled: with torch.compile too, which takes minutes.
    """
    chosen = devices.choose_device(device)
    results, failed = {}, {}
    with torch.cuda.device(chosen.index if chosen.type == "cuda" else -1):  # the current one
        torch.manual_seed(0)
        model = copy.deepcopy(model).to(chosen)
        batch = Batch(
            torch.rand(batch_size, channels, image_size, image_size, device=chosen),
            torch.randint(classes, (batch_size,), device=chosen),
        )
        macs = inspection.macs(model, channels, image_size)
        found_ceilings = measure.ceilings(chosen)
        for kind in kinds:
            make = contenders.training if kind == "training" else contenders.inference
            results[kind], failed[kind] = measure.measure(
                make(model, batch, compiled), batch_size, macs, chosen, found_ceilings, rounds, kind == "training"
            )
    numbers = measure.numbers_of_layers(model, channels, image_size)
    work = Work(name, inspection.parameters(model), macs, numbers, image_size, batch_size, str(chosen), rounds)
    return Bench(work, environment(str(chosen)), found_ceilings, results, failed)


def write(folder: Path, found: Bench) -> None:
    """Write bench.json and roofline.png."""
    durable.write_json(folder / "bench.json", found.as_json())
    draw_roofline(folder / "roofline.png", found)


def draw_roofline(path: Path, found: Bench) -> None:
    """Draw what each contender computes in a second under what the machine could (Williams et al., 2009).

    The intensity is that of layers which read and write every feature map once: what fuses layers can pass the slope.
    """
    figure = Figure(figsize=(4.6 * len(found.results) + 0.6, 4.6), layout="constrained")
    panels = figure.subplots(1, len(found.results), squeeze=False)[0]
    for axes, (kind, results) in zip(panels, found.results.items(), strict=True):
        _draw(axes, kind, results, found)
    panels[0].set_ylabel("GFLOP/s")
    figure.suptitle(
        f"{found.work.model}, {found.work.image_size} px, batch {found.work.batch_size}, {found.work.device}"
    )
    pictures.save(figure, path)


def _draw(axes: Any, kind: str, results: list[Result], found: Bench) -> None:
    factor = measure.TRAINING if kind == "training" else 1
    intensities = {name: 2 * found.work.macs / (found.work.numbers * size) for name, size in SIZES.items()}
    low, high = min(intensities.values()) / 4, max(intensities.values()) * 4
    for style, precision in zip(("-", "--"), SIZES, strict=True):
        ceiling = found.ceilings.limit(precision)
        ridge = ceiling / found.ceilings.copy
        places = [low, *([ridge] if low < ridge < high else []), high]
        heights = [min(ceiling, place * found.ceilings.copy) / 1e9 for place in places]
        axes.plot(places, heights, style, color=pictures.GREY, linewidth=1.3, label=f"limit, {precision}")
    marks = {"float32": "o", "bfloat16": "s"}
    for precision, intensity in intensities.items():
        for ours, colour in ((False, pictures.ORANGE), (True, pictures.BLUE)):
            flops = [
                2 * found.work.macs * factor * each.images_per_second / 1e9
                for each in results
                if each.ours == ours and each.precision == precision
            ]
            label = f"{'mixlab' if ours else 'others'}, {precision}"
            axes.plot([intensity] * len(flops), flops, marks[precision], color=colour, label=label, markersize=6)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte of the layers' feature maps", title=kind)
    for axis, (least, most) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        axis.set_major_locator(FixedLocator([each for each in TICKS if least <= each <= most]))
        axis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
        axis.set_minor_locator(NullLocator())
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    pictures.clean(axes)
