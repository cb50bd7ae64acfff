"""The learning-rate range test (Smith, "Cyclical Learning Rates for Training Neural Networks", 2017).

One short training in which the rate rises from step to step; the loss over the rate tells where learning is fastest
and where it breaks. Smith raises the rate linearly and reads accuracy; here the rate rises exponentially unless told
otherwise, and the smoothed training loss is read.
"""

import contextlib
import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat

from mixlab.config import Config
from mixlab.data.balance import inverse_frequencies
from mixlab.data.data_set import DataSet
from mixlab.data.images import Batch
from mixlab.data.loading import batches
from mixlab.errors import DataError, TrainingError, UsageError
from mixlab.experiment import Experiment
from mixlab.optim.optimizers import OptimizerConfig, SGDConfig
from mixlab.training.progress import Screen
from mixlab.training.state import TrainState, fresh_model, state_of
from mixlab.training.step import train_step
from mixlab.training.weights import load_weights

SMOOTHING = 0.8  # decay of the average of the loss; it lags 4 steps, a fifth of a decade at 100 steps
SKIPPED = 5  # first steps, over which the average settles
DIVERGED = 4.0  # times the lowest smoothed loss
FALL = 0.02  # share by which the smoothed loss must fall to suggest anything
NOISE = 8.0  # times the median second difference that it must fall; of white noise that is 5 standard deviations
LEARNING = 0.1  # share of the fall that comes before a rate is suggested
HALF_WINDOW = 0.25  # decades on either side of a rate over which the slope is fitted; a slope between 2 points is noise


class Sweep(Config):
    """How the rate rises."""

    low: PositiveFloat = 1e-6  # rate of the first step
    high: NonNegativeFloat = 0.0  # rate of the last step; 0: 1 for SGD, 0.1 for optimisers that scale the gradient
    steps: Annotated[int, Field(ge=20)] = 100
    shape: Literal["exponential", "linear"] = "exponential"

    def rates(self, optimizer: OptimizerConfig) -> list[float]:
        """Return the rate of each step.

        Raises:
            UsageError: where they would not rise.
        """
        high = self.high or (1.0 if isinstance(optimizer, SGDConfig) else 0.1)
        if self.low >= high:
            raise UsageError(
                f"the rate must rise, and does not from {self.low:g} to {high:g}; "
                "give a smaller --from or a larger --to"
            )
        spaced = np.geomspace if self.shape == "exponential" else np.linspace
        return spaced(self.low, high, self.steps).tolist()


class Suggestion(NamedTuple):
    steepest: float  # rate at which the loss falls fastest, where it is below that of knowing nothing
    minimum_tenth: float  # a tenth of the rate with the lowest loss


@dataclass(frozen=True)
class RangeTest:
    """What a range test measured; the lists have one number for each step taken."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]  # smoothed, nats
    raw_losses: tuple[float, ...]  # of each batch, nats
    steepest: float | None  # None: the loss never fell
    minimum_tenth: float | None

    @property
    def note(self) -> str:
        """What a reader should know before using the suggestions, or ""."""
        span = f"from {self.rates[0]:g} to {self.rates[-1]:g}"
        if self.steepest is None:
            return f"the loss never fell {span}; try other ends (--from, --to), more --steps or other data"
        if self.losses[-1] == min(self.losses):
            return f"the loss still falls at the highest rate, {self.rates[-1]:g}; a larger --to would tell more"
        return ""

    def auto(self) -> float:
        """Return the rate that `--lr auto` trains with.

        Raises:
            TrainingError: where the loss never fell.
        """
        if self.steepest is None:
            raise TrainingError(f"--lr auto found no rate: {self.note}; or give --lr a number")
        return self.steepest


def measure(
    experiment: Experiment, data: DataSet, device: torch.device, workers: int, sweep: Sweep, screen: Screen
) -> RangeTest:
    """Train on a throwaway copy of the experiment's first weights while the rate rises, and read the loss.

    Stops early where the smoothed loss is no finite number or 4 times its lowest. The same seed gives the same result.

    Raises:
        UsageError: where the rates would not rise.
        TrainingError: where not one finite loss was measured.
        DataError: where not one picture can be read.
    """
    rates = sweep.rates(experiment.optimizer)
    taken, raw, smooth = [], [], []
    with contextlib.closing(_steps(experiment, data, device, workers, rates, screen)) as steps:
        for rate, loss in steps:
            taken, raw = [*taken, rate], [*raw, loss]
            smooth = smoothed(raw)
            if smooth[-1] > DIVERGED * min(smooth):
                break
    if not taken:
        raise TrainingError(f"the loss is no finite number from the first step on, at rate {rates[0]:g}")
    found = suggest(taken, smooth, uninformed_loss(experiment, data.train.labels, data.spec.num_classes))
    return RangeTest(tuple(taken), tuple(smooth), tuple(raw), *(found or (None, None)))


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the exponential moving average, divided by the weight that it has seen (as Adam corrects its own)."""
    average, result = 0.0, []
    for count, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        result.append(average / (1 - SMOOTHING**count))
    return result


