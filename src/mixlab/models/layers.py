"""Layers that more than one architecture is made of."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mixlab.errors import UsageError
from mixlab.kernels import choice, depthwise, library

Initialisation = Literal["default", "kaiming", "truncated_normal"]
Fraction = Annotated[float, Field(ge=0, lt=1)]  # of what is dropped while training


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
        if self.training and self.bias is not None and x.dim() == 4 and self._is_fast(x):
            return depthwise.depthwise(x.to(library.precision(x)), self.weight, self.bias)
        if depthwise.is_slow(x, self.kernel_size[0]):
            return depthwise.stock(x, self.weight, self.bias)
        return super().forward(functional.pad(x, self.even_padding) if self.even_padding else x)

    def _is_fast(self, x: Tensor) -> bool:
        rows, columns = x.shape[2:]
        return library.is_usable(x) and choice.is_ours(
            "depthwise", x, rows, columns, self.in_channels, self.kernel_size[0]
        )


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


class MLP(nn.Sequential):
    """Two linear layers with GELU between, each followed by dropout, over the last axis."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(dim, hidden_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden_dim, dim), nn.Dropout(dropout)
        )


def cut_patches(
    x: Float[Tensor, "batch channels height width"], patch_size: int
) -> Float[Tensor, "batch patches values"]:
    """Cut images into squares, row by row; what is left over at the right and the bottom is dropped.

    The values of a patch stand in the order (channel, row, column): a linear layer on them is the convolution of the
    same weights with this kernel and stride.
    """
    batch, channels, height, width = x.shape
    rows, columns = height // patch_size, width // patch_size
    x = x[:, :, : rows * patch_size, : columns * patch_size]
    x = x.reshape(batch, channels, rows, patch_size, columns, patch_size).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(batch, rows * columns, channels * patch_size**2)


def convert_projections(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state whose linear layers are the convolutions that `like` has in their place, or the other way.

    A 1x1 convolution and a linear layer hold the same numbers, and so do a convolution that cuts patches and a linear
    layer on cut patches. Whatever else differs stays as it is.
    """

    def fitted(tensor: Tensor, goal: Tensor) -> Tensor:
        same = {tensor.ndim, goal.ndim} == {2, 4} and tensor.flatten(1).shape == goal.flatten(1).shape
        return tensor.reshape(goal.shape) if same else tensor

    return {name: fitted(tensor, like[name]) if name in like else tensor for name, tensor in state.items()}


def check_patch(patch_size: int, image_size: int) -> None:
    """Raise UsageError where an image, in pixels, is smaller than one patch."""
    if image_size < patch_size:
        raise UsageError(
            f"model.patch_size={patch_size} is larger than the image ({image_size} px); "
            "choose a smaller patch or a larger data.image_size"
        )


def unread_edge(image_size: int, patch_size: int, stride: int, padding: int = 0) -> int:
    """Return how many pixels at the right, and as many at the bottom, are in no patch."""
    padded = image_size + 2 * padding
    read = (padded - patch_size) // stride * stride + patch_size
    return max(padded - read - padding, 0)


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Return the rate of each block: from 0 at the first, linearly, to `last` (Huang et al., 2016)."""
    return [last * place / max(depth - 1, 1) for place in range(depth)]


def initialise(model: nn.Module, scheme: Initialisation) -> None:
    """Draw the weights of every convolution and linear layer again; their biases are 0 then.

    "kaiming" is that of He et al. (2015); "truncated_normal" has a standard deviation of 0.02, as is usual in
    transformers; "default" leaves what torch drew.
    """
    if scheme == "default":
        return
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if scheme == "kaiming":
                nn.init.kaiming_normal_(layer.weight)
            else:
                nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
