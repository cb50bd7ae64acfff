"""Where trained networks are found: a run, a bundle, a file, or the Hugging Face Hub."""

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
    path = expand_user(place)
    if path.is_file() and path.suffix != ".onnx":
        state, is_foreign = foreign.read_tensors(path)
        return Trained(state, foreign.convmixer_of(state, path) if is_foreign else None)
    found = bundle.read_bundle(find_bundle(place))
    return Trained(found.state, found.description.model, found.description.spec)
