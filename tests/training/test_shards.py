"""Training from shards is training from the folder that they were packed from."""

from pathlib import Path

from mixlab.data.catalogue import parse_data
from mixlab.data.shard_writer import pack
from mixlab.experiment import compose
from mixlab.training.session import Options
from mixlab.training.train import train


def test_weights_and_metrics_are_the_same_bytes_from_shards(pictures: Path, tiny: dict, tmp_path: Path):
    pack(parse_data(str(pictures)), tmp_path / "packed", 10_000, workers=1, say=lambda line: None)
    found = []
    for place, workers in ((pictures, 0), (tmp_path / "packed", 1)):
        fields = {**tiny, "data": {"name": str(place), "image_size": 16}}
        options = Options(out=tmp_path / "runs", name=f"{workers} workers", workers=workers, stream=True, quiet=True)
        run = train(compose("folder", fields, ["epochs=1"]), options)
        files = [run.bundle / "model.safetensors", run.folder / "metrics.jsonl", run.folder / "splits.json"]
        found.append([file.read_bytes() for file in files])
    assert len(list(tmp_path.glob("packed/train/*.tar"))) > 1
    assert found[0] == found[1]
