"""The same for all: epochs from a budget, and widths from a number of parameters."""

from dataclasses import dataclass

import torch

from mixlab.comparison.request import Budget
from mixlab.data.catalogue import DataSet
from mixlab.errors import UsageError
from mixlab.experiment import Experiment
from mixlab.models import inspection
from mixlab.models.catalogue import AnyModelConfig
from mixlab.spec import DataSpec

BACKWARD = 3  # a training step costs about three forward passes
WIDEST = 16  # times as wide as given, at most, where parameters are matched


@dataclass(frozen=True)
class Cost:
    """What a variant costs."""

    parameters: int
    macs: int  # of one image, forward
    train_images: int


def cost_of(experiment: Experiment, data: DataSet) -> Cost:
    with torch.device("meta"):
        model = experiment.model.build(data.spec)
    spec = data.spec
    macs = inspection.macs(model, spec.channels, spec.image_size)
    return Cost(inspection.parameters(model), macs, len(data.train))


def with_budget(experiment: Experiment, budget: Budget, cost: Cost) -> Experiment:
    """Return the experiment with as many epochs as the budget pays for; a time is left to the training itself.

    A schedule that is planned for longer keeps its proportion.

    Raises:
        UsageError: where the budget does not pay for one step.
    """
    if budget.kind in ("own", "time"):
        return experiment
    per_epoch = experiment.steps_per_epoch(cost.train_images) * experiment.batch_size  # images
    spent = {"epochs": 1.0, "images": per_epoch, "macs": BACKWARD * cost.macs * per_epoch}[budget.kind]
    epochs = round(budget.amount / spent, 4)
    if epochs * per_epoch < experiment.batch_size:
        raise UsageError(f"a budget of {budget} does not pay for one step of {experiment.batch_size} images")
    planned = round(experiment.schedule_epochs * epochs / experiment.epochs, 4)
    return experiment.model_copy(update={"epochs": epochs, "schedule_epochs": max(planned, epochs) if planned else 0.0})


def matched(config: AnyModelConfig, spec: DataSpec, goal: int) -> AnyModelConfig:
    """Return the model at the width whose number of parameters is nearest to `goal`; its other fields stay.

    Raises:
        UsageError: where no width up to 16 times the given one has as many.
    """

    def count(width: int) -> int:
        with torch.device("meta"):
            return inspection.parameters(config.with_width(width).build(spec))

    low, high = 1, WIDEST * config.width
    if count(high) < goal:
        raise UsageError(f"{config.name} cannot be widened to {goal:,} parameters; match to a smaller model")
    while low < high:  # the first width with as many
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= goal else (middle + 1, high)
    nearest = min((max(low - 1, 1), low), key=lambda width: abs(count(width) - goal))
    return config.with_width(nearest)
