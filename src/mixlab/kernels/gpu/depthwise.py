"""Depthwise convolutions of channels_last maps, and what is done to their output before it is stored."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mixlab.kernels.gpu import launch
from mixlab.kernels.gpu.activation import activation, activation_and_slope
from mixlab.kernels.gpu.launch import Tile
from mixlab.kernels.gpu.window import convolve, inside, load, per_channel, place, store, store_sums


@triton.jit
def _plain(
    x, taps, bias, found, rows, columns, channels,
    BEFORE: tl.constexpr, SIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    image, first, column = place(rows, columns, ROWS, COLUMNS, tl.program_id(0))
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    start = image.to(tl.int64) * rows * columns * channels
    added = per_channel(bias, channel, channels)
    sums = convolve(
        x + start, taps, added, added, added, first, column, channel, rows, columns, channels,
        BEFORE, False, SIDE, ROWS,
    )  # fmt: skip
    for row in tl.static_range(ROWS):
        store(sums[row], found + start, first + row, column, channel, rows, columns, channels)


@triton.jit
def _mixing(
    x, scale, shift, taps, bias, found, slope, partial, rows, columns, channels,
    BEFORE: tl.constexpr, SIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
    RELU: tl.constexpr,
):  # fmt: skip
    image, first, column = place(rows, columns, ROWS, COLUMNS, tl.program_id(0))
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    start = image.to(tl.int64) * rows * columns * channels
    sums = convolve(
        x + start, taps, per_channel(bias, channel, channels), per_channel(scale, channel, channels),
        per_channel(shift, channel, channels), first, column, channel, rows, columns, channels,
        BEFORE, True, SIDE, ROWS,
    )  # fmt: skip
    total = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    total_squares = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    for row in tl.static_range(ROWS):
        y, derivative = activation_and_slope(sums[row], RELU)
        store(y, found + start, first + row, column, channel, rows, columns, channels)
        if not RELU:
            store(derivative, slope + start, first + row, column, channel, rows, columns, channels)
        counted = tl.where(inside(first + row, column, channel, rows, columns, channels), y, 0.0)
        total += counted
        total_squares += counted * counted
    store_sums(total, total_squares, partial, channel, channels)


@triton.jit
def _residual(
    x, scale, shift, taps, bias, after, found, rows, columns, channels,
    BEFORE: tl.constexpr, SIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
    RELU: tl.constexpr,
):  # fmt: skip
    image, first, column = place(rows, columns, ROWS, COLUMNS, tl.program_id(0))
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    start = image.to(tl.int64) * rows * columns * channels
    factor = per_channel(scale, channel, channels)
    added = per_channel(shift, channel, channels)
    sums = convolve(
        x + start, taps, per_channel(bias, channel, channels), factor, added, first, column, channel,
        rows, columns, channels, BEFORE, True, SIDE, ROWS,
    )  # fmt: skip
    behind = per_channel(after, channel, channels)
    for row in tl.static_range(ROWS):
        centre = load(x + start, first + row, column, channel, rows, columns, channels)
        mixed = centre * factor + added + behind * activation(sums[row], RELU)
        store(mixed, found + start, first + row, column, channel, rows, columns, channels)


@triton.jit
def _reach(
    of_output, gradient, x, scale, taps, found, partial, rows, columns, channels,
    BEFORE: tl.constexpr, SIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    image, first, column = place(rows, columns, ROWS, COLUMNS, tl.program_id(0))
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    start = image.to(tl.int64) * rows * columns * channels
    factor = per_channel(scale, channel, channels)
    sums = convolve(
        of_output + start, taps, factor * 0.0, factor, factor, first, column, channel, rows, columns, channels,
        BEFORE, False, SIDE, ROWS,
    )  # fmt: skip
    total = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    total_products = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    for row in tl.static_range(ROWS):
        past = load(gradient + start, first + row, column, channel, rows, columns, channels)
        input_ = load(x + start, first + row, column, channel, rows, columns, channels)
        known = inside(first + row, column, channel, rows, columns, channels)
        whole = tl.where(known, sums[row] + past, 0.0)
        store(whole * factor, found + start, first + row, column, channel, rows, columns, channels)
        total += whole
        total_products += whole * input_
    store_sums(total_products, total, partial, channel, channels)


def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the convolution."""
    found = torch.empty_like(x)
    _launch(_plain, x, weight, False, x, _columns(weight), bias, found)
    return found


def input_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of a convolution's input."""
    found, nothing = torch.empty_like(gradient), weight.new_zeros(len(weight), dtype=torch.float32)
    _launch(_plain, gradient, weight, True, gradient, _columns(weight.flip(2, 3)), nothing, found)
    return found


def mixing(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> tuple[Tensor, ...]:
    """Return y = f(convolution of scale * x + shift), f's derivative, and the sums of y and of its square."""
    found, slope = torch.empty_like(x), x.new_empty(0) if relu else torch.empty_like(x)
    partial = launch.partial_sums(x, _programs(x, weight))
    arguments = (x, scale, shift, _columns(weight), bias, found, slope, partial)
    _launch(_mixing, x, weight, False, *arguments, constants=(relu,))
    return found, slope, *launch.added(partial)


def residual(
    x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, after: Tensor, relu: bool
) -> Tensor:
    """Return h + after * f(convolution of h) of h = scale * x + shift."""
    found = torch.empty_like(x)
    arguments = (x, scale, shift, _columns(weight), bias, after, found)
    _launch(_residual, x, weight, False, *arguments, constants=(relu,))
    return found


def reach(of_output: Tensor, gradient: Tensor, x: Tensor, scale: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Return scale * whole, and the sums of whole * x and of whole, the gradient of a convolution's input plus another.

    Args:
        of_output: the gradient of the convolution's output.
        gradient: what reaches the input past the convolution.
    """
    found, partial = torch.empty_like(x), launch.partial_sums(x, _programs(x, weight))
    _launch(_reach, x, weight, True, of_output, gradient, x, scale, _columns(weight.flip(2, 3)), found, partial)
    return found, *launch.added(partial)


def _launch(
    kernel: Any, x: Tensor, weight: Tensor, backward: bool, *arguments: Tensor, constants: tuple[bool, ...] = ()
) -> None:
    _, channels, rows, columns = x.shape
    side, tile = weight.shape[-1], _tile(x, weight)
    before = side // 2 if backward else (side - 1) // 2  # an even kernel has one more zero behind; backward, before
    grid = (_programs(x, weight), triton.cdiv(channels, tile.channels))
    with launch.on(x.device):
        kernel[grid](*arguments, rows, columns, channels, before, side, *tile, *constants, num_warps=tile.warps)


def _programs(x: Tensor, weight: Tensor) -> int:
    return len(x) * _tile(x, weight).cut(x.shape[2], x.shape[3])


def _tile(x: Tensor, weight: Tensor) -> Tile:
    return launch.window_tile(x.shape[2], x.shape[3], x.shape[1], weight.shape[-1])


def _columns(weight: Tensor) -> Tensor:
    """Return taps as (side * side, channels), so that channels lie beside each other as they do in maps."""
    return weight.float().flatten(1).t().contiguous()
