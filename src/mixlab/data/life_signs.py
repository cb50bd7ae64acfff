"""Processes that decode pictures: they give signs of life, and one that dies or freezes is missed.

Torch alone waits for ever for a worker that is stopped, and when one dies it raises wherever the program is, in the
middle of a step too. Here both are one error, where the next batch is asked for.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from multiprocessing import active_children
from multiprocessing.process import BaseProcess

import torch
from torch import Tensor

from mixlab.errors import WorkerLost

BEAT = 1.0  # seconds between signs of life
ASKING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # to stop
SILENT = 18  # signs that a worker misses before it counts as frozen; torch needs up to 5 seconds more to see it ended


def no_signs(workers: int) -> Tensor:
    """Return shared memory for process ids and signs of life, (workers, 2)."""
    return torch.zeros(workers, 2, dtype=torch.int64).share_memory_()


def give_signs(signs: Tensor, worker: int, process: int) -> None:
    """Give signs of life from now on, in a worker."""
    row = signs[worker].numpy()
    row[0] = process

    def live() -> None:
        while True:
            row[1] += 1
            time.sleep(BEAT)

    threading.Thread(target=live, daemon=True).start()


def started(start: Callable[[], Iterator]) -> tuple[Iterator, list[BaseProcess]]:
    """Start workers, and return what `start` does and them; torch does not get to hear when one of them dies.

    Signals to stop wait until all have started, and in each worker until it calls `unblock_signals`.
    """
    before, main = set(active_children()), threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if main and hasattr(signal, "SIGCHLD") else None
    with _signals_blocked():
        found = start()
    if handler is not None:
        signal.signal(signal.SIGCHLD, handler)
    return found, [child for child in active_children() if child not in before]


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def unblock_signals() -> None:
    """Let signals to stop through, in a worker that knows what to do with them."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)


@contextlib.contextmanager
def watched(workers: Sequence[BaseProcess], signs: Tensor) -> Iterator[None]:
    """Raise WorkerLost instead of the errors that come of a worker that died, and end one that is frozen."""
    frozen: set[int | None] = set()
    end = threading.Event()
    watch = threading.Thread(target=_watch, args=(workers, signs, frozen, end), daemon=True)
    watch.start()
    try:
        yield
    except (RuntimeError, OSError, EOFError):
        for worker in workers:
            worker.join(0.2)  # one that has just died may still seem alive
        complain(workers, frozen)
        raise
    finally:
        end.set()
        watch.join()


def complain(workers: Sequence[BaseProcess], frozen: Set[int | None] = frozenset()) -> None:
    """Raise WorkerLost where a worker has died."""
    for worker in workers:
        if worker.exitcode:
            raise WorkerLost(f"process {worker.pid}, which decodes pictures, {_fate(worker, worker.pid in frozen)}")


def _fate(worker: BaseProcess, frozen: bool) -> str:
    if frozen:
        return (
            f"gave no sign of life for {SILENT * BEAT:g} s and was ended (a disk or network that hangs does that, or "
            "something that stopped it; --workers 0 decodes without such processes)"
        )
    code = worker.exitcode or 0
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"{how} (a system that is short of memory does that; fewer --workers need less)"


def _watch(workers: Sequence[BaseProcess], signs: Tensor, frozen: set[int | None], end: threading.Event) -> None:
    """End the workers that give no signs of life. Time is counted in looks: a computer that slept is no reason."""
    seen, missed = {}, dict.fromkeys((worker.pid for worker in workers), 0)
    forked = torch.multiprocessing.get_start_method() == "fork"  # else the first sign comes after a long import
    while not end.wait(BEAT):
        now = dict(signs.tolist())
        for pid in missed:
            alike = seen.get(pid) == now.get(pid) and (pid in now or forked)
            missed[pid] = missed[pid] + 1 if alike else 0
        seen = now
        for worker in workers:
            if missed[worker.pid] >= SILENT and worker.is_alive():
                frozen.add(worker.pid)
                worker.kill()
