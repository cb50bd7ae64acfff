"""The operators of `mixlab.kernels.operators` by Triton, under the same names."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mixlab.kernels import operators
from mixlab.kernels.gpu import depthwise, elementwise, pointwise, taps


def register(device_type: str) -> None:
    """Let the operators run these on a kind of device: "cuda", or "cpu" under Triton's interpreter."""
    for implementation in (
        depthwise_forward,
        depthwise_backward,
        mixing_forward,
        mixing_backward,
        blocks_inference,
        activation_inference,
        mean_of_positions,
        activation_forward,
        activation_backward,
        add_scaled,
        sum_products,
    ):
        operators.LIBRARY.impl(implementation.__name__, implementation, device_type.upper())


def depthwise_forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return depthwise.forward(_dense(x), weight, _single(bias))


def depthwise_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, of_input: bool, of_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    x, gradient = _dense(x), _dense(gradient.to(x.dtype))
    return (
        depthwise.input_gradient(gradient, weight) if of_input else x.new_empty(0),
        taps.gradient(gradient, x, weight.shape[-1]) if of_weight else weight.new_empty(0, dtype=torch.float32),
        gradient.sum((0, 2, 3), dtype=torch.float64),
    )


def mixing_forward(
    x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, relu: bool = False
) -> tuple[Tensor, ...]:
    return depthwise.mixing(_dense(x), _single(scale), _single(shift), weight, _single(bias), relu)


def mixing_backward(
    gradient: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    y: Tensor,
    slope: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    of_weight: bool,
) -> tuple[Tensor, ...]:
    x, gradient, y, slope = _dense(x), _dense(gradient.to(x.dtype)), _dense(y), _dense(slope)
    scale, shift = _single(scale), _single(shift)
    inside, of_bias = elementwise.slope_gradient(gradient, y, slope, _single(a), _single(b), _single(c))
    of_x, of_scale, of_shift = depthwise.reach(inside, gradient, x, scale, weight)
    nothing = weight.new_empty(0, dtype=torch.float32)
    of_taps = taps.gradient(inside, x, weight.shape[-1], scale, shift) if of_weight else nothing
    return of_x, of_scale, of_shift, of_taps, of_bias


def blocks_inference(x: Tensor, parameters: Sequence[Tensor], relu: bool = False) -> Tensor:
    for first in range(0, len(parameters), len(operators.BLOCK)):
        scale, shift, weight, bias, after, matrix, matrix_bias = parameters[first : first + len(operators.BLOCK)]
        affine, last = (_single(scale), _single(shift)), _single(after)
        mixed = depthwise.residual(_dense(x), *affine, weight, _single(bias), last, relu)
        x = pointwise.pointwise(mixed, matrix, _single(matrix_bias), relu)
    return x


def activation_inference(x: Tensor, relu: bool = False) -> Tensor:
    return _dense(x).relu() if relu else functional.gelu(_dense(x))


def mean_of_positions(x: Tensor) -> Tensor:
    return x.mean((2, 3), dtype=torch.float32)


def activation_forward(x: Tensor, relu: bool = False) -> tuple[Tensor, ...]:
    return elementwise.activation_forward(_dense(x), relu)


def activation_backward(gradient: Tensor, y: Tensor, slope: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    gradient, y, slope = _dense(gradient.to(y.dtype)), _dense(y), _dense(slope)
    return elementwise.slope_gradient(gradient, y, slope, torch.ones_like(_single(a)), _single(b), _single(a))


def add_scaled(x1: Tensor, scale1: Tensor, shift1: Tensor, x2: Tensor, scale2: Tensor, shift2: Tensor) -> Tensor:
    shift = _single(shift1) + _single(shift2)
    return elementwise.add_scaled(_dense(x1), _single(scale1), _dense(x2), _single(scale2), shift)


def sum_products(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return elementwise.sum_products(_dense(x.to(y.dtype)), _dense(y))


def _dense(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x  # ReLU's slope is empty


def _single(values: Tensor) -> Tensor:
    return values.float().contiguous()
