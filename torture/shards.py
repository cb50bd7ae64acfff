"""T1s: as T1, but from shards, and compared with the uninterrupted training from the folder they were packed from."""

from pathlib import Path

from mixlab.data.catalogue import parse_data
from mixlab.data.shard_writer import pack
from torture.check import Check
from torture.exact_resume import compare, draw_pictures, write_recipe

SHARD_BYTES = 50_000  # so that there are several


def case(number: int, root: Path) -> str:
    """Train once from the folder uninterrupted, once from shards killed twice, and compare."""
    draw_pictures(root / "pictures")
    pack(parse_data(str(root / "pictures")), root / "shards", SHARD_BYTES, workers=1, say=lambda line: None)
    whole = write_recipe(root / "folder.toml", number, root / "pictures")
    broken = write_recipe(root / "shards.toml", number, root / "shards")
    return compare(number, root, whole, broken)


CHECKS = [
    Check(
        name="T1s",
        claim="a training from shards, killed twice, ends byte-identical to the uninterrupted one from their folder",
        case=case,
        full=10,
        sample=1,
    )
]
