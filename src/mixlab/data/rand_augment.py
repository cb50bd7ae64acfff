"""RandAugment (Cubuk et al., 2020) on whole batches: each image draws its own operations, signs and magnitudes.

The 14 operations and their ranges over 30 levels of magnitude are the paper's. An image's operations are applied one
after the other; each time the batch is sorted by operation, so that one affine grid serves all geometric ones and each
change of colour is computed once, for the images that drew it.
"""

from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor

from mixlab.config import Config
from mixlab.data import colors
from mixlab.data.resample import rotation_matrices, warp

LEVELS = 30
OPERATIONS = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "color", "contrast", "sharpness", "posterize", "solarize", "auto_contrast", "equalize"),
)
IDENTITY, ROTATE, SHARPNESS = (OPERATIONS.index(name) for name in ("identity", "rotate", "sharpness"))
COLORS = (
    *(colors.brighten, colors.saturate, colors.raise_contrast, colors.sharpen),
    *(colors.posterize, colors.solarize, colors.auto_contrast, colors.equalize),
)

SHEAR = 0.3  # pixels across for each pixel along, at the highest magnitude
TRANSLATION = 150 / 331  # share of the side
ROTATION = 30 / 360  # turns
SHIFTS = torch.zeros(ROTATE + 1, 2, 3)  # what full magnitude adds to the unit matrix, by operation
SHIFTS[1, 0, 1:] = SHEAR  # in x with y, about the upper left corner as in the paper's code
SHIFTS[2, 1, ::2] = SHEAR
SHIFTS[3, 0, 2] = SHIFTS[4, 1, 2] = 2 * TRANSLATION  # coordinates run from -1 to 1


class RandAugmentConfig(Config):
    """Random operations on geometry and colour, all of one magnitude (Cubuk et al., 2020)."""

    operations: NonNegativeInt = 0  # applied to each image, one after the other; 0: off
    magnitude: Annotated[float, Field(ge=0, le=LEVELS)] = 9.0  # levels
    magnitude_deviation: NonNegativeFloat = 0.0  # standard deviation of the magnitude, which is then cut to its range
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0  # of applying each drawn operation


def draw_operations(
    config: RandAugmentConfig, batch: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw indices into OPERATIONS, and magnitudes over 30, negative where a signed operation goes the other way.

    Both are (batch, operations).
    """
    shape = (batch, config.operations)
    drawn = generator.integers(0, len(OPERATIONS), shape)
    applied = generator.random(shape) < config.probability
    signs = np.where((generator.random(shape) < 0.5) & (drawn <= SHARPNESS), -1, 1)
    levels = generator.normal(config.magnitude, config.magnitude_deviation, shape).clip(0, LEVELS)
    return np.where(applied, drawn, IDENTITY), signs * levels / LEVELS


def rand_augment(
    images: Float[Tensor, "batch channels size size"],
    operations: Int[Tensor, "batch slots"],
    magnitudes: Float[Tensor, "batch slots"],
    fill: Float[Tensor, " channels"],
) -> Float[Tensor, "batch channels size size"]:
    """Apply drawn operations; `operations` and `magnitudes` lie on the host, because they decide shapes."""
    held = torch.arange(len(images))  # which image each row holds
    for drawn, amounts in zip(operations.unbind(1), magnitudes.unbind(1), strict=True):
        order = drawn[held].argsort(stable=True)
        held = held[order]
        images = images.index_select(0, order.to(images.device, non_blocking=True))
        _apply_sorted(images, drawn[held], amounts[held], fill)
    return images.index_select(0, held.argsort().to(images.device, non_blocking=True))


def affine_matrices(operations: Int[Tensor, " batch"], magnitudes: Float[Tensor, " batch"]) -> Tensor:
    """Return the matrices for `warp` of geometric operations, (batch, 2, 3)."""
    turns = torch.where(operations == ROTATE, magnitudes * ROTATION, 0)
    return rotation_matrices(turns) + SHIFTS[operations] * magnitudes[:, None, None]


def _apply_sorted(images: Tensor, operations: Tensor, magnitudes: Tensor, fill: Tensor) -> None:
    """Change the images in place; equal operations lie side by side."""
    ends = operations.bincount(minlength=len(OPERATIONS)).cumsum(0).tolist()
    moved = slice(ends[IDENTITY], ends[ROTATE])
    if moved.start < moved.stop:
        matrices = affine_matrices(operations[moved], magnitudes[moved])
        images[moved] = warp(images[moved], matrices.to(images.device, non_blocking=True), fill)
    amounts = magnitudes.to(images.device, non_blocking=True)
    for change, start, stop in zip(COLORS, ends[ROTATE:], ends[ROTATE + 1 :], strict=False):
        if start < stop:
            images[start:stop] = change(images[start:stop], amounts[start:stop])
