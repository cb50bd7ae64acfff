"""What data sets are called, and where they lie: from what a person gives to the fields of a config."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixlab.data import cifar
from mixlab.data.downloads import DOWNLOADS, data_home
from mixlab.data.shard_places import is_shards
from mixlab.errors import DataError, UsageError, did_you_mean, shown
from mixlab.places import expand_user

NAMES = ("digits", *DOWNLOADS)
KINDS = ("folder", "shards")  # of data sets that have a path; a folder may be called so, too


def expand(data: Any) -> dict[str, Any]:
    """Spell out a data set: "cifar10", "imagenette160", or the path of a folder or shards; or a table with such a name.

    Paths become absolute, so that they mean the same from any current folder.
    """
    if not isinstance(data, str | os.PathLike | Mapping):
        raise UsageError(f"data={shown(data)}: expected the name of a data set, a folder, or a table with one")
    fields = dict(data) if isinstance(data, Mapping) else {"name": data}
    name = fields.get("name", "digits")
    if not isinstance(name, str | os.PathLike) or not os.fspath(name):
        raise UsageError(f"data.name={shown(name)}: expected the name of a data set, or a folder")
    name = os.fspath(name)
    if name.startswith("imagenette") and name in DOWNLOADS:
        sizes = {"imagenette160": 128, "imagenette320": 224, "imagenette": 224}
        home = {"path": str(data_home() / DOWNLOADS[name].folder), "image_size": sizes[name]}
        return _absolute({**home, **fields, "name": "folder"})
    a_place = name in KINDS and "path" not in fields and (os.path.isdir(name) or not isinstance(data, Mapping))
    if name in ("digits", "cifar10", "cifar100", *KINDS) and not a_place:
        return _absolute({**fields, "name": name})
    looks_like_path = os.sep in name or name.startswith(("~", ".")) or name.endswith(".tar") or os.path.exists(name)
    if not looks_like_path:
        folders = [path.name for path in Path().glob("*") if path.is_dir()]
        known = did_you_mean(name, [*NAMES, *folders]) or f"; known: {', '.join(NAMES)}"
        raise DataError(f"{shown(name)} is neither a data set nor a folder{known}")
    found = _absolute({**fields, "path": name})
    return {**found, "name": _kind_of(Path(found["path"]))}


def _kind_of(path: Path) -> str:
    return cifar.kind_of(path) or ("shards" if is_shards(path) else "folder")


def _absolute(fields: dict[str, Any]) -> dict[str, Any]:
    """Make the path absolute, and that of labels_csv where it is not in the data's folder."""
    found, root = dict(fields), Path()
    path = fields.get("path", "." if fields["name"] in KINDS else "")
    labels = fields.get("labels_csv")
    if isinstance(path, str) and path:
        found["path"] = _from_anywhere(path)
        root = Path(found["path"])
    if isinstance(labels, str) and os.path.isfile(labels) and not os.path.isfile(root / labels):
        found["labels_csv"] = _from_anywhere(labels)
    return found


def _from_anywhere(path: str) -> str:
    return os.path.normpath(expand_user(path).absolute())
