"""Depthwise filters drawn with the covariance that trained ones were found to have (Trockman et al., 2022).

Neighbouring weights of a trained filter resemble each other, weights far from the middle are small, and both reach
farther the deeper the block is. Here a filter is a draw of a Gaussian process under a Gaussian window, a simpler closed
form than the paper's.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def covariance(side: int, width: float) -> Float[Tensor, "taps taps"]:
    """Return the covariance of the weights of a filter, row by row, float64; its trace is 1.

    Args:
        width: standard deviation of the window and length over which weights resemble each other, in taps.
    """
    middle = torch.arange(side, dtype=torch.float64) - (side - 1) // 2  # of an even side too: see SameConv2d
    places = torch.cartesian_prod(middle, middle)
    window = (-places.square().sum(1) / (2 * width**2)).exp()
    alike = (-torch.cdist(places, places).square() / (2 * width**2)).exp()
    found = window[:, None] * alike * window
    return found / found.trace()


def draw_filters(channels: int, side: int, share: float) -> Float[Tensor, "channels 1 side side"]:
    """Draw the filters of a block at a share of the depth, from 0 (the first) to 1, float32."""
    width = side / 9 * (0.5 + 0.5 * share + 1.5 * share**2)  # a filter of 9 taps: the paper's rise, from 0.5 to 2.5
    factor = _root(covariance(side, width))
    drawn = torch.randn(channels, side**2, dtype=torch.float64) @ factor
    return drawn.view(channels, 1, side, side).float()


@torch.no_grad()
def initialise_filters(layers: list[nn.Conv2d]) -> None:
    """Draw the filters of depthwise layers, the first block's first."""
    for place, layer in enumerate(layers):
        layer.weight.copy_(draw_filters(len(layer.weight), layer.kernel_size[0], place / max(len(layers) - 1, 1)))


def _root(matrix: Tensor) -> Tensor:
    """Return the symmetric square root of a covariance, which may be singular."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
