"""Layers that more than one architecture is made of."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Initialisation = Literal["default", "kaiming"]


class Normalize(nn.Module):
    """Subtract the mean and divide by the standard deviation, per channel of pixels in [0, 1].

    The first layer of every model, so that nothing exported or served can forget it. The numbers come from the
    DataSpec and are no part of the state: weights can move to data of another mean.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        return (x - self.mean) / self.std


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position (Ba et al., 2016), for NCHW feature maps."""

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SameConv2d(nn.Conv2d):
    """A depthwise convolution of stride 1 whose output has the size of its input.

    An even kernel pads one more on the right and bottom, as `padding="same"` does, but by name and visibly: that word
    hides the layer from counters of operations and from quantisers.
    """

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__(dim, dim, kernel_size, padding=0 if kernel_size % 2 == 0 else kernel_size // 2, groups=dim)
        before = (kernel_size - 1) // 2
        self.even_padding = (before, kernel_size // 2) * 2 if kernel_size % 2 == 0 else ()

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(functional.pad(x, self.even_padding) if self.even_padding else x)


class DropPath(nn.Module):
    """Leave out a residual branch for whole images while training (stochastic depth, Huang et al., 2016).

    Args:
        probability: of leaving the branch out, in [0, 1); the branches that stay are scaled up to keep the mean.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) < keep
        return x * kept.to(x.dtype) / keep


def initialise(model: nn.Module, scheme: Initialisation) -> None:
    """Draw the weights of every convolution and linear layer again ("kaiming": He et al., 2015; biases 0)."""
    if scheme == "default":
        return
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
