"""What the depthwise kernels have in common: a column of the kernel meets several rows of a tile in registers.

A program computes `ROWS` rows of `COLUMNS` positions and `CHANNELS` channels. Each input row is loaded once for each of
the kernel's columns, and serves every output row that sees it. Accumulators are tuples of tensors, one for each row:
the compiler unrolls them into registers.
"""

import triton
import triton.language as tl


@triton.jit
def place(rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr, tile):
    """Return image, first row and column numbers of a tile."""
    across = tl.cdiv(columns, COLUMNS)
    each = tl.cdiv(rows, ROWS) * across
    inside = tile % each
    return tile // each, inside // across * ROWS, inside % across * COLUMNS + tl.arange(0, COLUMNS)


@triton.jit
def inside(row, column, channel, rows, columns, channels):
    """Return which of (columns, channels) of a row are in the image."""
    return ((column >= 0) & (column < columns))[:, None] & (channel < channels)[None, :] & (row >= 0) & (row < rows)


@triton.jit
def load(x, row, column, channel, rows, columns, channels):
    """Return (columns, channels) of a row of an image, float32; outside is 0."""
    known = inside(row, column, channel, rows, columns, channels)
    offsets = (row * columns + column[:, None]) * channels + channel[None, :]
    return tl.load(x + offsets, mask=known, other=0.0).to(tl.float32)


@triton.jit
def store(values, x, row, column, channel, rows, columns, channels):
    """Store what is in the image of a row of a tile."""
    known = inside(row, column, channel, rows, columns, channels)
    tl.store(x + (row * columns + column[:, None]) * channels + channel[None, :], values, mask=known)


@triton.jit
def store_sums(first, second, sums, channel, channels):
    """Store a program's own two sums of each channel."""
    own = sums + tl.program_id(0).to(tl.int64) * 2 * channels + channel
    tl.store(own, tl.sum(first, 0), mask=channel < channels)
    tl.store(own + channels, tl.sum(second, 0), mask=channel < channels)


@triton.jit
def per_channel(values, channel, channels):
    return tl.load(values + channel, mask=channel < channels, other=0.0)[None, :]


@triton.jit
def load_affine(x, scale, shift, row, column, channel, rows, columns, channels, AFFINE: tl.constexpr):
    """Return scale * x + shift inside the image and 0 outside: padding comes after the normalisation."""
    values = load(x, row, column, channel, rows, columns, channels)
    if AFFINE:
        known = inside(row, column, channel, rows, columns, channels)
        values = tl.where(known, values * scale + shift, 0.0)
    return values


@triton.jit
def convolve(
    x, taps, bias, scale, shift, first, column, channel, rows, columns, channels,
    BEFORE: tl.constexpr, AFFINE: tl.constexpr, SIDE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Return the rows of a tile of the depthwise convolution of scale * x + shift, as a tuple."""
    sums = ()
    for _ in tl.static_range(ROWS):
        sums = sums + (tl.zeros((column.shape[0], channel.shape[0]), tl.float32) + bias,)
    for across in range(SIDE):
        weights = ()
        for down in tl.static_range(SIDE):
            weights = weights + (per_channel(taps + (down * SIDE + across) * channels, channel, channels),)
        for row in tl.static_range(ROWS + SIDE - 1):
            values = load_affine(
                x, scale, shift, first + row - BEFORE, column + across - BEFORE, channel,
                rows, columns, channels, AFFINE,
            )  # fmt: skip
            updated = ()
            for out in tl.static_range(ROWS):
                if row - out >= 0 and row - out < SIDE:
                    updated = updated + (sums[out] + values * weights[row - out],)
                else:
                    updated = updated + (sums[out],)
            sums = updated
    return sums
