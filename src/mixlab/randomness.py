"""Every random draw as a function of the seed and a name such as ("order", epoch) or ("step", step).

Nothing here has state, so a resumed run draws what the uninterrupted one would have drawn.
"""

import zlib

import numpy as np
import torch


def _sequence(seed: int, names: tuple[str | int, ...]) -> np.random.SeedSequence:
    words = [zlib.crc32(name.encode()) if isinstance(name, str) else name for name in names]
    return np.random.SeedSequence([seed, *words])


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator that belongs to this seed and these names."""
    return np.random.Generator(np.random.PCG64(_sequence(seed, names)))


def permutation(length: int, seed: int, *names: str | int) -> np.ndarray:
    """Return a permutation of `range(length)`, int64."""
    return generator(seed, *names).permutation(length)


def uniform_of(indices: np.ndarray, seed: int, *names: str | int) -> np.ndarray:
    """Return one number from [0, 1) for each index, the same wherever the index stands, float64."""
    words = indices.astype(np.uint64) + _sequence(seed, names).generate_state(1, np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # SplitMix64 (Steele et al., 2014)
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    return ((words ^ (words >> np.uint64(31))) >> np.uint64(11)) / 2.0**53


def seed_torch(device: torch.device, seed: int, *names: str | int) -> None:
    """Seed the generators that torch's layers draw from: initial weights, dropout and drop-path."""
    number = int(_sequence(seed, names).generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.default_generator.manual_seed(number)  # torch.manual_seed costs 1 ms a call where CUDA is not initialised
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
    if device.type == "mps":
        torch.mps.manual_seed(number)
