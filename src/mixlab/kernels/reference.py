"""The operators of `operators` in plain PyTorch, for any device and precision: what the fast ones must equal."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mixlab.kernels.operators import BLOCK


def depthwise_forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    side = weight.shape[-1]
    before, after = (side - 1) // 2, side // 2
    padded = functional.pad(x, (before, after, before, after))
    return functional.conv2d(padded, weight, bias, groups=x.shape[1])


def depthwise_backward(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        leaves = [each.detach().requires_grad_() for each in (x, weight, x.new_zeros(x.shape[1]))]
        return torch.autograd.grad(depthwise_forward(*leaves), leaves, gradient)


def mixing_forward(
    x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, relu: bool = False
) -> tuple[Tensor, ...]:
    return activation_forward(depthwise_forward(_affine(x, scale, shift), weight, bias), relu)


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
) -> tuple[Tensor, ...]:
    inside = (_affine(gradient, a, c) + _affine(y, b, torch.zeros_like(b))) * _slope(y, slope)
    of_input, of_weight, of_bias = depthwise_backward(inside, _affine(x, scale, shift), weight)
    whole = of_input + gradient
    return whole * _spread(scale), _sum(whole * x), _sum(whole), of_weight, of_bias


def blocks_inference(x: Tensor, parameters: Sequence[Tensor], relu: bool = False) -> Tensor:
    for first in range(0, len(parameters), len(BLOCK)):
        scale, shift, weight, bias, after, matrix, matrix_bias = parameters[first : first + len(BLOCK)]
        h = _affine(x, scale, shift)
        mixed = h + _spread(after) * activation_inference(depthwise_forward(h, weight, bias), relu)
        x = activation_inference(functional.conv2d(mixed, matrix, matrix_bias), relu)
    return x


def activation_inference(x: Tensor, relu: bool = False) -> Tensor:
    return x.relu() if relu else functional.gelu(x)


def mean_of_positions(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def activation_forward(x: Tensor, relu: bool = False) -> tuple[Tensor, ...]:
    found = activation_inference(x, relu)
    density = torch.exp(-x.square() / 2) / (2 * torch.pi) ** 0.5
    slope = x.new_empty(0) if relu else torch.special.ndtr(x) + x * density
    return found, slope, _sum(found), _sum(found.square())


def activation_backward(gradient: Tensor, y: Tensor, slope: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    found = (gradient + _affine(y, b, a)) * _slope(y, slope)
    return found, _sum(found)


def add_scaled(x1: Tensor, scale1: Tensor, shift1: Tensor, x2: Tensor, scale2: Tensor, shift2: Tensor) -> Tensor:
    return _affine(x1, scale1, shift1) + _affine(x2, scale2, shift2)


def sum_products(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return _sum(x), _sum(x * y)


def pointwise_forward(
    x1: Tensor,
    scale1: Tensor,
    shift1: Tensor,
    x2: Tensor,
    scale2: Tensor,
    shift2: Tensor,
    matrix: Tensor,
    matrix_bias: Tensor,
    relu: bool = False,
) -> tuple[Tensor, ...]:
    x = add_scaled(x1, scale1, shift1, x2, scale2, shift2)
    return activation_forward(functional.conv2d(x, matrix, matrix_bias), relu)


def pointwise_backward(
    gradient: Tensor,
    y: Tensor,
    slope: Tensor,
    a: Tensor,
    b: Tensor,
    x1: Tensor,
    scale1: Tensor,
    shift1: Tensor,
    x2: Tensor,
    scale2: Tensor,
    shift2: Tensor,
    matrix: Tensor,
) -> tuple[Tensor, ...]:
    above, of_bias = activation_backward(gradient, y, slope, a, b)
    with torch.enable_grad():
        x = add_scaled(x1, scale1, shift1, x2, scale2, shift2)
        x, matrix = (each.detach().requires_grad_() for each in (x, matrix))
        of_x, of_matrix = torch.autograd.grad(functional.conv2d(x, matrix), (x, matrix), above)
    return of_x, of_matrix, of_bias, *sum_products(of_x, x1)


def _slope(y: Tensor, slope: Tensor) -> Tensor:
    return slope if slope.numel() else (y > 0).to(y.dtype)


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return x * _spread(scale) + _spread(shift)


def _spread(values: Tensor) -> Tensor:
    return values[:, None, None]


def _sum(x: Tensor) -> Tensor:
    return x.sum((0, 2, 3))
