"""Memory: the fewest parts of a batch whose training steps fit, found by taking them on the device."""

from collections.abc import Callable

import numpy as np
import torch

from mixlab import devices
from mixlab.data.data_set import DataSet
from mixlab.data.images import Batch
from mixlab.errors import DataError, TrainingError
from mixlab.experiment import Experiment
from mixlab.training.state import fresh_model, state_of
from mixlab.training.step import train_step

TRIED = 64  # pictures that are tried and measured with
LEFT_FREE = 2**27  # bytes that a trial leaves: pieces that cannot be used again, checkpoints, plots
SHARE_FREE = 0.05  # of a GPU's memory, where that is more


def fit_parts(experiment: Experiment, data: DataSet, device: torch.device, ranks: int = 1) -> Experiment:
    """Return the experiment with the number of parts that its batches are computed in, where it says auto.

    Each rank computes as many of them.

    Raises:
        TrainingError: where memory is too short for one image.
        DataError: where the first pictures cannot be read.
    """
    if experiment.accumulate != "auto":
        return experiment
    batch = repeated(sample(data), max(min(experiment.batch_size, len(data.train)) // ranks, 1)).to(device)
    size = max([data.spec.image_size, *(side for _, side in experiment.image_sizes)])
    spec = data.spec.model_copy(update={"image_size": size})

    def fits(parts: int) -> bool:
        trial = experiment.model_copy(update={"accumulate": parts})
        try:
            left_free = _reserve(device)
            state = state_of(fresh_model(experiment, data.spec), trial, data, device)
            state.train_mode()
            for _ in range(2):  # the second has the optimiser's state too
                train_step(state, trial, spec, batch, rate=0.0)
            del left_free
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            return False
        return True

    found = ranks * fewest(fits, len(batch.indices), device)
    return experiment.model_copy(update={"accumulate": found})


def fewest(fits: Callable[[int], bool], most: int, device: torch.device) -> int:
    """Return the fewest parts that fit; raises TrainingError where not even `most` do."""
    low, high = 0, 1  # low is too few
    while not fits(high):
        _give_back(device)
        if high == most:
            raise TrainingError(
                "out of memory with one image at a time; take a smaller model or a smaller data.image_size"
            )
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
        _give_back(device)
    return high


def sample(data: DataSet) -> Batch:
    """Return up to 64 training pictures from all over the set.

    Raises:
        DataError: where none of them can be read.
    """
    spread = np.linspace(0, len(data.train) - 1, min(len(data.train), TRIED)).astype(np.int64)
    batch = data.train.batch(spread)
    if len(batch.indices) == 0:
        raise DataError(f"none of {len(spread)} training pictures can be read; mixlab data check names the reasons")
    return batch


def repeated(batch: Batch, count: int) -> Batch:
    """Return a batch of so many images: the first ones of a batch, and again from the first where it has too few."""
    chosen = np.resize(np.arange(len(batch.indices)), count)
    places = torch.from_numpy(chosen).to(batch.images.device)
    labels, indices = batch.labels[torch.from_numpy(chosen)], batch.indices[chosen]
    return Batch(batch.images[places], labels, indices, indices, np.arange(count))


def _reserve(device: torch.device) -> torch.Tensor:
    """Return memory of the device that nothing else can use as long as it is held."""
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    return torch.empty(max(int(SHARE_FREE * total), LEFT_FREE), dtype=torch.uint8, device=device)


def _give_back(device: torch.device) -> None:
    """Return the memory that a trial has left to the device, so that the next one finds it in one piece."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
