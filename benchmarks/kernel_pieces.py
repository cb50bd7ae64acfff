"""Milliseconds of each piece of a ConvMixer block on the CPU: the compiled kernels, and the library's matrix products.

    python benchmarks/kernel_pieces.py [--precision float32] [--images 64] [--dim 256] [--side 16] [--kernel-size 5]

The fastest of some repetitions, so of a machine that does nothing else.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from mixlab.kernels import library, operators


def pieces(images: int, dim: int, side: int, kernel_size: int, kind: torch.dtype) -> dict[str, Callable[[], object]]:
    """Return what a block does, by name, each on maps of (images, dim, side, side)."""

    def channels() -> Tensor:
        return torch.rand(dim)

    maps = [
        torch.randn(images, dim, side, side, dtype=kind).contiguous(memory_format=torch.channels_last) for _ in range(4)
    ]
    x, y, slope, gradient = maps
    scale, shift, bias, after, a, b, c = (channels() for _ in range(7))
    taps = torch.randn(dim, 1, kernel_size, kernel_size)
    matrix = torch.randn(dim, dim, 1, 1) / dim**0.5
    stored = matrix.to(kind)
    backward = torch.ops.aten.convolution_backward
    layout = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    block = (scale, shift, taps, bias, after, matrix, bias)
    return {
        "pointwise product (library)": lambda: functional.conv2d(x, stored, bias.to(kind)),
        "its two gradients (library)": lambda: backward(gradient, x, stored, None, *layout, [True, True, False]),
        "depthwise": lambda: operators.depthwise_forward(x, taps, bias),
        "affine, depthwise convolution, GELU, its derivative, sums": lambda: operators.mixing_forward(
            x, scale, shift, taps, bias
        ),
        "all gradients of the convolution": lambda: operators.mixing_backward(
            gradient, x, scale, shift, taps, y, slope, a, b, c, True
        ),
        "all but the filters'": lambda: operators.mixing_backward(
            gradient, x, scale, shift, taps, y, slope, a, b, c, False
        ),
        "GELU, its derivative, sums": lambda: operators.activation_forward(x),
        "residual sum, product, GELU, its derivative, sums": lambda: operators.pointwise_forward(
            x, scale, shift, y, a, b, matrix, bias
        ),
        "all gradients of the product": lambda: operators.pointwise_backward(
            gradient, y, slope, a, b, x, scale, shift, y, a, b, matrix
        ),
        "gradient of GELU": lambda: operators.activation_backward(gradient, y, slope, a, b),
        "residual sum": lambda: operators.add_scaled(x, scale, shift, y, a, b),
        "sums of products": lambda: operators.sum_products(gradient, y),
        "a block in inference": lambda: operators.blocks_inference(x, block),
        "eight blocks in inference, of each": lambda: operators.blocks_inference(x, block * 8),
    }


def fastest(work: Callable[[], object], repetitions: int) -> float:
    """Return the shortest time of a call, in seconds."""
    work()
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    for name, usual in (("images", 64), ("dim", 256), ("side", 16), ("kernel-size", 5), ("repetitions", 25)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    given = parser.parse_args()
    if library.name() == "stock":
        raise SystemExit(library.describe())
    kind = getattr(torch, given.precision)
    print(f"{library.describe()}, {torch.get_num_threads()} threads, {given.precision}")
    for name, work in pieces(given.images, given.dim, given.side, given.kernel_size, kind).items():
        seconds = fastest(work, given.repetitions) / (8 if name.startswith("eight") else 1)
        print(f"{1e3 * seconds:8.2f} ms  {name}")


if __name__ == "__main__":
    main()
