"""The compiled kernels as PyTorch operators, without gradients of their own; `mixing` and `depthwise` add those.

Activations are (batch, channels, rows, columns) in channels_last, float32, bfloat16 or, on CUDA, float16; what belongs
to a channel is float32, and sums come back as float64. f is GELU, or ReLU where that is asked for. Each operator has
its plain twin, of the same name, in `reference`. What stands here runs on CPUs; `gpu.operators` registers the forms for
CUDA.
"""

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from mixlab.kernels import library

BLOCK = ("scale", "shift", "weight", "bias", "after", "matrix", "matrix_bias")  # what a block is made of, for inference

P = ParamSpec("P")
R = TypeVar("R")
LIBRARY = torch.library.Library("mixlab", "DEF")

Map = Float[Tensor, "batch channels rows columns"]
PerChannel = Float[Tensor, " channels"]
Taps = Float[Tensor, "channels 1 side side"]


def _operator(function: Callable[P, R]) -> Callable[P, R]:
    """Make an operator of what computes it on a CPU.

    As torch.library.custom_op, but without its 10 microseconds a call and without importing the compiler for it.
    """
    schema = torch.library.infer_schema(function, mutates_args=())
    LIBRARY.define(function.__name__ + schema, tags=torch.Tag.pt2_compliant_tag)
    LIBRARY.impl(function.__name__, function, "CPU")
    return getattr(torch.ops.mixlab, function.__name__).default


@_operator
def depthwise_forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve each channel with its own kernel; the output has the size of the input."""
    x = _dense(x)
    found = torch.empty_like(x)
    library.call("depthwise_forward", x.dtype, *_shape(x, weight), x, _single(weight), _single(bias), found)
    return found


@_operator
def depthwise_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, of_input: bool, of_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of input, weight and bias; an unwanted one is empty."""
    x, gradient = _dense(x), _dense(gradient.to(x.dtype))
    of_x = torch.empty_like(x) if of_input else x.new_empty(0)
    of_taps = weight.new_empty(weight.shape if of_weight else 0, dtype=torch.float32)
    of_bias = _sums(x)
    pointers = (of_x if of_input else None, of_taps if of_weight else None, of_bias)
    library.call("depthwise_backward", x.dtype, *_shape(x, weight), gradient, x, _single(weight), *pointers)
    return of_x, of_taps, of_bias


