"""The learning rate as a function of the step: schedules return a factor of the optimiser's learning rate."""

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from mixlab.config import Config

Share = Annotated[float, Field(ge=0, le=1)]
Divisor = Annotated[float, Field(ge=1)]


class ConstantConfig(Config):
    name: Literal["constant"] = "constant"

    def factor(self, progress: float) -> float:
        return 1.0


class OneCycleConfig(Config):
    """Up from peak / start_divisor to the peak, then down to the start's value / end_divisor (Smith, 2018)."""

    name: Literal["one_cycle"] = "one_cycle"
    warmup: Share = 0.3  # share of the steps on the way up
    start_divisor: Divisor = 25.0
    end_divisor: Divisor = 10000.0
    shape: Literal["cosine", "linear"] = "cosine"

    def factor(self, progress: float) -> float:
        start = 1 / self.start_divisor
        if progress < self.warmup:
            return _between(start, 1.0, progress / self.warmup, self.shape)
        down = (progress - self.warmup) / (1 - self.warmup) if self.warmup < 1 else 0.0
        return _between(1.0, start / self.end_divisor, down, self.shape)


class CosineConfig(Config):
    """A linear warm-up from 0, then half a cosine (Loshchilov and Hutter, 2017)."""

    name: Literal["cosine"] = "cosine"
    warmup: Share = 0.05  # share of the steps
    end: Share = 0.0  # factor at the last step

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        down = (progress - self.warmup) / (1 - self.warmup) if self.warmup < 1 else 0.0
        return _between(1.0, self.end, down, "cosine")


class PiecewiseLinearConfig(Config):
    """Straight lines between points (progress, factor); the default is the ConvMixer authors' on CIFAR-10."""

    name: Literal["piecewise_linear"] = "piecewise_linear"
    points: tuple[tuple[Share, Share], ...] = ((0.0, 0.0), (0.4, 1.0), (0.8, 0.05), (1.0, 0.0))

    @field_validator("points")
    @classmethod
    def _cover_training(cls, points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        places = [place for place, _ in points]
        if len(points) < 2 or places[0] != 0 or places[-1] != 1 or places != sorted(set(places)):
            raise ValueError("the points' progress must rise from 0 to 1")
        return points

    def factor(self, progress: float) -> float:
        for (left, start), (right, end) in zip(self.points, self.points[1:], strict=False):
            if progress <= right:
                return _between(start, end, (progress - left) / (right - left), "linear")
        return self.points[-1][1]


ScheduleConfig = Annotated[
    OneCycleConfig | CosineConfig | PiecewiseLinearConfig | ConstantConfig, Field(discriminator="name")
]


def learning_rate(schedule: ScheduleConfig, peak: float, step: int, steps: int) -> float:
    """Return the rate of step 0 <= step < steps; the first step is the schedule's start, the last one its end."""
    return peak * schedule.factor(min(step / max(steps - 1, 1), 1.0))


def _between(start: float, end: float, share: float, shape: Literal["cosine", "linear"]) -> float:
    if shape == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return start + (end - start) * share
