"""Pictures of many requests, answered together: one batch at a time, on one thread."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np

from mixlab.errors import MixlabError
from mixlab.evaluation.classifier import Answer
from mixlab.serving.limits import Limits
from mixlab.serving.model import Prepared, ServedModel


class NetworkFailed(MixlabError):
    """The network raised an error on one picture."""


@dataclass(eq=False)
class Caller:
    """Who waits for answers."""

    is_gone: bool = False  # nothing more is computed for it
    wants_heat: bool = False


@dataclass(frozen=True, eq=False)
class Found:
    answer: Answer
    heat: np.ndarray | None  # (rows, columns) in [0, 1]; None: not asked for, or the model has none


@dataclass(eq=False)
class Asked:
    """A prepared picture, and the place of its answer."""

    prepared: Prepared
    model: ServedModel
    caller: Caller
    arrived: float  # seconds of the loop's clock
    found: "asyncio.Future[Found | None]" = field(repr=False)  # None: the caller has gone


class Batcher:
    """Answers pictures in the order they come, as many together as are there."""

    def __init__(self, limits: Limits, thread: Executor, note: Callable[[int, float], None]) -> None:
        self._limits, self._thread, self._note = limits, thread, note
        self._waiting: deque[Asked] = deque()
        self._changed = asyncio.Event()
        self.coming = 0  # pictures that are being decoded: worth waiting for

    async def answer(self, prepared: Prepared, model: ServedModel, caller: Caller) -> Found | None:
        """Return the answer, or None where the caller has gone; raises NetworkFailed."""
        loop = asyncio.get_running_loop()
        asked = Asked(prepared, model, caller, loop.time(), loop.create_future())
        self._waiting.append(asked)
        self._changed.set()
        return await asked.found

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """Note that a picture is being decoded."""
        self.coming += 1
        try:
            yield
        finally:
            self.coming -= 1
            self._changed.set()

    async def run(self) -> None:
        """Answer batches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._collect()
            if not batch:
                continue
            started = loop.time()
            found = await loop.run_in_executor(self._thread, answer_each, batch)
            self._note(len(batch), loop.time() - started)
            for asked, result in zip(batch, found, strict=True):
                _settle(asked, result)

    async def _collect(self) -> list[Asked]:
        """Wait for a picture, then for more while there is time, room, and any that is being decoded."""
        while not self._waiting:
            await self._wait(None)
        end = self._waiting[0].arrived + self._limits.max_wait
        while self.coming and len(self._waiting) < self._limits.max_batch and await self._wait(end):
            pass
        return self._take()

    def _take(self) -> list[Asked]:
        """Take pictures of one model from the front; those that nobody waits for are left out."""
        batch: list[Asked] = []
        while self._waiting and len(batch) < self._limits.max_batch:
            asked = self._waiting[0]
            if batch and asked.model is not batch[0].model:
                break
            self._waiting.popleft()
            if asked.caller.is_gone:
                _settle(asked, None)
            else:
                batch.append(asked)
        return batch

    async def _wait(self, end: float | None) -> bool:
        """Wait for a change; return False where `end` came first."""
        self._changed.clear()
        try:
            async with asyncio.timeout_at(end):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True


def answer_each(batch: Sequence[Asked]) -> list[Found | NetworkFailed | None]:
    """Answer a batch; where that fails, each picture alone, so that one cannot take the others with it."""
    try:
        answers = batch[0].model.answer([asked.prepared for asked in batch])
        return [_with_heat(asked, answer) for asked, answer in zip(batch, answers, strict=True)]
    except Exception as error:  # whatever a network raises is the answer to its own picture, and to no other
        if len(batch) == 1:
            return [NetworkFailed(f"{type(error).__name__}: {error}")]
        return [result for asked in batch for result in answer_each([asked])]


def _with_heat(asked: Asked, answer: Answer) -> Found:
    wanted = asked.caller.wants_heat and asked.model.has_heat
    return Found(answer, asked.model.heat_map(asked.prepared, answer) if wanted else None)


def _settle(asked: Asked, result: Found | NetworkFailed | None) -> None:
    if asked.found.done():
        return
    if isinstance(result, NetworkFailed):
        asked.found.set_exception(result)
    else:
        asked.found.set_result(result)
