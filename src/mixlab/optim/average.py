"""The exponential moving average of a model's weights and buffers."""

import torch
from torch import Tensor, nn


def ramped_decay(decay: float, step: int) -> float:
    """Return the decay of a step: early steps forget faster, so that the first random weights leave the average."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    """Move the average towards the model's state in place; BatchNorm's statistics are averaged, counters copied."""
    state = model.state_dict()
    floating = [name for name, tensor in state.items() if tensor.is_floating_point()]
    torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
        [average[name] for name in floating], [state[name] for name in floating], 1 - ramped_decay(decay, step)
    )
    for name in state.keys() - set(floating):
        average[name].copy_(state[name])
