"""What a server does with pictures: decode them on a few threads, answer them in batches, change the model."""

import asyncio
import contextlib
import os
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mixlab.errors import MixlabError, UnreadableImage
from mixlab.run.folder import Run
from mixlab.serving.batching import Batcher, Caller, Found, NetworkFailed
from mixlab.serving.body import Bodies, ClientGone
from mixlab.serving.limits import Limits
from mixlab.serving.metrics import Metrics
from mixlab.serving.model import Prepared, ServedModel, files_of, read_model
from mixlab.serving.multipart import Picture
from mixlab.serving.refusal import busy
from mixlab.serving.turns import Turns

DECODERS = min(4, os.cpu_count() or 1)  # threads of each kind: for small pictures, for large ones, for forms
LARGE = 4_000_000  # pixels; from here on a picture waits only for other large ones, and small ones never for it
LOOK_EVERY = 1.0  # seconds between two looks at the model's files


class Service:
    """One model at a time, and everything that waits for its answers."""

    def __init__(
        self,
        place: Run | Path,
        device: str,
        limits: Limits,
        say: Callable[[str], None],
        reject_below: str = "",
        precision: str = "float32",
    ) -> None:
        self._read = lambda: read_model(place, device, reject_below, precision)
        self._files = files_of(place)
        self._loaded = self._state()  # before they are read: what changes meanwhile is read again
        self.model = self._read()
        self.limits = limits
        self.metrics = Metrics()
        self.metrics.answers_with(self.model.name, self.model.digest)
        self.bodies = Bodies(limits)
        self.is_leaving = False  # no longer ready; what comes is still answered
        self._say = say
        self._in_flight = 0
        self._small, self._large = (Turns(DECODERS, limits.max_pixels) for _ in range(2))
        self._reloading = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer pictures while entered."""
        self._threads, network = ThreadPoolExecutor(3 * DECODERS, "decode"), ThreadPoolExecutor(1, "network")
        self._batcher = Batcher(self.limits, network, self._note_batch)
        task = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            task.cancel()
            for threads in (self._threads, network):
                threads.shutdown(wait=False, cancel_futures=True)

    @property
    def is_full(self) -> bool:
        return self._in_flight >= self.limits.queue

    @property
    def has_changed(self) -> bool:
        """Whether the model's files are other ones than were read."""
        return self._state() != self._loaded

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Take a place in the queue; raises Refusal where it is full."""
        if self.is_full:
            raise busy(f"{self.limits.queue} requests are being answered already")
        self._in_flight += 1
        self.metrics.in_flight.set(self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1
            self.metrics.in_flight.set(self._in_flight)

    async def on_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do work that takes long, beside the pictures that are being decoded."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def answer(self, picture: Picture, model: ServedModel, caller: Caller) -> tuple[Found, Prepared]:
        """Answer one picture.

        Raises:
            UnreadableImage: where it cannot be decoded.
            NetworkFailed: where the network raises an error on it.
            ClientGone: where nobody waits for it any longer.
        """
        turns = self._large if picture.pixels >= LARGE else self._small
        prepared = await self._prepared(picture, model, caller, turns)
        try:
            found = await self._batcher.answer(prepared, model, caller)
        except NetworkFailed:
            self.metrics.pictures.labels("failed").inc()
            raise
        finally:
            turns.give(prepared.pixels)
        if found is None:
            raise ClientGone
        self.metrics.pictures.labels("unknown" if found.answer.is_unknown else "answered").inc()
        return found, prepared

    async def _prepared(self, picture: Picture, model: ServedModel, caller: Caller, turns: Turns) -> Prepared:
        """Decode a picture when its turn comes; give back all pixels but those that it goes on to hold."""
        kept = 0
        with self._batcher.decoding():
            await turns.take(caller, picture.pixels)
            work = asyncio.ensure_future(self.on_thread(_prepare, picture.data, model, caller))
            work.add_done_callback(lambda _: turns.leave())
            try:
                prepared: Prepared = await asyncio.shield(work)  # a thread goes on, whether anybody waits for it or not
                kept = prepared.pixels
                return prepared
            except UnreadableImage:
                self.metrics.pictures.labels("unreadable").inc()
                raise
            finally:
                work.add_done_callback(lambda _: turns.give(picture.pixels - kept))

    async def reload(self) -> bool:
        """Read the model again, beside the one that answers, and change to it; a bad one changes nothing."""
        async with self._reloading:
            self._loaded = self._state()
            try:
                model = await asyncio.to_thread(self._read)
            except MixlabError as error:
                return self._keep(str(error))
            except Exception as error:  # such as memory that is too short for two models
                traceback.print_exc()
                return self._keep(f"{type(error).__name__}: {error}")
            self.model = model
            self.metrics.reloads.labels("ok").inc()
            self.metrics.answers_with(model.name, model.digest)
            self._say(f"reloaded  {model.name}, digest {model.digest}")
            return True

    async def watch(self) -> None:
        """Reload whenever the model's files have changed and then stayed as they are for a look."""
        seen = self._loaded
        while True:
            await asyncio.sleep(LOOK_EVERY)
            before, seen = seen, self._state()
            if seen == before and self.has_changed:
                await self.reload()

    def log_failure(self, error: NetworkFailed) -> None:
        """Say why the network failed; clients are not told."""
        self._say(f"failed  {error}")

    def _keep(self, why: str) -> bool:
        self.metrics.reloads.labels("failed").inc()
        self._say(f"kept  {self.model.name}, digest {self.model.digest}: the new model cannot be used: {why}")
        return False

    def _state(self) -> list[tuple[int, int, int]]:
        """Return what changes when the model's files do; files that are not there count as such."""
        found = []
        for file in self._files:
            with contextlib.suppress(OSError):
                status = file.stat()
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return found

    def _note_batch(self, pictures: int, seconds: float) -> None:
        self.metrics.batch.observe(pictures)
        self.metrics.network_seconds.observe(seconds)


def _prepare(data: bytes, model: ServedModel, caller: Caller) -> Prepared:
    if caller.is_gone:
        raise ClientGone
    return model.prepare(data, caller.wants_heat)
