"""Ranks share every batch: each image belongs to one of them, in the order of a single process."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlab import heartbeat
from mixlab.heartbeat import Heartbeat
from mixlab.ranks import Ranks, joined


@given(images=st.integers(1, 300), parts=st.integers(1, 16), world=st.integers(1, 9))
def test_each_place_of_a_batch_belongs_to_one_rank(images: int, parts: int, world: int):
    shares = [Ranks(rank, world).places(images, parts, with_partner=False) for rank in range(world)]
    assert np.concatenate(shares).tolist() == list(range(images))


@given(images=st.integers(1, 300), parts=st.integers(1, 16), world=st.integers(1, 9))
def test_parts_are_those_of_one_process(images: int, parts: int, world: int):
    alone = Ranks().own_parts(images, max(parts, world))
    assert [part for rank in range(world) for part in Ranks(rank, world).own_parts(images, parts)] == alone


@given(images=st.integers(2, 300), world=st.integers(2, 9))
def test_a_share_begins_with_the_partner_of_its_first_image(images: int, world: int):
    for rank in range(world):
        own = Ranks(rank, world).places(images, 1, with_partner=False)
        if len(own) not in (0, images):
            assert Ranks(rank, world).places(images, 1, with_partner=True).tolist() == [(own[0] - 1) % images, *own]


def test_one_process_needs_no_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as ranks:
        assert ranks.led(lambda: 7) == 7
        assert ranks.gathered("a") == ["a"]
        assert ranks.greatest(3) == 3


class Counts(dict):
    """A store of counters, as torch.distributed's."""

    def add(self, key: str, number: int) -> int:
        self[key] = self.get(key, 0) + number
        return self[key]


def test_a_rank_that_no_longer_counts_up_is_late_and_one_that_does_is_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heartbeat, "PERIOD", 0.01)
    counts = Counts()
    with Heartbeat(counts, rank=0, world=2) as watched:  # pyright: ignore[reportArgumentType]
        limit = time.monotonic() + 30
        while watched.seen[0][0] < 3 and time.monotonic() < limit:
            time.sleep(0.01)
        now = watched.seen[0][1]
    assert watched.late(now) == ""
    watched.read = watched.seen[1][1] + heartbeat.LIMIT + 1
    watched.seen[0] = (4, watched.read)
    assert watched.late(watched.read) == "rank 1"
    assert "host of the store" in watched.late(watched.read + heartbeat.LIMIT + 1)
