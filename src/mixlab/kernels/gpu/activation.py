"""GELU in its exact form, with its derivative, or ReLU."""

import triton
import triton.language as tl


@triton.jit
def activation(x, RELU: tl.constexpr):
    return tl.where(x < 0, 0.0, x) if RELU else x * _distribution(x)


@triton.jit
def activation_and_slope(x, RELU: tl.constexpr):
    """Return GELU and its derivative, or ReLU, whose derivative is not kept, twice."""
    if RELU:
        found = tl.where(x < 0, 0.0, x)
        slope = found
    else:
        below = _distribution(x)
        density = tl.exp(-0.5 * x * x) * 0.3989422804014327
        found = x * below
        slope = below + x * density
    return found, slope


@triton.jit
def _distribution(x):
    """Return the normal distribution function of float32 values."""
    return 0.5 + 0.5 * tl.erf(x * 0.7071067811865476)
