"""A ConvMixer block in training, with the fewest passes over memory: nothing is stored that can be put together later.

Batch normalisation is deferred: a tensor h travels with a scale s and a shift t of each channel, and stands for
s * h + t. The kernel that makes h sums it up on the way; the one that reads it applies s and t on the way. The
activation, GELU or ReLU, is computed once, together with its derivative. There are first gradients only: for second
ones, or torch.func, use `library.stock()`.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mixlab.kernels import library, operators
from mixlab.kernels.operators import Map, PerChannel


class Sums(NamedTuple):
    """What batch normalisation needs of a tensor: sums over images and positions, of each channel.

    float64, of float32 sums of an image: a variance has an absolute error of 1e-7 times the mean square.
    """

    values: PerChannel
    squares: PerChannel
    positions: int

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance, float64."""
        mean = self.values / self.positions
        return mean, (self.squares / self.positions - mean.square()).clamp(min=0)


class Deferred(NamedTuple):
    """scale * values + shift, per channel."""

    values: Map
    scale: PerChannel
    shift: PerChannel

    def mean(self) -> Float[Tensor, "batch channels"]:
        """Return the mean over positions, float32."""
        return _Mean.apply(self.values) * self.scale + self.shift

    def whole(self) -> Map:
        """Return it put together."""
        scale, shift = (each.to(self.values.dtype)[:, None, None] for each in (self.scale, self.shift))
        return self.values * scale + shift


def stem(patches: Map, activation: nn.Module, norm: Any) -> Deferred:
    """Return norm(activation(patches)), and bring the running statistics of the batch normalisation up to date."""
    found, values, squares = _Activation.apply(patches, is_relu(activation))
    return _normalised(found, Sums(values, squares, _positions(patches)), norm)


def block(x: Deferred, depthwise: Any, pointwise: Any) -> Deferred:
    """Return pointwise(x + depthwise(x)), and bring the running statistics of both up to date.

    Args:
        depthwise, pointwise: sequences of a convolution, GELU or in both ReLU, and batch normalisation.
    """
    (mixing, activation, norm), (convolution, _, last_norm) = depthwise, pointwise
    found, values, squares, mean, variance = _Block.apply(
        *x, mixing.weight, mixing.bias, norm.weight, norm.bias, norm.eps, convolution.weight, convolution.bias,
        is_relu(activation),
    )  # fmt: skip
    update_statistics(norm, mean, variance, _positions(found))
    return _normalised(found, Sums(values, squares, _positions(found)), last_norm)


def _normalised(values: Tensor, sums: Sums, norm: nn.BatchNorm2d) -> Deferred:
    mean, variance = sums.moments()
    update_statistics(norm, mean, variance, sums.positions)
    scale, shift = scale_and_shift(mean, variance, norm.weight, norm.bias, norm.eps)
    return Deferred(values, scale.float(), shift.float())


def scale_and_shift(mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    scale = weight * (variance + eps).rsqrt()
    return scale, bias - mean * scale


@torch.no_grad()
def update_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Do to a layer's running statistics what nn.BatchNorm2d does in training."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), momentum)
    norm.running_var.lerp_((variance * (count / max(count - 1, 1))).to(norm.running_var), momentum)


def is_relu(activation: nn.Module) -> bool:
    """Return whether an activation is ReLU; the kernels' other one is GELU."""
    return isinstance(activation, nn.ReLU)


class _Mean(torch.autograd.Function):
    """The mean over positions, float32, whose gradient is rounded before it is spread over them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.shape, ctx.type = values.shape, values.dtype
        return values.mean((2, 3), dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        one = (gradient / ctx.shape[2:].numel()).to(ctx.type)
        return one[:, :, None, None].expand(ctx.shape)


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, relu: bool) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        found, slope, values, squares = operators.activation_forward(x, relu)
        ctx.save_for_backward(found, slope)
        return found, values, squares

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor, of_values: Tensor, of_squares: Tensor
    ) -> tuple[Tensor, None]:
        found, slope = ctx.saved_tensors
        return _activation_backward(gradient, of_values, of_squares, found, slope)[0], None


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        taps: Tensor,
        taps_bias: Tensor,
        gamma: Tensor,
        beta: Tensor,
        eps: float,
        matrix: Tensor,
        matrix_bias: Tensor,
        relu: bool,
    ) -> tuple[Tensor, ...]:
        inner, inner_slope, values, squares = operators.mixing_forward(x, scale, shift, taps, taps_bias, relu)
        mean, variance = Sums(values, squares, _positions(x)).moments()
        inner_scale, inner_shift = (each.float() for each in scale_and_shift(mean, variance, gamma, beta, eps))
        terms = (inner, inner_scale, inner_shift, x, scale, shift)
        if library.multiplies(x.device, x.dtype):
            mixed = None
            found, slope, *sums = operators.pointwise_forward(*terms, matrix, matrix_bias, relu)
        else:
            mixed, matrix = operators.add_scaled(*terms), matrix.to(x.dtype)
            product = functional.conv2d(mixed, matrix, matrix_bias.to(x.dtype))
            found, slope, *sums = operators.activation_forward(product, relu)
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(*terms, inner_slope, taps, gamma, mean, inverse, mixed, matrix, found, slope)
        ctx.mark_non_differentiable(mean, variance)
        return found, *sums, mean, variance

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor, of_values: Tensor, of_squares: Tensor, *_: Tensor
    ) -> tuple[Tensor | None, ...]:
        inner, inner_scale, inner_shift, x, scale, shift, inner_slope, taps, *rest = ctx.saved_tensors
        gamma, mean, inverse, mixed, matrix, found, slope = rest
        if mixed is None:
            of_mixed, of_matrix, of_matrix_bias, of_beta, products = operators.pointwise_backward(
                gradient, found, slope, of_values, 2 * of_squares,
                inner, inner_scale, inner_shift, x, scale, shift, matrix,
            )  # fmt: skip
        else:
            above, of_matrix_bias = _activation_backward(gradient, of_values, of_squares, found, slope)
            of_mixed, of_matrix, _ = torch.ops.aten.convolution_backward(
                above, mixed, matrix, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
            )
            of_beta, products = operators.sum_products(of_mixed, inner)
        of_gamma = (products - mean * of_beta) * inverse
        a = gamma * inverse
        b = -a * inverse * of_gamma / _positions(x)
        c = -a * of_beta / _positions(x) - b * mean
        of_weight = ctx.needs_input_grad[3]
        of_x, of_scale, of_shift, of_taps, of_taps_bias = operators.mixing_backward(
            of_mixed, x, scale, shift, taps, inner, inner_slope, a, b, c, of_weight
        )
        of_taps = of_taps if of_weight else None
        of_second = (of_gamma, of_beta, None, of_matrix, of_matrix_bias, None)
        found = (of_x, of_scale, of_shift, of_taps, of_taps_bias, *of_second)
        return tuple(each if each is None or each is of_x else each.float() for each in found)


def _activation_backward(
    gradient: Tensor, of_values: Tensor, of_squares: Tensor, found: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    return operators.activation_backward(gradient, found, slope, of_values, 2 * of_squares)


def _positions(x: Tensor) -> int:
    return x.numel() // x.shape[1]
