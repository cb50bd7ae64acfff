"""Processes that train one network together: who they are, and what they tell each other.

Started by torchrun, or by anything that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Everything is exchanged in
one fixed order, so that sums over any number of ranks are bit-equal when repeated. DistributedDataParallel's are not:
it puts its gradients into another order after its first step (docs/decisions.md).
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed
from torch.distributed.rendezvous import rendezvous

from mixlab.errors import MixlabError, TrainingError, UsageError
from mixlab.heartbeat import Heartbeat

Value = TypeVar("Value")
PATIENCE = timedelta(minutes=30)  # with ranks that are alive: one may decode a whole folder before the others go on


class Part(NamedTuple):
    """One part of a batch; BatchNorm sees one part."""

    number: int  # among all parts of the batch
    start: int  # first place in the batch
    stop: int  # one after the last


@dataclass(frozen=True)
class Ranks:
    """One process among those that train together."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process reads and writes the run folder, and speaks to the screen."""
        return self.rank == 0

    def led(self, function: Callable[[], Value]) -> Value:
        """Return on every rank what a function returns on the leader, which alone calls it.

        Raises:
            MixlabError: on the leader, what the function raises; the others then leave quietly, with its exit code.
        """
        if self.world == 1:
            return function()
        if not self.leads:
            code, value = self._broadcast((0, None))
            return value if code == 0 else sys.exit(code)
        try:
            value = function()
        except MixlabError as error:
            self._broadcast((error.exit_code, None))
            raise
        return self._broadcast((0, value))[1]

    def wait(self) -> None:
        """Wait for the leader, and the leader for nobody."""
        self.led(lambda: None)

    def gathered(self, value: Value) -> list[Value]:
        """Return the values of all ranks, in their order."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        with _connected():
            distributed.all_gather_object(found, value)
        return found

    def greatest(self, number: int) -> int:
        """Return the greatest number of all ranks."""
        if self.world == 1:
            return number
        found = torch.tensor(number)  # on the CPU: no accelerator waits for it
        with _connected():
            distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return int(found)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors of one device by their sums over all ranks, in one exchange."""
        if self.world == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _connected():
            distributed.all_reduce(flat)
        for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(summed.view(tensor.shape))

    def own_parts(self, images: int, parts: int) -> list[Part]:
        """Return the parts of a batch of so many images that this rank computes; each rank has one at least."""
        sizes = [len(part) for part in np.array_split(np.arange(images), max(parts, self.world))]
        stops = np.cumsum(sizes).tolist()
        all_parts = [Part(number, stop - sizes[number], stop) for number, stop in enumerate(stops)]
        return [all_parts[number] for number in np.array_split(np.arange(len(all_parts)), self.world)[self.rank]]

    def places(self, images: int, parts: int, with_partner: bool) -> np.ndarray:
        """Return the places in a batch of so many images that this rank needs.

        Args:
            with_partner: the one before the first, too, which the first may be mixed with.
        """
        own = self.own_parts(images, parts)
        start, stop = own[0].start, own[-1].stop
        if not with_partner or stop - start in (0, images):
            return np.arange(start, stop)
        return np.arange(start - 1, stop) % images

    def _broadcast(self, value: tuple[int, Any]) -> tuple[int, Any]:
        held = [value]
        with _connected():
            distributed.broadcast_object_list(held, src=0)
        return held[0]


ALONE = Ranks()


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that the environment tells of, for as long as the block lasts; alone where there are none.

    A rank that freezes or vanishes ends this process within 30 seconds.
    """
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"WORLD_SIZE={text}: expected the number of processes that train together")
    world = int(text)
    if world == 1 or distributed.is_initialized():  # inside another block, or the caller's own processes
        yield Ranks(distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else ALONE
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"WORLD_SIZE={world}, but {', '.join(missing)} not set; torchrun and --nproc set all of them, "
            "and without WORLD_SIZE one process trains alone"
        )
    if not (os.environ["RANK"].isdecimal() and int(os.environ["RANK"]) < world):
        raise UsageError(f"RANK={os.environ['RANK']}: expected the number of this process, 0 to {world - 1}")
    if not os.environ["MASTER_PORT"].isdecimal():
        raise UsageError(f"MASTER_PORT={os.environ['MASTER_PORT']}: expected the number of a port")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _connected():
        store, rank, world = next(rendezvous("env://", timeout=PATIENCE))
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    try:
        own_connection = store.clone()  # pyright: ignore[reportAttributeAccessIssue]
        with Heartbeat(own_connection, rank, world):
            yield Ranks(rank, world)
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's own, when the other side is gone
        raise TrainingError("lost the connection to another rank; what was saved before is intact") from error
