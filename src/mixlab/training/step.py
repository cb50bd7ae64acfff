"""One optimiser step, a function of the state, a batch, the seed and the step alone."""

import functools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from mixlab import devices, randomness
from mixlab.data.images import Batch
from mixlab.evaluation import inference
from mixlab.experiment import Experiment
from mixlab.kernels import graphs, placement
from mixlab.optim.average import update_average
from mixlab.ranks import ALONE, Part, Ranks
from mixlab.spec import DataSpec
from mixlab.training.state import TrainState


def train_step(
    state: TrainState,
    experiment: Experiment,
    spec: DataSpec,
    batch: Batch,
    rate: float,
    ranks: Ranks = ALONE,
) -> None:
    """Augment one batch of stored images, and take step number `state.step` on it.

    Args:
        spec: with the image size of the step.
        batch: on the model's device; what of the whole batch this rank computes.
        rate: learning rate of the step.
    """
    inputs, targets = inference.as_training_input(experiment, spec, batch, state.step, state.epoch)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    _add_gradients(state, experiment, inputs, targets, batch, ranks)
    if experiment.clip_norm:
        state.scaler.unscale_(state.optimizer)
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), experiment.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average is not None:
        update_average(state.average.state_dict(), state.model, experiment.weight_average, state.step)
    state.step += 1


def _add_gradients(
    state: TrainState, experiment: Experiment, inputs: Tensor, targets: Tensor, batch: Batch, ranks: Ranks
) -> None:
    """Add up gradients and sums over the parts of a batch, wherever they are computed.

    BatchNorm's running statistics become the mean of what each part makes of them, so that no order of parts counts.
    """
    parts = max(experiment.parts, ranks.world)
    statistics = _statistics(state.model) if parts > 1 else []
    before = [statistic.clone() for statistic in statistics]
    means = [torch.zeros_like(statistic) for statistic in statistics]
    if not ranks.leads:  # the leader's sums are of all ranks and all steps before
        state.sums.zero_()
    own = ranks.own_parts(len(batch.whole), experiment.parts)
    as_graph = len(own) == 1 and not experiment.sync_batchnorm and graphs.is_usable(inputs.device)
    for part in own:
        rows = _rows(batch, part)
        if rows.stop or experiment.sync_batchnorm:  # which waits for every rank
            given = inputs[rows], targets[rows]
            work = functools.partial(_add_gradient, state, experiment, len(batch.whole))
            if as_graph and len(given[0]) == part.stop - part.start:  # not one picture is missing
                work = _as_graph(state, work, given)
            randomness.seed_torch(inputs.device, experiment.seed, *_stream(state.step, part))
            work(*given)
        for statistic, mean, old in zip(statistics, means, before, strict=True):
            mean.add_(statistic, alpha=1 / parts)
            statistic.copy_(old)
    if ranks.world > 1:
        ranks.add_up([*_gradients(state.model), *means, state.sums])
    for statistic, mean in zip(statistics, means, strict=True):
        statistic.copy_(mean)


def _rows(batch: Batch, part: Part) -> slice:
    """Return the rows of a part, without the partner that a rank's first image may be mixed with."""
    rows = np.flatnonzero((batch.places >= part.start) & (batch.places < part.stop))
    return slice(rows[0], rows[-1] + 1) if len(rows) else slice(0)


def _stream(step: int, part: Part) -> tuple[str | int, ...]:
    return ("step", step, "layers", *([part.number] if part.number else []))


def _statistics(model: nn.Module) -> list[Tensor]:
    norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    found = [statistic for layer in norms for statistic in (layer.running_mean, layer.running_var)]
    return [statistic for statistic in found if statistic is not None]


def _gradients(model: nn.Module) -> list[Tensor]:
    """Return the gradient of each parameter that learns: zeros where not one picture of this rank can be read."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return [parameter.grad for parameter in learned if parameter.grad is not None]


def _as_graph(state: TrainState, work: graphs.Work, given: tuple[Tensor, Tensor]) -> graphs.Work:
    """Return the work as a graph, captured where the shapes or what learns have changed; there is one at a time."""
    key = (given[0].shape, sum(parameter.requires_grad for parameter in state.model.parameters()))
    if state.graph is None or state.graph[0] != key:
        state.graph = None  # before the next needs its memory
        state.graph = key, graphs.captured(work, given, state.model, [state.sums])
    return state.graph[1]


def _add_gradient(state: TrainState, experiment: Experiment, batch_size: int, inputs: Tensor, targets: Tensor) -> None:
    inputs = inputs.contiguous(memory_format=placement.memory_format(state.model, inputs.device))
    with devices.autocast(inputs.device, experiment.precision):
        logits = state.model(inputs)
    smoothing, weights = experiment.label_smoothing, state.class_weights
    total = functional.cross_entropy(logits.float(), targets, weights, label_smoothing=smoothing, reduction="sum")
    state.scaler.scale(total / batch_size).backward()
    correct = (logits.argmax(1) == targets.argmax(1)).sum()
    state.sums += torch.stack([total.detach(), correct.float(), total.new_full((), len(inputs))])
