"""One pass over maps as matrices (positions, channels), with the sums that batch normalisation needs."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mixlab.kernels.gpu import launch
from mixlab.kernels.gpu.activation import activation_and_slope
from mixlab.kernels.gpu.window import per_channel, store_sums


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
def _activation_forward(
    x, found, slope, partial, positions, channels,
    STEPS: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    total_squares = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for step in range(STEPS):
        offsets, inside = _block(step, positions, channels, STEPS, POSITIONS, CHANNELS)
        y, derivative = activation_and_slope(_read(x, offsets, inside), RELU)  # of the zeros outside it is 0
        tl.store(found + offsets, y, mask=inside)
        if not RELU:
            tl.store(slope + offsets, derivative, mask=inside)
        total += y
        total_squares += y * y
    store_sums(total, total_squares, partial, tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS), channels)


@triton.jit
def _slope_gradient(
    gradient, y, slope, a, b, c, found, partial, positions, channels,
    STEPS: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    of_gradient = per_channel(a, channel, channels)
    of_y = per_channel(b, channel, channels)
    alone = per_channel(c, channel, channels)
    total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for step in range(STEPS):
        offsets, inside = _block(step, positions, channels, STEPS, POSITIONS, CHANNELS)
        output = _read(y, offsets, inside)
        before = _read(gradient, offsets, inside) * of_gradient + output * of_y + alone
        values = tl.where(output > 0, before, 0.0) if RELU else before * _read(slope, offsets, inside)  # 0 outside
        tl.store(found + offsets, values, mask=inside)
        total += values
    own = partial + tl.program_id(0).to(tl.int64) * channels + channel
    tl.store(own, tl.sum(total, 0), mask=channel < channels)


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
    x, y, partial, positions, channels,
    STEPS: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    total_products = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for step in range(STEPS):
        offsets, inside = _block(step, positions, channels, STEPS, POSITIONS, CHANNELS)
        first = _read(x, offsets, inside)
        total += first
        total_products += first * _read(y, offsets, inside)
    store_sums(total, total_products, partial, tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS), channels)


def activation_forward(x: Tensor, relu: bool) -> tuple[Tensor, ...]:
    """Return y = GELU(x) or ReLU(x), its derivative, and the sums of y and of its square."""
    found, slope = torch.empty_like(x), x.new_empty(0) if relu else torch.empty_like(x)
    partial = launch.partial_sums(x, _programs(x))
    _launch(_activation_forward, x, x, found, slope, partial, constants=(relu,))
    return found, slope, *launch.added(partial)


def slope_gradient(
    gradient: Tensor, y: Tensor, slope: Tensor, a: Tensor, b: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (a * gradient + b * y + c) * slope, and its sums."""
    found = torch.empty_like(y)
    partial = torch.empty(_programs(y), y.shape[1], dtype=torch.float32, device=y.device)
    _launch(_slope_gradient, y, gradient, y, slope, a, b, c, found, partial, constants=(slope.numel() == 0,))
    return found, partial.sum(0, dtype=torch.float64)


def add_scaled(x1: Tensor, scale1: Tensor, x2: Tensor, scale2: Tensor, shift: Tensor) -> Tensor:
    """Return scale1 * x1 + scale2 * x2 + shift."""
    found = torch.empty_like(x1)
    _launch(_add_scaled, x1, x1, scale1, x2, scale2, shift, found)
    return found


def sum_products(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Return the sums of x, and of x * y."""
    partial = launch.partial_sums(x, _programs(x))
    _launch(_sum_products, x, x, y, partial)
    return launch.added(partial)


def _launch(kernel: Any, x: Tensor, *arguments: Tensor, constants: tuple[bool, ...] = ()) -> None:
    channels = x.shape[1]
    tile = launch.flat_tile(channels)
    grid = (_programs(x), triton.cdiv(channels, tile.channels))
    with launch.on(x.device):
        kernel[grid](
            *arguments, x.numel() // channels, channels, launch.STRIP, tile.columns, tile.channels,
            *constants, num_warps=4,
        )  # fmt: skip


def _programs(x: Tensor) -> int:
    channels = x.shape[1]
    return triton.cdiv(x.numel() // channels, launch.flat_tile(channels).columns * launch.STRIP)
