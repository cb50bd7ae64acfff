"""Augmentation of whole batches on the device: geometry -> colour -> erase -> mix.

Two steps: `draw` makes every parameter of every image of a batch from (seed, step), relative to the image's size;
`augment` is a pure function of a batch and its parameters. So the parameters of a batch can be sliced, and are inputs
of a captured graph. What an operation uncovers is filled with the data's mean.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, model_validator
from torch import Tensor

from mixlab import randomness
from mixlab.config import Config
from mixlab.data.colors import drop_color, jitter_color
from mixlab.data.rand_augment import RandAugmentConfig, draw_operations, rand_augment
from mixlab.data.resample import resample, rotation_matrices, warp
from mixlab.spec import DataSpec

CHUNK = 3 * 2**18  # values of the images that a CPU works on at a time (3 MiB), as measured in docs/experiments.md

Probability = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the first number must not be above the second, got {pair[0]} and {pair[1]}")
    return pair


Range = Annotated[Pair, AfterValidator(_ascending)]
Area = Annotated[tuple[Probability, Probability], AfterValidator(_ascending)]


class ResizedCropConfig(Config):
    """A region of random area and shape, resized to the input (Szegedy et al., 2015)."""

    scale: Area = (1.0, 1.0)  # area of the region, as a share of the image
    ratio: Range = (1.0, 1.0)  # width over height; drawn uniformly in its logarithm


class PadCropConfig(Config):
    """A shift by whole pixels in each direction: padding, then a random crop of the old size."""

    padding: NonNegativeInt = 0  # pixels of the input


class FlipConfig(Config):
    probability: Probability = 0.0
    alternating: bool = False  # an image flipped in one epoch is not in the next (Jordan, 2024); the first is drawn

    @model_validator(mode="after")
    def _some_first(self) -> "FlipConfig":
        if self.alternating and not 0 < self.probability < 1:
            raise ValueError(f"alternating needs a probability between 0 and 1, such as 0.5, not {self.probability:g}")
        return self


class ZoomConfig(Config):
    """Height and width of what is read, scaled about its middle by factors of their own from [1 - x, 1 + x]."""

    amount: Probability = 0.0


class RotationConfig(Config):
    """A turn about the centre, either way."""

    turns: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # largest angle, in whole turns


class ColorJitterConfig(Config):
    """Brightness, then contrast, then saturation, each scaled by a factor from [1 - x, 1 + x]."""

    brightness: Probability = 0.0
    contrast: Probability = 0.0
    saturation: Probability = 0.0


class GrayscaleConfig(Config):
    """The luma in every channel."""

    probability: Probability = 0.0


class RandomErasingConfig(Config):
    """A random rectangle filled with the mean (Zhong et al., 2020)."""

    probability: Probability = 0.0
    scale: Area = (0.02, 0.33)  # area of the rectangle, as a share of the image
    ratio: Range = (0.3, 3.3)  # width over height


class CoarseDropoutConfig(Config):
    """One square hole in every image, filled with the mean (DeVries and Taylor, 2017, who let it cross the border)."""

    size: Probability = 0.0  # side of the hole, as a share of the image's side


class MixConfig(Config):
    """Mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019); with both on, a coin decides for each image.

    The partner of an image is the one before it in its batch.
    """

    mixup: NonNegativeFloat = 0.0  # alpha of the Beta distribution of the image's own share; 0: off
    cutmix: NonNegativeFloat = 0.0  # alpha of the Beta distribution of the share that is kept; 0: off
    probability: Probability = 1.0  # of mixing an image at all


class AugmentationConfig(Config):
    """Everything that happens to a training image, in the order in which it happens; all off by default."""

    resized_crop: ResizedCropConfig = ResizedCropConfig()
    pad_crop: PadCropConfig = PadCropConfig()
    horizontal_flip: FlipConfig = FlipConfig()
    vertical_flip: FlipConfig = FlipConfig()
    zoom: ZoomConfig = ZoomConfig()
    rotation: RotationConfig = RotationConfig()
    rand_augment: RandAugmentConfig = RandAugmentConfig()
    color_jitter: ColorJitterConfig = ColorJitterConfig()
    random_grayscale: GrayscaleConfig = GrayscaleConfig()
    random_erasing: RandomErasingConfig = RandomErasingConfig()
    coarse_dropout: CoarseDropoutConfig = CoarseDropoutConfig()
    mix: MixConfig = MixConfig()


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


def augment(
    config: AugmentationConfig,
    spec: DataSpec,
    images: Float[Tensor, "batch channels height width"] | UInt8[Tensor, "batch channels height width"],
    targets: Float[Tensor, "batch classes"],
    draws: Draws,
) -> tuple[Float[Tensor, "batch channels size size"], Float[Tensor, "batch classes"]]:
    """Apply drawn parameters to square images, in [0, 1] or uint8, and to their target probabilities."""
    count = _chunk(images, spec)
    parts = zip(images.split(count), draws.split(count), strict=True)
    images = _join([_alter(config, spec, part, part_draws) for part, part_draws in parts])
    if config.mix.mixup or config.mix.cutmix:
        return mix(images, targets, draws.own_share, draws.pasted)
    return images, targets


def moves(config: AugmentationConfig) -> bool:
    """Whether any operation on the geometry is on."""
    geometry = (config.resized_crop, config.pad_crop, config.horizontal_flip, config.vertical_flip, config.zoom)
    return any(operation != type(operation)() for operation in geometry)


def _alter(config: AugmentationConfig, spec: DataSpec, images: Tensor, draws: Draws) -> Tensor:
    """Apply what treats each image alone."""
    fill = torch.tensor(spec.mean, device=images.device)
    images = images.float().div_(255) if images.dtype == torch.uint8 else images
    if moves(config) or images.shape[-1] != spec.image_size:
        images = resample(images, draws.region * images.shape[-1], spec.image_size, fill)
    if config.rotation.turns:
        images = warp(images, rotation_matrices(draws.turned), fill)
    if config.rand_augment.operations:
        images = rand_augment(images, draws.operations, draws.magnitudes, fill)
    if config.color_jitter != ColorJitterConfig():
        images = jitter_color(images, draws.color)
    if config.random_grayscale.probability:
        images = drop_color(images, draws.grey)
    if config.random_erasing.probability or config.coarse_dropout.size:
        covered = torch.maximum(box_mask(draws.erased, spec.image_size), box_mask(draws.hole, spec.image_size))
        images = torch.lerp(images, fill.view(-1, 1, 1), covered)
    return images


def _chunk(images: Tensor, spec: DataSpec) -> int:
    """Return how many images to work on at a time: all of them on an accelerator, on a CPU what its cache holds."""
    if images.device.type != "cpu":
        return max(1, len(images))
    return max(1, CHUNK // (images.shape[1] * max(images.shape[-1], spec.image_size) ** 2))


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def mix(
    images: Float[Tensor, "batch channels height width"],
    targets: Float[Tensor, "batch classes"],
    own_share: Float[Tensor, " batch"],
    pasted: Float[Tensor, "batch 4"],
) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, "batch classes"]]:
    """Blend each image with the one before it, or paste a box of that one into it; targets follow the pixels."""
    kept = 1 - box_mask(pasted, images.shape[-1])
    share = own_share.view(-1, 1, 1, 1) * kept  # of the image in each pixel
    weight = (own_share * kept.mean((1, 2, 3)))[:, None]
    return images.roll(1, 0).lerp_(images, share), torch.lerp(targets.roll(1, 0), targets, weight)


def box_mask(boxes: Float[Tensor, "batch 4"], size: int) -> Float[Tensor, "batch 1 {size} {size}"]:
    """Return 1 where a pixel's centre lies inside the image's box, else 0."""
    centres = (torch.arange(size, device=boxes.device) + 0.5) / size
    top, left, height, width = boxes[:, :, None].unbind(1)  # each (batch, 1)
    rows = ((centres >= top) & (centres < top + height)).float()
    columns = ((centres >= left) & (centres < left + width)).float()
    return rows[:, None, :, None] * columns[:, None, None, :]


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
