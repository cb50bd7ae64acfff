"""Augmentation of whole batches on the device: geometry -> colour -> erase -> mix.

Two steps: `draws.draw` makes every parameter of every image of a batch; `augment` is a pure function of a batch and
its parameters. So the parameters of a batch can be sliced, and are inputs of a captured graph. What an operation
uncovers is filled with the data's mean.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mixlab.data.augmentation_config import AugmentationConfig, ColorJitterConfig
from mixlab.data.colors import drop_color, jitter_color
from mixlab.data.draws import Draws
from mixlab.data.rand_augment import rand_augment
from mixlab.data.resample import resample, rotation_matrices, warp
from mixlab.spec import DataSpec

CHUNK = 3 * 2**18  # values of the images that a CPU works on at a time (3 MiB), as measured in docs/experiments.md


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
    if config.mix.is_on:
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
