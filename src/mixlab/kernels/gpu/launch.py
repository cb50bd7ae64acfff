"""How the work on a feature map is cut into programs: functions of its shape alone, so that sums keep their order."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

CHANNELS = 64  # of a tile; 128 bytes of bfloat16
WARP_VALUES = 256  # of a row of a tile; 16 bytes of bfloat16 in each thread
FLAT_VALUES = 2048  # of a tile in passes over a map as a matrix
PROGRAMS = 2048  # of a weight gradient, about; several for each multiprocessor there is
SLICES = (16, 512)  # of the positions in a weight gradient, at least and at most
STRIP = 8  # steps of a program in passes over a whole map


class Tile(NamedTuple):
    """Output positions and channels of one program; constants of the compiled kernel."""

    rows: int
    columns: int
    channels: int

    @property
    def warps(self) -> int:
        return max(self.columns * self.channels // WARP_VALUES, 1)

    def cut(self, rows: int, columns: int) -> int:
        """Return into how many tiles a map is cut."""
        return -(-rows // self.rows) * -(-columns // self.columns)


def window_tile(rows: int, columns: int, channels: int, side: int) -> Tile:
    """Return the tile of a depthwise convolution.

    A value that was loaded serves all rows of a tile, so many rows are good; each holds 8 registers of a thread, as
    does each tap of a column of the kernel.
    """
    most = 8 if side <= 9 else 4
    wide = min(max(_power_of_two(columns), 4), 16)
    return Tile(-(-rows // -(-rows // most)), wide, _channels(channels, CHANNELS))


def flat_tile(channels: int) -> Tile:
    """Return the tile of a pass over a map as a matrix (positions, channels), one row high."""
    wide = _channels(channels, 2 * CHANNELS)
    return Tile(1, FLAT_VALUES // wide, wide)


def slices(tiles: int, side: int, channels: int, tile: Tile) -> int:
    """Return how many programs share the tiles of a weight gradient, for each column of taps and block of channels."""
    beside = side * -(-channels // tile.channels)
    least, most = SLICES
    return min(max(least, PROGRAMS // beside), most, tiles)


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Make a GPU the current one, on which Triton launches; the interpreter's CPU needs nothing."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def partial_sums(x: Tensor, programs: int) -> Float[Tensor, "programs 2 channels"]:
    """Return the place of each program's own sums, of two kinds: nothing is added atomically."""
    return torch.empty(programs, 2, x.shape[1], dtype=torch.float32, device=x.device)


def added(partial: Float[Tensor, "programs 2 channels"]) -> tuple[Float[Tensor, " channels"], ...]:
    """Return both kinds of sums, float64; each has its own memory, as an operator's outputs must."""
    first, second = partial.sum(0, dtype=torch.float64)
    return first.clone(), second.clone()


def _channels(channels: int, most: int) -> int:
    return min(max(_power_of_two(channels), 16), most)


def _power_of_two(number: int) -> int:
    """Return the next power of two, from a positive number on."""
    return 1 << (number - 1).bit_length()
