"""A depthwise convolution whose gradients are as fast as the convolution itself."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mixlab.kernels import operators
from mixlab.kernels.operators import Map, PerChannel, Taps


def depthwise(x: Map, weight: Taps, bias: PerChannel) -> Map:
    """Convolve each channel with its own kernel, at stride 1; the output has the size of the input.

    Zeros surround the image; an even kernel has one more of them on the right and at the bottom.
    """
    return _Depthwise.apply(x, weight, bias)  # pyright: ignore[reportReturnType]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, weight)
        return operators.depthwise_forward(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        found, taps, biases = operators.depthwise_backward(gradient, x, weight, of_input, of_weight)
        return (
            found if of_input else None,
            taps.to(weight.dtype) if of_weight else None,
            biases.to(weight.dtype) if of_bias else None,
        )
