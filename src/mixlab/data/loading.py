"""Batches in a given order: from memory at once, from files through worker processes that draw nothing."""

import functools
import os
import signal
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixlab import orphans
from mixlab.data import life_signs
from mixlab.data.images import Batch, FileImages, Images, MemoryImages

MEMORY_LIMIT = 2 * 2**30  # bytes of pixels up to which a folder is decoded once and kept
AHEAD = 2  # batches that are read from packs before they are asked for


class _Batches(Dataset[Batch]):
    def __init__(self, images: Images, order: Sequence[np.ndarray]) -> None:
        self.images, self.order = images, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[Batch, dict[str, str]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        found = self.images.batch(self.order[position])
        return found, self.images.unreadable


def batches(images: Images, order: Sequence[np.ndarray], workers: int = 0) -> Generator[Batch, None, None]:
    """Yield one batch for each array of indices in `order`, the same for any number of workers.

    A file that cannot be read is missing from its batch and named in `images.unreadable`.
    """
    source = _Batches(images, order)
    if isinstance(images, FileImages) and images.packed is not None:
        found = _ahead(source)
    elif isinstance(images, MemoryImages) or workers == 0 or len(order) < 2:
        found = (source[position] for position in range(len(order)))
    else:
        found = _from_workers(source, min(workers, len(order)))
    try:
        for batch, unreadable in found:
            images.unreadable.update(unreadable)
            yield batch
    finally:
        del found  # the workers end here, not when a traceback lets go of this frame


def _from_workers(source: _Batches, count: int) -> Iterator[tuple[Batch, dict[str, str]]]:
    """Read batches in processes; raises WorkerLost where one of them has died or is frozen."""
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more than cores: their choice
    forked = torch.multiprocessing.get_start_method() == "fork"
    signs = life_signs.no_signs(count)
    prepare = functools.partial(_prepare_worker, parent=os.getpid() if forked else 0, signs=signs)
    loader = DataLoader(source, batch_size=None, num_workers=count, worker_init_fn=prepare)
    found, children = life_signs.started(lambda: iter(loader))
    try:
        with life_signs.watched(children, signs):
            for item in found:
                yield item
                life_signs.complain(children)
    except (Exception, KeyboardInterrupt):
        for child in children:
            child.kill()  # the traceback holds the loader, which would have ended them
        raise
    finally:
        del found  # the workers end here, not when a traceback lets go of this frame


def _ahead(source: _Batches) -> Iterator[tuple[Batch, dict[str, str]]]:
    """Read batches before they are asked for, in a thread: copying and waiting for a disk need no interpreter lock."""
    with ThreadPoolExecutor(1) as reader:
        positions = iter(range(len(source)))
        coming = deque(reader.submit(source.__getitem__, position) for position in islice(positions, AHEAD))
        while coming:
            coming.extend(reader.submit(source.__getitem__, position) for position in islice(positions, 1))
            yield coming.popleft().result()


def _prepare_worker(worker: int, parent: int, signs: Tensor) -> None:
    if parent:
        orphans.end_with(parent, signal.SIGKILL)  # torch's watchdog misses one that ends before it begins to watch
    life_signs.give_signs(signs, worker, os.getpid())
    torch.set_num_threads(1)
    for name in ("SIGINT", "SIGUSR1"):  # sent to the whole group; the parent decides when to stop
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # SIGTERM leaves the parent 20 seconds to save and to end this process itself
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(20))
    life_signs.unblock_signals()


def in_order(images: Images, batch_size: int) -> list[np.ndarray]:
    """Return the indices of all images in batches, in their own order."""
    return [np.arange(start, min(start + batch_size, len(images))) for start in range(0, len(images), batch_size)]


def held_bytes(images: Images) -> int:
    """Return the bytes that the pixels of a set take in memory; 0 where they do not fit and are streamed."""
    if isinstance(images, MemoryImages):
        return images.images.nbytes
    needed = len(images) * images.image_bytes
    return needed if needed <= MEMORY_LIMIT else 0


def in_memory(images: Images, workers: int = 0) -> Images:
    """Decode a set of files once and keep the pixels, where they fit into MEMORY_LIMIT; else return the set itself."""
    if isinstance(images, MemoryImages) or held_bytes(images) == 0:
        return images
    pixels = torch.zeros(len(images), *images.shape, dtype=images.dtype)
    readable = np.zeros(len(images), dtype=bool)
    for batch in batches(images, in_order(images, 64), workers):
        pixels[torch.from_numpy(batch.indices)] = batch.images
        readable[batch.indices] = True
    return MemoryImages(pixels, images.labels, images.names, images.unreadable, readable)
