"""The gradient of depthwise taps: a program has a column of the kernel, some channels and a share of the positions."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mixlab.kernels.gpu import launch
from mixlab.kernels.gpu.window import load, load_affine, per_channel, place


@triton.jit
def _gradient(
    gradient, x, scale, shift, found, tiles, share, rows, columns, channels,
    BEFORE: tl.constexpr, SIDE: tl.constexpr, AFFINE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    across, part = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    factor = per_channel(scale, channel, channels)
    added = per_channel(shift, channel, channels)
    sums = ()
    for _ in tl.static_range(SIDE):
        sums = sums + (tl.zeros((COLUMNS, CHANNELS), tl.float32),)
    for tile in range(part * share, tl.minimum(part * share + share, tiles)):
        image, first, column = place(rows, columns, ROWS, COLUMNS, tile)
        start = image.to(tl.int64) * rows * columns * channels
        outer = ()
        for row in tl.static_range(ROWS):
            outer = outer + (load(gradient + start, first + row, column, channel, rows, columns, channels),)
        for row in tl.static_range(ROWS + SIDE - 1):
            values = load_affine(
                x + start, factor, added, first + row - BEFORE, column + across - BEFORE, channel,
                rows, columns, channels, AFFINE,
            )  # fmt: skip
            updated = ()
            for down in tl.static_range(SIDE):
                if row - down >= 0 and row - down < ROWS:
                    updated = updated + (sums[down] + values * outer[row - down],)
                else:
                    updated = updated + (sums[down],)
            sums = updated
    for down in tl.static_range(SIDE):
        own = (part * SIDE + down) * SIDE + across
        tl.store(found + own * channels + channel, tl.sum(sums[down], 0), mask=channel < channels)


def gradient(
    of_output: Tensor, x: Tensor, side: int, scale: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    """Return the gradient of the taps (channels, 1, side, side) of a convolution of scale * x + shift, float32."""
    images, channels, rows, columns = x.shape
    tile = launch.window_tile(rows, columns, channels, side)
    tiles = images * tile.cut(rows, columns)
    parts = launch.slices(tiles, side, channels, tile)
    partial = torch.empty(parts, side * side, channels, dtype=torch.float32, device=x.device)
    grid = (side, triton.cdiv(channels, tile.channels), parts)
    affine = scale is not None
    with launch.on(x.device):
        _gradient[grid](
            of_output, x, scale if affine else partial, shift if affine else partial, partial,
            tiles, triton.cdiv(tiles, parts), rows, columns, channels, (side - 1) // 2, side, affine, *tile,
            num_warps=tile.warps,
        )  # fmt: skip
    return partial.sum(0, dtype=torch.float64).float().t().contiguous().view(channels, 1, side, side)
