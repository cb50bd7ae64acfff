"""One pass over maps as matrices (positions, channels), with the sums that batch normalisation needs."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mixlab.kernels.gpu import launch
from mixlab.kernels.gpu.gelu import gelu_and_slope
from mixlab.kernels.gpu.window import per_channel


@triton.jit
def _block(step, positions, channels, STEPS: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr):
    """Return the offsets of a program's block number `step`, and which of them are inside."""
    place = (tl.program_id(0).to(tl.int64) * STEPS + step) * POSITIONS + tl.arange(0, POSITIONS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (place < positions)[:, None] & (channel < channels)[None, :]
    return place[:, None] * channels + channel[None, :], inside


@triton.jit
def _read(x, offsets, inside):
    return tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _own(sums, channels, CHANNELS: tl.constexpr):
    """Return where a program's own sums lie, and which of them are inside."""
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    return sums + tl.program_id(0).to(tl.int64) * channels + channel, channel < channels


@triton.jit
def _gelu_forward(
    x, found, slope, values, squares, positions, channels,
    STEPS: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    total_squares = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for step in range(STEPS):
        offsets, inside = _block(step, positions, channels, STEPS, POSITIONS, CHANNELS)
        y, derivative = gelu_and_slope(_read(x, offsets, inside))  # GELU of the zeros outside is 0
        tl.store(found + offsets, y, mask=inside)
        tl.store(slope + offsets, derivative, mask=inside)
        total += y
        total_squares += y * y
    own, inside = _own(values, channels, CHANNELS)
    tl.store(own, tl.sum(total, 0), mask=inside)
    own, inside = _own(squares, channels, CHANNELS)
    tl.store(own, tl.sum(total_squares, 0), mask=inside)


@triton.jit
def _slope_gradient(
    gradient, y, slope, a, b, c, found, sums, positions, channels,
    STEPS: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    of_gradient = per_channel(a, channel, channels)
    of_y = per_channel(b, channel, channels)
    alone = per_channel(c, channel, channels)
    total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for step in range(STEPS):
        offsets, inside = _block(step, positions, channels, STEPS, POSITIONS, CHANNELS)
        before = _read(gradient, offsets, inside) * of_gradient + _read(y, offsets, inside) * of_y + alone
        values = before * _read(slope, offsets, inside)  # 0 outside
        tl.store(found + offsets, values, mask=inside)
        total += values
    own, inside = _own(sums, channels, CHANNELS)
    tl.store(own, tl.sum(total, 0), mask=inside)


@triton.jit
def _add_scaled(
    x1, scale1, x2, scale2, shift, found, positions, channels,
    STEPS: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    factor1 = per_channel(scale1, channel, channels)
    factor2 = per_channel(scale2, channel, channels)
    alone = per_channel(shift, channel, channels)
    for step in range(STEPS):
        offsets, inside = _block(step, positions, channels, STEPS, POSITIONS, CHANNELS)
        values = _read(x1, offsets, inside) * factor1 + _read(x2, offsets, inside) * factor2 + alone
        tl.store(found + offsets, values, mask=inside)


@triton.jit
def _sum_products(
    x, y, values, products, positions, channels,
    STEPS: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    total_products = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for step in range(STEPS):
        offsets, inside = _block(step, positions, channels, STEPS, POSITIONS, CHANNELS)
        first = _read(x, offsets, inside)
        total += first
        total_products += first * _read(y, offsets, inside)
    own, inside = _own(values, channels, CHANNELS)
    tl.store(own, tl.sum(total, 0), mask=inside)
    own, inside = _own(products, channels, CHANNELS)
    tl.store(own, tl.sum(total_products, 0), mask=inside)


def gelu_forward(x: Tensor) -> tuple[Tensor, ...]:
    """Return y = GELU(x), its derivative, and the sums of y and of its square."""
    found, slope, values, squares = torch.empty_like(x), torch.empty_like(x), _partial(x), _partial(x)
    _launch(_gelu_forward, x, x, found, slope, values, squares)
    return found, slope, launch.added(values), launch.added(squares)


def slope_gradient(
    gradient: Tensor, y: Tensor, slope: Tensor, a: Tensor, b: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (a * gradient + b * y + c) * slope, and its sums."""
    found, sums = torch.empty_like(y), _partial(y)
    _launch(_slope_gradient, y, gradient, y, slope, a, b, c, found, sums)
    return found, launch.added(sums)


def add_scaled(x1: Tensor, scale1: Tensor, x2: Tensor, scale2: Tensor, shift: Tensor) -> Tensor:
    """Return scale1 * x1 + scale2 * x2 + shift."""
    found = torch.empty_like(x1)
    _launch(_add_scaled, x1, x1, scale1, x2, scale2, shift, found)
    return found


def sum_products(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of x, and of x * y."""
    values, products = _partial(x), _partial(x)
    _launch(_sum_products, x, x, y, values, products)
    return launch.added(values), launch.added(products)


def _launch(kernel: Any, x: Tensor, *arguments: Tensor) -> None:
    channels = x.shape[1]
    tile = launch.flat_tile(channels)
    grid = (_programs(x), triton.cdiv(channels, tile.channels))
    with launch.on(x.device):
        kernel[grid](
            *arguments, x.numel() // channels, channels, launch.STRIP, tile.columns, tile.channels, num_warps=4
        )


def _partial(x: Tensor) -> Tensor:
    return launch.partial_sums(x, _programs(x))


def _programs(x: Tensor) -> int:
    channels = x.shape[1]
    return triton.cdiv(x.numel() // channels, launch.flat_tile(channels).columns * launch.STRIP)