@_operator
def mixing_forward(
    x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, relu: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return y = f(depthwise(scale * x + shift)), f's derivative there, and the sums of y and of its square.

    The derivative of ReLU, which y tells, is empty, here and in all that take it.
    """
    x = _dense(x)
    found, slope, values, squares = torch.empty_like(x), _slope(x, relu), _sums(x), _sums(x)
    parameters = map(_single, (scale, shift, weight, bias))
    library.call(
        "mixing_forward", x.dtype, *_shape(x, weight), x, *parameters, relu, found, _kept(slope), values, squares
    )
    return found, slope, values, squares


@_operator
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
    of_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, scale, shift, weight (empty where it is not wanted) and bias.

    Args:
        gradient: of y's affine plus scale * x + shift; so it reaches x past the convolution too.
        a, b, c: of each channel, such that the gradient of y is a * gradient + b * y + c.
    """
    gradient = _dense(gradient.to(x.dtype))
    of_x, of_taps = torch.empty_like(x), weight.new_empty(weight.shape if of_weight else 0, dtype=torch.float32)
    of_scale, of_shift, of_bias = _sums(x), _sums(x), _sums(x)
    parameters = map(_single, (scale, shift, weight))
    coefficients = map(_single, (a, b, c))
    library.call(
        "mixing_backward", x.dtype, *_shape(x, weight), gradient, x, *parameters, y, _kept(slope), *coefficients,
        of_x, of_taps if of_weight else None, of_bias, of_shift, of_scale,
    )  # fmt: skip
    return of_x, of_scale, of_shift, of_taps, of_bias


@_operator
def blocks_inference(x: Tensor, parameters: Sequence[Tensor], relu: bool = False) -> Tensor:
    """Take a map through blocks: f(matrix (h + after * f(depthwise(h))) + matrix_bias) of h = scale * x + shift.

    Args:
        parameters: of one block after the other: scale, shift, weight, bias, after, matrix, matrix_bias.
    """
    x = _dense(x)
    if not parameters:
        return x.clone()
    images, channels, rows, columns = x.shape
    found, blocks = torch.empty_like(x), [_single(each) for each in parameters]
    depth, pointers = len(blocks) // len(BLOCK), torch.tensor([each.data_ptr() for each in blocks])
    sides = torch.tensor([weight.shape[-1] for weight in blocks[BLOCK.index("weight") :: len(BLOCK)]])
    table = torch.cat([pointers.view(depth, -1), sides[:, None]], 1)
    memory = x.new_empty(2 * torch.get_num_threads() * rows * columns * channels)
    library.call("blocks_inference", x.dtype, images, rows, columns, channels, depth, x, table, relu, memory, found)
    return found


@_operator
def activation_inference(x: Tensor, relu: bool = False) -> Tensor:
    """Return f(x)."""
    x = _dense(x)
    found = torch.empty_like(x)
    library.call("activation_inference", x.dtype, *_flat(x), x, relu, found)
    return found


@_operator
def mean_of_positions(x: Tensor) -> Tensor:
    """Return the mean over positions, float32 (batch, channels)."""
    x = _dense(x)
    images, channels, rows, columns = x.shape
    found = x.new_empty(images, channels, dtype=torch.float32)
    library.call("mean_of_positions", x.dtype, images, rows * columns, channels, x, found)
    return found


@_operator
def activation_forward(x: Tensor, relu: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return y = f(x), its derivative, and the sums of y and of its square."""
    x = _dense(x)
    found, slope, values, squares = torch.empty_like(x), _slope(x, relu), _sums(x), _sums(x)
    library.call("activation_forward", x.dtype, *_flat(x), x, relu, found, _kept(slope), values, squares)
    return found, slope, values, squares


@_operator
def activation_backward(gradient: Tensor, y: Tensor, slope: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return (gradient + a + b * y) * slope, and its sums."""
    gradient, found, sums = _dense(gradient.to(y.dtype)), torch.empty_like(y), _sums(y)
    library.call(
        "activation_backward", y.dtype, *_flat(y), gradient, y, _kept(slope), _single(a), _single(b), found, sums
    )
    return found, sums


@_operator
def add_scaled(x1: Tensor, scale1: Tensor, shift1: Tensor, x2: Tensor, scale2: Tensor, shift2: Tensor) -> Tensor:
    """Return scale1 * x1 + shift1 + scale2 * x2 + shift2."""
    found = torch.empty_like(x1)
    first, second = map(_single, (scale1, shift1)), map(_single, (scale2, shift2))
    library.call("add_scaled", x1.dtype, *_flat(x1), x1, *first, x2, *second, found)
    return found


@_operator
def sum_products(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of x, and of x * y."""
    x, values, products = _dense(x.to(y.dtype)), _sums(y), _sums(y)
    library.call("sum_products", y.dtype, *_flat(y), x, y, values, products)
    return values, products


@_operator
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return y = f(matrix x + matrix_bias) of x = scale1 * x1 + shift1 + scale2 * x2 + shift2, and what belongs to y.

    That is f's derivative, and the sums of y and of its square. There is no form for CUDA: see `library.multiplies`.
    """
    found, slope, values, squares = torch.empty_like(x1), _slope(x1, relu), _sums(x1), _sums(x1)
    first, second = map(_single, (scale1, shift1)), map(_single, (scale2, shift2))
    weights = map(_single, (matrix, matrix_bias))
    outputs = (found, _kept(slope), values, squares)
    library.call("pointwise_forward", x1.dtype, *_flat(x1), x1, *first, x2, *second, *weights, relu, *outputs)
    return found, slope, values, squares


@_operator
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, matrix and matrix_bias, and the sums of the first and of it times x1.

    Args:
        gradient: of y, without a + b * y of each channel.
    """
    gradient, found, of_matrix = _dense(gradient.to(y.dtype)), torch.empty_like(y), _single(torch.empty_like(matrix))
    of_bias, values, products = _sums(y), _sums(y), _sums(y)
    first, second, above = (map(_single, each) for each in ((scale1, shift1), (scale2, shift2), (a, b)))
    library.call(
        "pointwise_backward", y.dtype, *_flat(y), gradient, y, _kept(slope), *above, x1, *first, x2, *second,
        _single(matrix),
        found, of_matrix, of_bias, values, products,
    )  # fmt: skip
    return found, of_matrix, of_bias, values, products


@torch.library.register_fake("mixlab::depthwise_forward")
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _like(x)


@torch.library.register_fake("mixlab::depthwise_backward")
def _(gradient: Tensor, x: Tensor, weight: Tensor, of_input: bool, of_weight: bool) -> tuple[Tensor, ...]:
    of_x = _like(x) if of_input else x.new_empty(0)
    return of_x, weight.new_empty(weight.shape if of_weight else 0, dtype=torch.float32), _sums(x)


@torch.library.register_fake("mixlab::mixing_forward")
def _(x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _like(x), _slope(x, len(rest) == 5 and rest[-1]), _sums(x), _sums(x)


@torch.library.register_fake("mixlab::mixing_backward")
def _(gradient: Tensor, x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    of_taps = weight.new_empty(weight.shape if rest[-1] else 0, dtype=torch.float32)
    return _like(x), _sums(x), _sums(x), of_taps, _sums(x)


@torch.library.register_fake("mixlab::blocks_inference")
def _(x: Tensor, parameters: Sequence[Tensor], relu: bool = False) -> Tensor:
    return _like(x)


@torch.library.register_fake("mixlab::activation_inference")
def _(x: Tensor, relu: bool = False) -> Tensor:
    return _like(x)


@torch.library.register_fake("mixlab::mean_of_positions")
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:2], dtype=torch.float32)


@torch.library.register_fake("mixlab::activation_forward")
def _(x: Tensor, relu: bool = False) -> tuple[Tensor, ...]:
    return _like(x), _slope(x, relu), _sums(x), _sums(x)


@torch.library.register_fake("mixlab::activation_backward")
def _(gradient: Tensor, y: Tensor, slope: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return _like(y), _sums(y)


@torch.library.register_fake("mixlab::add_scaled")
def _(x1: Tensor, scale1: Tensor, shift1: Tensor, x2: Tensor, scale2: Tensor, shift2: Tensor) -> Tensor:
    return _like(x1)


@torch.library.register_fake("mixlab::sum_products")
def _(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return _sums(y), _sums(y)


@torch.library.register_fake("mixlab::pointwise_forward")
def _(x1: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _like(x1), _slope(x1, len(rest) == 8 and rest[-1]), _sums(x1), _sums(x1)


@torch.library.register_fake("mixlab::pointwise_backward")
def _(gradient: Tensor, y: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _like(y), _single(torch.empty_like(rest[-1])), _sums(y), _sums(y), _sums(y)


def _dense(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _slope(x: Tensor, relu: bool) -> Tensor:
    return x.new_empty(0) if relu else _like(x)


def _kept(slope: Tensor) -> Tensor | None:
    return slope if slope.numel() else None


def _single(values: Tensor) -> Tensor:
    return values.float().contiguous()


def _sums(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[1], dtype=torch.float64)


def _shape(x: Tensor, weight: Tensor) -> tuple[int, ...]:
    images, channels, rows, columns = x.shape
    return images, rows, columns, channels, weight.shape[-1]


def _flat(x: Tensor) -> tuple[int, int]:
    return x.numel() // x.shape[1], x.shape[1]
