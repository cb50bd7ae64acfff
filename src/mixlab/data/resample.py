"""The one resize of the project: two separable antialiased matrix products, in float.

A region of an image and an output size give one matrix per axis, so cropping, shifting, flipping, zooming and resizing
are a single step, for a batch of regions as for one. Evaluate, predict and every export use it with `square_region`.
What has no two axes, a rotation or a shear, is read by `warp`: in training only, and without antialiasing.
"""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from mixlab.spec import ResizeMode

BAND = 1_000_000  # pixels that are floats at a time


def resample_matrix(
    start: Float[Tensor, " batch"], length: Float[Tensor, " batch"], size_in: int | torch.SymInt, size_out: int
) -> Float[Tensor, "batch size_out size_in"]:
    """Return the weights that read `size_out` pixels from `[start, start + length)` of `size_in` pixels.

    Linear interpolation; the triangle widens where the region shrinks (antialiasing, as Pillow's BILINEAR). A negative
    length reads backwards. An output pixel whose centre lies outside the image has no weights: it reads 0.
    """
    step = length / size_out  # (batch,)
    centres = start[:, None] + (torch.arange(size_out, device=start.device) + 0.5) * step[:, None]
    pixels = torch.arange(size_in, device=start.device) + 0.5  # pyright: ignore[reportArgumentType, reportCallIssue]
    width = step.abs().clamp(min=1)[:, None, None]
    distances = (pixels - centres[:, :, None]).abs_()  # (batch, size_out, size_in)
    weights = distances.div_(width).neg_().add_(1).clamp_(min=0)
    inside = (centres >= 0) & (centres <= size_in)
    total = torch.where(inside[:, :, None], weights.sum(2, keepdim=True).clamp(min=1e-6), torch.inf)
    return weights.div_(total)


def resample(
    images: Float[Tensor, "batch channels height width"],
    region: Float[Tensor, "#batch 4"],
    size: int,
    fill: Float[Tensor, " channels"],
) -> Float[Tensor, "batch channels {size} {size}"]:
    """Read a square of `size` pixels from one region (top, left, height, width; in pixels) of each image, or of all.

    What lies outside the image reads as `fill`, one value per channel.
    """
    height, width = images.shape[2:]
    rows = resample_matrix(region[:, 0], region[:, 2], height, size)[:, None]  # (batch, 1, size, height)
    columns = resample_matrix(region[:, 1], region[:, 3], width, size)
    offset = fill.view(-1, 1, 1)
    read = (rows @ (images - offset)).flatten(1, 2) @ columns.transpose(1, 2)  # (batch, channels * size, size)
    return read.unflatten(1, (-1, size)).add_(offset)


def warp(
    images: Float[Tensor, "batch channels size size"],
    matrices: Float[Tensor, "batch 2 3"],
    fill: Float[Tensor, " channels"],
) -> Float[Tensor, "batch channels size size"]:
    """Read the value at (x, y) of each result from the image at `matrix @ (x, y, 1)`, by bilinear interpolation.

    x and y run from -1 to 1, from border to border. What lies outside the image reads as `fill`.
    """
    size = images.shape[-1]
    centres = (torch.arange(size, device=images.device) * 2 + 1)[:, None] / size - 1
    along_x, along_y, shift = matrices[:, None].unbind(3)  # each (batch, 1, 2)
    columns = torch.view_as_complex(along_x * centres)  # (batch, size), x + iy: half the time of a matrix product
    rows = torch.view_as_complex(along_y * centres + shift)
    grid = torch.view_as_real(rows[:, :, None] + columns[:, None])  # (batch, size, size, 2)
    offset = fill.view(-1, 1, 1)
    return functional.grid_sample(images - offset, grid, align_corners=False).add_(offset)


def rotation_matrices(turns: Float[Tensor, " batch"]) -> Float[Tensor, "batch 2 3"]:
    """Return the matrices with which `warp` turns images about their centre, counterclockwise, in whole turns."""
    cosine, sine, zero = (turns * math.tau).cos(), (turns * math.tau).sin(), torch.zeros_like(turns)
    return torch.stack([cosine, -sine, zero, sine, cosine, zero], 1).view(-1, 2, 3)


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


def resize_in_bands(
    pixels: UInt8[Tensor, "height width channels"], size: int, mode: ResizeMode, fill: Float[Tensor, " channels"]
) -> Float[Tensor, "channels {size} {size}"]:
    """Do as `resize` with bytes, some rows of the result at a time: only what they read becomes floats."""
    height, width = pixels.shape[:2]
    region = torch.tensor(square_region(height, width, mode))
    rows = resample_matrix(region[:1], region[2:3], height, size)[0]
    columns = resample_matrix(region[1:2], region[3:], width, size)[0]
    across = _used(columns)
    bands = []
    for weights in rows.split(max(1, size * BAND // (height * width))):
        down = _used(weights)
        part = pixels[down, across].permute(2, 0, 1) / 255 - fill.view(-1, 1, 1)
        bands.append(weights[:, down] @ part @ columns[:, across].T)
    return torch.cat(bands, 1).add_(fill.view(-1, 1, 1))


def _used(weights: Float[Tensor, "size_out size_in"]) -> slice:
    """Return the range of pixels that are read."""
    found = weights.any(0).nonzero()
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0)
