"""What the index of a data set as large as ImageNet-1k costs when a training starts: seconds of a core, memory.

    python benchmarks/shard_index.py

The shards are empty files of the right sizes in a temporary folder; only their index is read.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mixlab.data.catalogue import parse_data
from mixlab.data.shard_index import INDEX, Head, Rows, write_index

PICTURES, CLASSES, SHARD = 1_281_167, 1000, 2200  # in all, classes, pictures of a shard


def rows(root: Path) -> Iterator[Rows]:
    """Yield the index of drawn shards, and make their files."""
    generator = np.random.default_rng(0)
    dealt = np.split(generator.permutation(PICTURES), range(SHARD, PICTURES, SHARD))
    for number, chosen in enumerate(dealt):
        sizes = generator.integers(40_000, 180_000, len(chosen))
        offsets = np.cumsum(sizes + 2048) - sizes
        name, end, labels = f"train/{number:06d}.tar", int(offsets[-1] + sizes[-1]), chosen % CLASSES
        with (root / name).open("wb") as file:
            file.truncate(end)
        yield Rows(
            shard=name,
            bytes=end,
            sha256="0" * 64,
            names=tuple(
                f"train/n{label:08d}/n{label:08d}_{each % 1300}.JPEG"
                for label, each in zip(labels, chosen, strict=True)
            ),
            labels=tuple(labels.tolist()),
            positions=tuple(chosen.tolist()),
            offsets=tuple(offsets.tolist()),
            sizes=tuple(sizes.tolist()),
        )


def timed(what: str, work: Callable[[], Any]) -> Any:
    started = time.process_time()
    found = work()
    status = Path("/proc/self/status").read_text()  # of Linux; getrusage counts what the parent had
    peak = int(status.partition("VmHWM:")[2].split()[0]) // 1024
    print(f"{what:<24}{time.process_time() - started:6.1f} s of one core, at most {peak:,} MiB so far")
    return found


def read(place: str) -> None:
    config = parse_data(place)
    timed("before", lambda: None)
    data = timed("loading", lambda: config.load(seed=0, carve_validation=True))
    timed("fingerprint", data.fingerprint)
    timed("splits.json", lambda: json.dumps({name: images.names for name, images in data.splits.items()}, indent=2))
    print(f"names {sum(map(sys.getsizeof, data.train.names)) / len(data.train):.0f} bytes each")


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "train").mkdir()
        write_index(root / INDEX, Head(classes=tuple(f"n{number:08d}" for number in range(CLASSES))), rows(root))
        print(f"index of {(root / INDEX).stat().st_size / 1e6:.0f} MB", flush=True)
        subprocess.run([sys.executable, __file__, place], check=True)  # its memory begins anew


if __name__ == "__main__":
    read(sys.argv[1]) if len(sys.argv) > 1 else main()
