"""The same for all: epochs from a budget, and widths from a number of parameters."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from mixlab.comparison.request import Budget
from mixlab.config import digest
from mixlab.data.data_set import DataSet
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


def load_each(experiments: Iterable[Experiment]) -> list[DataSet]:
    """Return the data of each experiment, carved by seed 0; what several share is loaded once."""
    loaded: dict[tuple[str, str], DataSet] = {}
    found = []
    for experiment in experiments:
        key = (digest(experiment.data), experiment.protocol)
        if key not in loaded:
            loaded[key] = experiment.data.load(0, carve_validation=experiment.protocol == "honest")
        found.append(loaded[key])
    return found


def cost_of(experiment: Experiment, data: DataSet) -> Cost:
    spec = data.spec
    model = _shape(experiment.model, spec)
    macs = inspection.macs(model, spec.channels, spec.image_size)
    return Cost(inspection.parameters(model), macs, len(data.train))


def parameters_of(config: AnyModelConfig, spec: DataSpec) -> int:
    return inspection.parameters(_shape(config, spec))


def with_budget(experiment: Experiment, budget: Budget, cost: Cost) -> Experiment:
    """Return the experiment with as many epochs as the budget pays for; a time is left to the training itself.

    A schedule that is planned for longer keeps its proportion.

    Raises:
        UsageError: where the budget does not pay for one step.
    """
    if not budget.gives_epochs:
        return experiment
    batch = min(experiment.batch_size, cost.train_images)
    per_epoch = experiment.steps_per_epoch(cost.train_images) * batch  # images
    macs = cost.macs * experiment.relative_area(cost.train_images, experiment.data.image_size)
    spent = {"epochs": 1.0, "images": per_epoch, "macs": BACKWARD * macs * per_epoch}[budget.kind]
    epochs = round(budget.amount / spent, 4)
    if epochs * per_epoch < batch:
        raise UsageError(f"a budget of {budget} does not pay for one step of {batch} images")
    planned = round(experiment.schedule_epochs * epochs / experiment.epochs, 4)
    return experiment.model_copy(update={"epochs": epochs, "schedule_epochs": max(planned, epochs) if planned else 0.0})


def matched(config: AnyModelConfig, spec: DataSpec, goal: int) -> AnyModelConfig:
    """Return the model at the width whose number of parameters is nearest to `goal`; its other fields stay.

    Raises:
        UsageError: where no width up to 16 times the given one has as many.
    """

    def count(width: int) -> int:
        return parameters_of(config.with_width(width), spec)

    low, high = 1, WIDEST * config.width
    if count(high) < goal:
        raise UsageError(f"{config.name} cannot be widened to {goal:,} parameters; match to a smaller model")
    while low < high:  # the first width with as many
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= goal else (middle + 1, high)
    nearest = min((max(low - 1, 1), low), key=lambda width: abs(count(width) - goal))
    return config.with_width(nearest)


def _shape(config: AnyModelConfig, spec: DataSpec) -> nn.Module:
    """Return a network without numbers."""
    with torch.device("meta"):
        return config.build(spec)
