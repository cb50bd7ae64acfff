"""GELU in its exact form, and its derivative."""

import triton
import triton.language as tl


@triton.jit
def gelu(x):
    return x * distribution(x)


@triton.jit
def distribution(x):
    """Return the normal distribution function of float32 values."""
    return 0.5 + 0.5 * tl.erf(x * 0.7071067811865476)


@triton.jit
def gelu_and_slope(x):
    """Return GELU and its derivative."""
    below = distribution(x)
    density = tl.exp(-0.5 * x * x) * 0.3989422804014327
    return x * below, below + x * density
