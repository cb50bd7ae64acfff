"""A matrix product over channels with bias and activation on the way out."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from mixlab.kernels.gpu import launch
from mixlab.kernels.gpu.activation import activation

TILE = (128, 128, 64)  # positions, outputs and inputs; 8 warps share it
GROUP = 8  # blocks of positions whose programs run side by side, so that the L2 cache keeps their rows


@triton.jit
def _product(
    x, matrix, bias, found, positions, channels,
    POSITIONS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, GROUP: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    blocks, across = tl.cdiv(positions, POSITIONS), tl.cdiv(channels, OUTPUTS)
    first = tl.program_id(0) // (GROUP * across) * GROUP
    high = tl.minimum(blocks - first, GROUP)
    inside = tl.program_id(0) % (GROUP * across)
    place = (first + inside % high).to(tl.int64) * POSITIONS + tl.arange(0, POSITIONS)
    output = inside // high * OUTPUTS + tl.arange(0, OUTPUTS)
    total = tl.zeros((POSITIONS, OUTPUTS), tl.float32)
    for start in range(0, channels, INPUTS):
        channel = start + tl.arange(0, INPUTS)
        known = channel < channels
        left = tl.load(
            x + place[:, None] * channels + channel[None, :],
            mask=(place < positions)[:, None] & known[None, :],
            other=0.0,
        )
        right = tl.load(
            matrix + output[None, :] * channels + channel[:, None],
            mask=(output < channels)[None, :] & known[:, None],
            other=0.0,
        )
        total = tl.dot(left, right, total)
    total += tl.load(bias + output, mask=output < channels, other=0.0)[None, :]
    offsets = place[:, None] * channels + output[None, :]
    tl.store(found + offsets, activation(total, RELU), mask=(place < positions)[:, None] & (output < channels)[None, :])


def pointwise(x: Tensor, matrix: Tensor, bias: Tensor, relu: bool) -> Tensor:
    """Return GELU(matrix x + bias), or ReLU, of each position.

    float32 is PyTorch's product and another pass: the matrix units have no float32, so a product of our own would be
    slower than the library's.

    Args:
        matrix: (channels, channels, 1, 1).
    """
    if x.dtype == torch.float32:
        product = functional.conv2d(x, matrix, bias)
        return product.relu_() if relu else functional.gelu(product)
    channels, found = x.shape[1], torch.empty_like(x)
    positions = x.numel() // channels
    grid = (triton.cdiv(positions, TILE[0]) * triton.cdiv(channels, TILE[1]),)
    flat = matrix.flatten(1).to(x.dtype).contiguous()
    with launch.on(x.device):
        _product[grid](x, flat, bias, found, positions, channels, *TILE, GROUP, relu, num_warps=8, num_stages=3)
    return found
