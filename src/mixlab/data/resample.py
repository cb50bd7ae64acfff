"""The one resize of the project: two separable antialiased matrix products, in float.

A region of an image and an output size give one matrix per axis, so cropping, shifting, flipping, zooming and resizing
are a single step, for a batch of regions as for one. Evaluate, predict and every export use it with `square_region`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mixlab.spec import ResizeMode


def resample_matrix(
    start: Float[Tensor, " batch"], length: Float[Tensor, " batch"], size_in: int, size_out: int
) -> Float[Tensor, "batch size_out size_in"]:
    """Return the weights that read `size_out` pixels from `[start, start + length)` of `size_in` pixels.

    Linear interpolation; the triangle widens where the region shrinks (antialiasing, as Pillow's BILINEAR). A negative
    length reads backwards. An output pixel whose centre lies outside the image has no weights: it reads 0.
    """
    step = length / size_out  # (batch,)
    centres = start[:, None] + (torch.arange(size_out, device=start.device) + 0.5) * step[:, None]
    pixels = torch.arange(size_in, device=start.device) + 0.5
    width = step.abs().clamp(min=1)[:, None, None]
    weights = (1 - (pixels - centres[:, :, None]).abs() / width).clamp(min=0)  # (batch, size_out, size_in)
    inside = (centres >= 0) & (centres <= size_in)
    return weights / weights.sum(2, keepdim=True).clamp(min=1e-6) * inside[:, :, None]


def resample(
    images: Float[Tensor, "batch channels height width"],
    region: Float[Tensor, "batch 4"],
    size: int,
    fill: Float[Tensor, " channels"],
) -> Float[Tensor, "batch channels {size} {size}"]:
    """Read a square of `size` pixels from one region (top, left, height, width; in pixels) of each image.

    What lies outside the image reads as `fill`, one value per channel.
    """
    height, width = images.shape[2:]
    rows = resample_matrix(region[:, 0], region[:, 2], height, size)[:, None]  # (batch, 1, size, height)
    columns = resample_matrix(region[:, 1], region[:, 3], width, size)[:, None]  # (batch, 1, size, width)
    offset = fill.view(-1, 1, 1)
    return rows @ (images - offset) @ columns.transpose(2, 3) + offset


def square_region(height: int, width: int, mode: ResizeMode) -> tuple[float, float, float, float]:
    """Return the region (top, left, height, width) of an image that becomes the square input.

    "crop" takes the centred square of the shorter side, "pad" that of the longer side, "squash" the whole image.
    """
    if mode == "squash":
        return 0.0, 0.0, float(height), float(width)
    side = min(height, width) if mode == "crop" else max(height, width)
    return (height - side) / 2, (width - side) / 2, float(side), float(side)


def resize(
    images: Float[Tensor, "batch channels height width"], size: int, mode: ResizeMode, fill: Float[Tensor, " channels"]
) -> Float[Tensor, "batch channels {size} {size}"]:
    """Resize images of one size to the square that the network sees."""
    if images.shape[2] == images.shape[3] == size:
        return images
    region = torch.tensor(square_region(images.shape[2], images.shape[3], mode), device=images.device)
    return resample(images, region.expand(images.shape[0], 4), size, fill)
