"""Where trained networks are found: a run, a bundle, a file, or the Hugging Face Hub."""

import hashlib
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mixlab.errors import RunError
from mixlab.models.catalogue import AnyModelConfig
from mixlab.places import expand_user
from mixlab.run import bundle, foreign, hub
from mixlab.run.folder import Run, find_run
from mixlab.spec import DataSpec


@dataclass(frozen=True)
class Trained:
    """Trained weights, and as much as is known of what they were trained as."""

    state: dict[str, Tensor]
    model: AnyModelConfig | None = None
    spec: DataSpec | None = None


def find_model(place: str | Path | Run, root: Path = Path("runs")) -> Run | Path:
    """Return the run, the bundle folder or the exported .onnx file that a place stands for; hf:// is fetched.

    Raises:
        RunError: where there is none.
    """
    if isinstance(place, Run):
        return place
    if str(place).startswith(hub.ADDRESS):
        return hub.fetch(str(place))
    path = expand_user(str(place))
    if bundle.is_bundle(path) or path.suffix == ".onnx":
        return path
    if path.is_file() and path.suffix in foreign.SUFFIXES:
        way_out = f"make a bundle of it: mixlab import {shlex.quote(str(path))} --out FOLDER"
        if bundle.is_bundle(path.parent):
            way_out = f"give its folder: {path.parent}"
        raise RunError(f"{place} holds weights, but neither classes nor preprocessing; {way_out}")
    if path.is_file():
        raise RunError(f"{place} is a file, but no .onnx file; expected that, a run or the folder of a bundle")
    try:
        return find_run(place, root)
    except RunError as error:
        raise RunError(f"{error}{_or_else(str(place), path)}") from None


def find_bundle(place: str | Path | Run, root: Path = Path("runs")) -> Run | Path:
    """Return the run or the bundle folder that a place stands for, as `find_model`; raises RunError for other files."""
    found = find_model(place, root)
    if isinstance(found, Path) and found.suffix == ".onnx":
        raise RunError(f"{place} is an exported file; give the run or bundle that it came from")
    return found


def _or_else(place: str, path: Path) -> str:
    """Return what else a place that is no run might have been meant as."""
    if path.is_dir():
        return f", and no bundle: it has no {bundle.DESCRIPTION}"
    is_like_the_hubs = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", place) and not path.parent.exists()
    return f"; a model of the Hugging Face Hub is {hub.ADDRESS}{place}" if is_like_the_hubs else ""


def read_trained(place: str) -> Trained:
    """Return the weights of a run, a bundle, a model of the Hub, or a file of tensors, also of timm's.

    Raises:
        RunError: where there are none, or they cannot be read.
    """
    found = _find_weights(place)
    if isinstance(found, Path) and found.is_file():
        state, is_foreign = foreign.read_tensors(found)
        return Trained(state, foreign.convmixer_of(state, found) if is_foreign else None)
    read = bundle.read_bundle(found)
    return Trained(read.state, read.description.model, read.description.spec)


def from_anywhere(place: str) -> str:
    """Return the name of trained weights that means the same from any current folder: a path, or what the Hub calls it.

    Raises:
        RunError: where there are none.
    """
    if place.startswith(hub.ADDRESS):
        return place
    found = _find_weights(place)
    return os.path.normpath((found.folder if isinstance(found, Run) else found).absolute())


def sha256(place: str) -> str:
    """Return the SHA-256 of the file that has the tensors of `read_trained`; raises RunError where there is none."""
    found = _find_weights(place)
    folder = found.bundle if isinstance(found, Run) else found
    path = folder if folder.is_file() else folder / bundle.WEIGHTS
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None


def _find_weights(place: str) -> Run | Path:
    """Return the run, the bundle folder or the file of tensors that a place stands for, as `find_bundle`."""
    path = expand_user(place)
    return path if path.is_file() and path.suffix != ".onnx" else find_bundle(place)
