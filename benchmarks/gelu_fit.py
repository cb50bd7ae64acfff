"""The coefficients of the polynomials with which the kernels compute GELU in bfloat16 (`kernels/cpu/vector.h`).

    python benchmarks/gelu_fit.py

With P the standard normal distribution and p its density, GELU(x) = x P(x), and its derivative is P(x) + x p(x). Both
P and the derivative less 1/2 are odd, so each is x q(x^2), fitted on [0, LIMIT] under the condition that it is 1/2 at
LIMIT, beyond which it stays. Least squares are weighted again and again by their errors (Lawson, 1961), which brings
the largest error down.
"""

import math
from collections.abc import Callable

import numpy as np

LIMIT = 4.25
POINTS, ROUNDS = 8001, 400

Function = Callable[[np.ndarray], np.ndarray]


def distribution(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x])


def derivative(x: np.ndarray) -> np.ndarray:
    return distribution(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def fit(function: Function, count: int, weight: Function) -> np.ndarray:
    """Return the coefficients of q, the constant first, float64.

    Args:
        weight: of an error at x.
    """
    x = np.linspace(0, LIMIT, POINTS)
    square = (x / LIMIT) ** 2
    wanted = (function(x) - 0.5 - x / (2 * LIMIT)) * weight(x)  # less the line that meets the condition
    powers = np.stack([x / LIMIT * (square - 1) * square**power * weight(x) for power in range(count - 1)], 1)
    emphasis, found = np.full(POINTS, 1 / POINTS), np.zeros(count - 1)
    for _ in range(ROUNDS):
        root = np.sqrt(emphasis)
        found, *_ = np.linalg.lstsq(powers * root[:, None], wanted * root, rcond=None)
        errors = np.abs(powers @ found - wanted)
        emphasis *= errors / errors.max() + 1e-9
        emphasis /= emphasis.sum()
    of_square = np.zeros(count)  # of u = (x / LIMIT)^2: 1/2 + (u - 1) times what was found
    of_square[0] = 0.5
    of_square[1:] += found
    of_square[:-1] -= found
    return of_square / (LIMIT * (LIMIT**2) ** np.arange(count))


def evaluate(coefficients: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return 1/2 + x q(x^2) as the kernels compute it, in float32."""
    near = np.clip(x.astype(np.float32), -LIMIT, LIMIT)
    total = np.zeros_like(near)
    for coefficient in coefficients[::-1].astype(np.float32):
        total = total * near * near + coefficient
    return np.float32(0.5) + near * total


def main() -> None:
    x = np.linspace(-12, 12, 48001)
    value = fit(distribution, 8, lambda x: np.maximum(x, 0.5))  # an error of P counts x times in GELU
    slope = fit(derivative, 9, np.ones_like)
    print("VALUE     ", ", ".join(f"{each:.8g}" for each in value.astype(np.float32)))
    print("DERIVATIVE", ", ".join(f"{each:.8g}" for each in slope.astype(np.float32)))
    print(f"largest error of GELU       {np.abs(x * (evaluate(value, x) - distribution(x))).max():.1e}")
    print(f"largest error of derivative {np.abs(evaluate(slope, x) - derivative(x)).max():.1e}")


if __name__ == "__main__":
    main()
