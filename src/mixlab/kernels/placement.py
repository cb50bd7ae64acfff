"""In which memory format a model is fast on a device."""

import torch
from torch import nn

from mixlab.kernels import library
from mixlab.kernels.depthwise import FAST_SIDE


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model to a device, in the memory format that is fast there."""
    return model.to(device).to(memory_format=memory_format(model, device))  # pyright: ignore[reportCallIssue]


def memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Return channels_last, except where that has no fast depthwise kernel: large sides on a GPU without ours."""
    sides = [
        max(layer.kernel_size)
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
    ]
    large = max(sides, default=1) > FAST_SIDE
    if device.type == "mps" or (device.type == "cuda" and large and not library.is_ready(device)):
        return torch.contiguous_format
    return torch.channels_last