def uninformed_loss(experiment: Experiment, labels: np.ndarray, num_classes: int) -> float:
    """Return the training loss, in nats, of the best answer that is the same for every picture."""
    shown = np.concatenate(experiment.order(labels, 0))
    shares = np.bincount(labels[shown], minlength=num_classes) / len(shown)
    targets = (1 - experiment.label_smoothing) * shares + experiment.label_smoothing / num_classes
    if experiment.class_weights:
        targets *= inverse_frequencies(labels, num_classes)
    targets = targets[targets > 0]
    return -float(targets @ np.log(targets / targets.sum()))


def suggest(rates: Sequence[float], losses: Sequence[float], uninformed: float = math.inf) -> Suggestion | None:
    """Return two rates read from a curve, to three digits, or None where the loss falls no more than noise would.

    The first steps, and everything after the lowest loss, are ignored. Slopes are taken over log10(rate), on an even
    grid, so that a linear sweep's crowded upper end does not turn noise into slope. The steepest counts where the loss
    has begun to fall below where it started, and below `uninformed`: a network that begins sure of itself, and wrong,
    falls that far at rates at which it learns nothing else.

    Args:
        rates: rising, positive.
        losses: one for each rate, smoothed, finite.
        uninformed: loss of an answer that is the same for every picture.
    """
    logs, falling = np.log10(rates[SKIPPED:]), np.asarray(losses[SKIPPED:], dtype=np.float64)
    lowest = int(falling.argmin()) if len(falling) else 0
    if lowest < 2:
        return None
    noise = NOISE * float(np.median(np.abs(np.diff(falling[: lowest + 1], 2))))
    if falling[0] - falling[lowest] <= max(FALL * falling[0], noise):
        return None
    grid = np.linspace(logs[0], logs[lowest], lowest + 1)
    middles, levels, slopes = _fitted(grid, np.interp(grid, logs, falling))
    start = min(levels[0], uninformed)
    learns = levels <= start - max(LEARNING * (start - falling[lowest]), noise)
    learns[-1] = True  # right before the lowest loss, where noise hides all that is learned
    steepest = middles[np.where(learns, slopes, np.inf).argmin()]
    return Suggestion(_three_digits(10**steepest), _three_digits(10 ** logs[lowest] / 10))


def _fitted(grid: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a line to every window of a curve on an even grid; return middles, the lines' losses there, and slopes."""
    half = min(max(round(HALF_WINDOW / max(grid[1] - grid[0], 1e-9)), 2), (len(grid) - 1) // 2)
    windows = np.lib.stride_tricks.sliding_window_view(losses, 2 * half + 1)
    return grid[half : len(grid) - half], windows.mean(1), windows @ np.arange(-half, half + 1.0)


def _steps(
    experiment: Experiment, data: DataSet, device: torch.device, workers: int, rates: list[float], screen: Screen
) -> Generator[tuple[float, float], None, None]:
    """Yield the rate and the loss of each step, as long as the loss is finite."""
    trial = experiment.model_copy(update={"weight_average": 0.0})
    state = _first_state(trial, data, device)
    state.train_mode()
    order = _order(trial, data.train.labels, len(rates))
    screen.start("range test", 0, len(rates))
    started, empty = time.perf_counter(), 0
    with contextlib.closing(batches(data.train, order, workers)) as found:
        for place, (rate, batch) in enumerate(zip(rates, found, strict=True), start=1):
            if len(batch.indices) == 0:
                empty += 1
                continue
            loss = _loss_of_step(state, trial, data, device, batch, rate)
            if not math.isfinite(loss):
                return
            yield rate, loss
            screen.advance(place * trial.batch_size / (time.perf_counter() - started))
    if empty == len(rates):
        raise DataError("not one picture of these steps can be read; mixlab data check names the reasons")


def _first_state(experiment: Experiment, data: DataSet, device: torch.device) -> TrainState:
    model = fresh_model(experiment, data.spec)
    if experiment.weights:
        load_weights(model, experiment.weights, data.spec, experiment.freeze)
    return state_of(model, experiment, data, device)


def _order(experiment: Experiment, labels: np.ndarray, steps: int) -> list[np.ndarray]:
    """Return the indices of the first batches that training would see; epoch follows epoch."""

    def endless() -> Iterator[np.ndarray]:
        epoch = 0
        while True:
            yield from experiment.order(labels, epoch)
            epoch += 1

    return [indices for _, indices in zip(range(steps), endless(), strict=False)]


def _loss_of_step(
    state: TrainState, experiment: Experiment, data: DataSet, device: torch.device, batch: Batch, rate: float
) -> float:
    """Take one step, and return the mean loss of its batch in nats."""
    state.sums.zero_()
    train_step(state, experiment, data.spec, batch.to(device), rate)
    loss, _, count = state.sums.tolist()
    return loss / count


def _three_digits(number: float) -> float:
    return float(f"{number:.3g}")
