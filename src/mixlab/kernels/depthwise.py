"""A depthwise convolution whose gradients are as fast as the convolution itself."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mixlab.kernels import operators
from mixlab.kernels.operators import Map, PerChannel, Taps

FAST_SIDE = 7  # of the largest kernel for which the GPU's library has fast channels_last forms


def depthwise(x: Map, weight: Taps, bias: PerChannel) -> Map:
    """Convolve each channel with its own kernel, at stride 1; the output has the size of the input.

    Zeros surround the image; an even kernel has one more of them on the right and at the bottom.
    """
    return _Depthwise.apply(x, weight, bias)  # pyright: ignore[reportReturnType]


def stock(x: Map, weight: Taps, bias: PerChannel | None) -> Map:
    """Return the same by PyTorch's own convolution, in the memory order in which that is fast."""
    side = weight.shape[-1]
    before, after = (side - 1) // 2, side // 2
    if before != after:
        x, before = functional.pad(x, (before, after, before, after)), 0
    if not is_slow(x, side):
        return functional.conv2d(x, weight, bias, padding=before, groups=x.shape[1])
    planes = weight.clone(memory_format=torch.contiguous_format)  # strides of channels_last would decide for the input
    found = functional.conv2d(x.contiguous(), planes, bias, padding=before, groups=x.shape[1])
    return found.contiguous(memory_format=torch.channels_last)


def is_slow(x: Tensor, side: int) -> bool:
    """Return whether PyTorch's convolution had better not see a map as it lies: channels_last on CUDA, above 7 x 7."""
    return x.device.type == "cuda" and side > FAST_SIDE and not x.is_contiguous()


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
