"""One optimiser step, a function of the state, a batch, the seed and the step alone."""

import torch
from torch import Tensor
from torch.nn import functional

from mixlab import randomness
from mixlab.data.images import Batch
from mixlab.evaluation import inference
from mixlab.experiment import Experiment
from mixlab.kernels import placement
from mixlab.optim.average import update_average
from mixlab.spec import DataSpec
from mixlab.training.state import TrainState

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def train_step(
    state: TrainState,
    experiment: Experiment,
    spec: DataSpec,
    batch: Batch,
    rate: float,
) -> None:
    """Augment one batch of stored images, and take step number `state.step` on it.

    Args:
        spec: with the image size of the step.
        batch: on the model's device.
        rate: learning rate of the step.
    """
    inputs, targets = inference.as_training_input(experiment, spec, batch, state.step, state.epoch)
    randomness.seed_torch(inputs.device, experiment.seed, "step", state.step, "layers")
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    parts = zip(inputs.tensor_split(experiment.accumulate), targets.tensor_split(experiment.accumulate), strict=True)
    for part, part_targets in parts:
        if len(part):
            _accumulate_gradient(state, experiment, part, part_targets, len(inputs))
    if experiment.clip_norm:
        state.scaler.unscale_(state.optimizer)
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), experiment.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average is not None:
        update_average(state.average.state_dict(), state.model, experiment.weight_average, state.step)
    state.step += 1


def _accumulate_gradient(
    state: TrainState, experiment: Experiment, inputs: Tensor, targets: Tensor, batch_size: int
) -> None:
    inputs = inputs.contiguous(memory_format=placement.memory_format(state.model, inputs.device))
    dtype = DTYPES[experiment.precision]
    with torch.autocast(inputs.device.type, dtype, enabled=dtype != torch.float32):
        logits = state.model(inputs)
    total = functional.cross_entropy(
        logits.float(), targets, label_smoothing=experiment.label_smoothing, reduction="sum"
    )
    state.scaler.scale(total / batch_size).backward()
    correct = (logits.argmax(1) == targets.argmax(1)).sum()
    state.sums += torch.stack([total.detach(), correct.float(), total.new_tensor(float(len(inputs)))])
