"""The library that the layout is named after, as oracle: it reads our shards, and we read what it writes."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixlab.data.catalogue import parse_data
from mixlab.data.shard_index import INDEX, read_index
from mixlab.data.shard_writer import pack

webdataset = pytest.importorskip("webdataset", reason="the extra `shards` is not installed")
tariterators = pytest.importorskip("webdataset.tariterators")


def samples_of(shards: list[Path]) -> Iterator[dict[str, Any]]:
    """Read as webdataset.WebDataset does, which would leave the files open."""
    for path in shards:
        with path.open("rb") as stream:
            files = tariterators.tar_file_expander([{"url": str(path), "stream": stream}])
            yield from tariterators.group_by_keys(files)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXLAB_CACHE", str(tmp_path / "cache"))


def test_the_library_reads_our_shards_as_we_do(pictures: Path, tmp_path: Path):
    pack(parse_data(str(pictures)), tmp_path / "packed", 20_000, workers=1, say=lambda line: None)
    part = read_index(tmp_path / "packed").parts["train"]
    ours = {part.slices.read(index): str(label) for index, label in enumerate(part.labels)}
    theirs = {sample["png"]: sample["cls"].decode() for sample in samples_of(sorted(tmp_path.glob("packed/train/*")))}
    assert len(theirs) == 40
    assert theirs == ours


@pytest.mark.parametrize("with_json", [True, False])
def test_we_read_the_shards_that_the_library_writes(tmp_path: Path, with_json: bool):
    written: dict[str, tuple[bytes, int]] = {}
    (tmp_path / "t").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "t" / "data-%06d.tar"), maxcount=7, verbose=0) as sink:
        for number in range(20):
            buffer = io.BytesIO()
            Image.fromarray(np.full((5, 6, 3), number, np.uint8)).save(buffer, "PNG")
            key = f"{'sub/' if number % 2 else ''}sample{number:03d}"
            label = {"json": {"label": number % 3, "caption": "a"}} if with_json else {"cls": number % 3}
            sink.write({"__key__": key, "png": buffer.getvalue(), "txt": "more", **label})
            written[key] = (buffer.getvalue(), number % 3)
    shards = sorted((tmp_path / "t").glob("*.tar"))
    assert not (tmp_path / "t" / INDEX).exists()
    part = read_index(tmp_path / "t").parts["train"]
    found = {
        name.partition("/")[2].removesuffix(".png"): (part.slices.read(index), int(part.labels[index]))
        for index, name in enumerate(part.names)
    }
    assert len(shards) == 3
    assert found == written
    assert {sample["__key__"]: sample["png"] for sample in samples_of(shards)} == {k: v[0] for k, v in written.items()}
