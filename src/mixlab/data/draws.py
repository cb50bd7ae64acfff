"""Every random parameter of the augmentation of a batch, from (seed, step), relative to the image's size."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mixlab import randomness
from mixlab.data.augmentation_config import (
    Area,
    AugmentationConfig,
    FlipConfig,
    MixConfig,
    RandomErasingConfig,
    Range,
)
from mixlab.data.rand_augment import draw_operations


class Draws(NamedTuple):
    """The parameters of a batch; boxes are (top, left, height, width) as shares of the image."""

    region: Tensor  # (batch, 4), what is read; a negative length reads backwards
    turned: Tensor  # (batch,), whole turns, counterclockwise
    operations: Tensor  # (batch, slots), indices into OPERATIONS; stay on the host, since they decide shapes
    magnitudes: Tensor  # (batch, slots), of these operations, in [-1, 1]; stay with them
    color: Tensor  # (batch, 3), factors of brightness, contrast and saturation
    grey: Tensor  # (batch,), 1: without colour
    erased: Tensor  # (batch, 4)
    hole: Tensor  # (batch, 4)
    own_share: Tensor  # (batch,), of an image mixed with its partner; 1: not mixed
    pasted: Tensor  # (batch, 4), box that comes from the partner

    def to(self, device: torch.device) -> "Draws":
        moved = Draws(*(tensor.to(device, non_blocking=True) for tensor in self))
        return moved._replace(operations=self.operations, magnitudes=self.magnitudes)

    def select(self, places: np.ndarray) -> "Draws":
        """Return the parameters of only these images of the batch."""
        rows = torch.from_numpy(places)
        return Draws(*(tensor[rows] for tensor in self))

    def split(self, size: int) -> Iterator["Draws"]:
        """Yield the parameters of `size` images at a time."""
        return (Draws(*rows) for rows in zip(*(tensor.split(size) for tensor in self), strict=True))


def draw(
    config: AugmentationConfig, image_size: int, indices: Int[np.ndarray, " batch"], seed: int, step: int, epoch: int
) -> Draws:
    """Draw the parameters of a batch; each operation from a stream of its own, whatever the others do.

    Args:
        indices: of the images in their set.
    """
    batch = len(indices)

    def stream(name: str) -> np.random.Generator:
        return randomness.generator(seed, "step", step, name)

    own_share, pasted = _draw_mix(config.mix, batch, stream("mix"))
    operations, magnitudes = draw_operations(config.rand_augment, batch, stream("rand_augment"))
    jitter = config.color_jitter
    flips = [
        _draw_flips(flip, name, indices, seed, step, epoch)
        for flip, name in ((config.vertical_flip, "vertical_flip"), (config.horizontal_flip, "horizontal_flip"))
    ]
    strength = np.array([jitter.brightness, jitter.contrast, jitter.saturation])
    return Draws(
        region=_tensor(_draw_region(config, image_size, batch, flips, stream)),
        turned=_tensor(config.rotation.turns * stream("rotation").uniform(-1, 1, batch)),
        operations=torch.from_numpy(operations),
        magnitudes=_tensor(magnitudes),
        color=_tensor(1 + strength * stream("color_jitter").uniform(-1, 1, (batch, 3))),
        grey=_tensor(stream("random_grayscale").random(batch) < config.random_grayscale.probability),
        erased=_tensor(_draw_erased(config.random_erasing, batch, stream("random_erasing"))),
        hole=_tensor(_place(np.full((batch, 2), config.coarse_dropout.size), stream("coarse_dropout"))),
        own_share=_tensor(own_share),
        pasted=_tensor(pasted),
    )


def _draw_region(
    config: AugmentationConfig,
    image_size: int,
    batch: int,
    flips: Sequence[np.ndarray],
    stream: Callable[[str], np.random.Generator],
) -> np.ndarray:
    crop = config.resized_crop
    region = _place(_sides(crop.scale, crop.ratio, batch, stream("resized_crop")), stream("resized_crop_place"))
    padding = config.pad_crop.padding
    shift = stream("pad_crop").integers(-padding, padding + 1, (batch, 2)) / image_size
    region[:, :2] += shift * region[:, 2:]
    for axis, flipped in enumerate(flips):
        region[flipped, axis] += region[flipped, axis + 2]
        region[flipped, axis + 2] *= -1
    factors = 1 + config.zoom.amount * stream("zoom").uniform(-1, 1, (batch, 2))
    region[:, :2] += region[:, 2:] * (1 - factors) / 2
    region[:, 2:] *= factors
    return region


def _draw_flips(
    config: FlipConfig, name: str, indices: np.ndarray, seed: int, step: int, epoch: int
) -> Bool[np.ndarray, " batch"]:
    if not config.alternating:
        return randomness.generator(seed, "step", step, name).random(len(indices)) < config.probability
    flipped_first = randomness.uniform_of(indices, seed, name) < config.probability
    return flipped_first ^ bool(epoch % 2)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def _draw_erased(config: RandomErasingConfig, batch: int, generator: np.random.Generator) -> np.ndarray:
    chosen = generator.random(batch) < config.probability
    boxes = _place(_sides(config.scale, config.ratio, batch, generator), generator)
    return boxes * chosen[:, None]


def _draw_mix(config: MixConfig, batch: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    chosen = generator.random(batch) < config.probability
    coin = generator.random(batch) < 0.5
    cuts = coin if config.mixup and config.cutmix else np.full(batch, bool(config.cutmix))
    own_share = generator.beta(config.mixup or 1, config.mixup or 1, batch)
    kept = generator.beta(config.cutmix or 1, config.cutmix or 1, batch)
    pasted = _place(np.sqrt(1 - kept)[:, None].repeat(2, 1), generator)
    return np.where(chosen & ~cuts, own_share, 1.0), pasted * (chosen & cuts)[:, None]


def _sides(area: Area, ratio: Range, batch: int, generator: np.random.Generator) -> np.ndarray:
    """Draw (height, width) of boxes, as shares of the image, cut to the image where a shape does not fit."""
    areas = generator.uniform(*area, batch)
    ratios = np.exp(generator.uniform(np.log(ratio[0]), np.log(ratio[1]), batch))
    return np.stack([np.sqrt(areas / ratios), np.sqrt(areas * ratios)], 1).clip(0, 1)


def _place(sides: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Put boxes of the given (height, width) at random inside the image."""
    return np.concatenate([generator.random(sides.shape) * (1 - sides), sides], 1)
