import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

from mixlab.data import life_signs
from mixlab.data.images import FileImages
from mixlab.data.loading import batches
from mixlab.errors import WorkerLost
from mixlab.spec import DataSpec


@pytest.fixture
def images(pictures: Path, spec: DataSpec) -> FileImages:
    names = tuple(sorted(str(path.relative_to(pictures)) for path in pictures.glob("*/*.png")))
    return FileImages(pictures, names, np.zeros(len(names), dtype=np.int64), spec)


def read_with(images: FileImages, fault: int) -> None:
    """Read with two workers, and send a signal to the second one after the first batch."""
    order = [np.array([index % 40]) for index in range(400)]
    with contextlib.closing(batches(images, order, 2)) as found:
        next(found)
        worker = max(active_children(), key=lambda child: child.pid or 0)
        os.kill(worker.pid or 0, fault)
        if fault == signal.SIGKILL:
            worker.join(10)
        list(found)


def test_a_dead_worker_is_missed_at_the_next_batch_and_not_in_between(images: FileImages):
    before = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(
        WorkerLost, match=r"process \d+, which decodes pictures, was killed by signal 9 .* fewer --w"
    ) as lost:
        read_with(images, signal.SIGKILL)
    assert signal.getsignal(signal.SIGCHLD) == before
    for child in active_children():
        child.join(10)
    assert not active_children()
    assert lost.traceback  # which holds the loader


@pytest.mark.parametrize("number", life_signs.ASKING)
def test_a_signal_to_stop_ends_no_worker_that_has_hardly_started(
    images: FileImages, monkeypatch: pytest.MonkeyPatch, number: int
):
    start = life_signs.started

    def struck(begin: Callable[[], Iterator]):
        def begin_and_strike() -> Iterator:
            found = begin()
            for child in active_children():
                os.kill(child.pid or 0, number)
            return found

        return start(begin_and_strike)

    monkeypatch.setattr(life_signs, "started", struck)
    order = [np.array([index]) for index in range(8)]
    assert [batch.indices.tolist() for batch in batches(images, order, 4)] == [[index] for index in range(8)]


@pytest.mark.slow
def test_a_frozen_worker_is_ended(images: FileImages, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(life_signs, "SILENT", 2)
    with pytest.raises(WorkerLost, match=r"process \d+, .* gave no sign of life for 2 s and was ended .* --workers 0"):
        read_with(images, signal.SIGSTOP)
    assert not active_children()


def test_an_error_of_the_pictures_themselves_stays_what_it_is(images: FileImages, monkeypatch: pytest.MonkeyPatch):
    def broken(self: FileImages, index: int):
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr(FileImages, "read", broken)
    with pytest.raises(RuntimeError, match="a fault of our own"):
        list(batches(images, [np.array([0])] * 4, 2))
