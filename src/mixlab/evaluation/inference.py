"""Logits of many images."""

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixlab import devices
from mixlab.data.augmentation import augment
from mixlab.data.draws import draw
from mixlab.data.images import Batch, Images
from mixlab.data.loading import batches, in_order
from mixlab.data.resample import resize
from mixlab.errors import DataError
from mixlab.experiment import Experiment
from mixlab.kernels import placement
from mixlab.models.folding import fold
from mixlab.spec import DataSpec

BATCH_SIZE = 256


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits of the images of a split that could be read."""

    logits: np.ndarray  # (images, classes), float32
    labels: np.ndarray  # (images,), int64
    indices: np.ndarray  # (images,), places in the split

    def top1(self) -> float:
        """Return the share of images whose highest logit is that of their label."""
        return float((self.logits.argmax(1) == self.labels).mean())

    def loss(self) -> float:
        """Return the mean negative log-likelihood, in nats."""
        logits = torch.from_numpy(self.logits).double()
        return float(nn.functional.cross_entropy(logits, torch.from_numpy(self.labels)))


def as_input(images: Tensor, spec: DataSpec) -> Float[Tensor, "batch channels size size"]:
    """Return stored images (uint8, or float32 in [0, 1]) as the network sees them."""
    floats = images.float() / 255 if images.dtype == torch.uint8 else images
    return resize(floats, spec.image_size, spec.resize_mode, torch.tensor(spec.mean, device=images.device))


def as_training_input(
    experiment: Experiment, spec: DataSpec, batch: Batch, step: int, epoch: int
) -> tuple[Float[Tensor, "batch channels size size"], Float[Tensor, "batch classes"]]:
    """Return a batch of stored images as the network sees it at a step: augmented, with its target probabilities.

    Parameters are drawn for the whole batch, whoever computes which part of it.
    """
    config, images = experiment.augmentation, batch.images
    draws = draw(config, spec.image_size, batch.whole, experiment.seed, step, epoch).select(batch.places)
    targets = nn.functional.one_hot(batch.labels.to(images.device), spec.num_classes).float()
    return augment(config, spec, images, targets, draws.to(images.device))


def as_pixels(images: Float[Tensor, "batch channels height width"]) -> np.ndarray:
    """Return images with values in [0, 1] as pixels for people: uint8 (batch, height, width, channels)."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def iterate(
    model: nn.Module,
    images: Images,
    spec: DataSpec,
    device: torch.device,
    workers: int = 0,
    which: slice = slice(None),
    precision: str = "float32",
) -> Generator[tuple[Tensor, Batch], None, None]:
    """Yield the float32 logits, on the CPU, of one batch after the other, and the batch.

    Args:
        which: of the batches; ranks share them.
    """
    folded, layout = fold(model), placement.memory_format(model, device)
    with contextlib.closing(batches(images, in_order(images, BATCH_SIZE)[which], workers)) as found:
        for batch in found:
            if len(batch.indices) == 0:
                continue
            with torch.inference_mode(), devices.autocast(device, precision):
                answers = _answers(folded, batch.images.to(device), spec, layout).cpu()
            yield answers, batch


def _answers(model: nn.Module, images: Tensor, spec: DataSpec, layout: torch.memory_format) -> Tensor:
    """Return the float32 logits of stored images; what is too much for the memory is answered half by half."""
    try:
        return model(as_input(images, spec).contiguous(memory_format=layout)).float()
    except (RuntimeError, MemoryError) as error:
        if len(images) == 1 or not devices.is_out_of_memory(error):
            raise
    return torch.cat([_answers(model, half, spec, layout) for half in images.tensor_split(2)])


def collect(found: Iterator[tuple[Tensor, Batch]]) -> Predictions:
    """Put the batches of `iterate` together.

    Raises:
        DataError: where not one image could be read.
    """
    parts = list(found)
    if not parts:
        raise DataError("not one image of the split can be read; mixlab data check names the files and the reasons")
    return Predictions(
        torch.cat([logits for logits, _ in parts]).numpy(),
        torch.cat([batch.labels for _, batch in parts]).numpy(),
        np.concatenate([batch.indices for _, batch in parts]),
    )
