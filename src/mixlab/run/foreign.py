"""Checkpoints of others: a ConvMixer of timm, or of the paper's authors, becomes one of ours.

This is the only place that opens a pickle, with torch's reader of tensors and plain containers, which runs no code.
"""

import argparse
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mixlab.errors import RunError, UsageError
from mixlab.models.convmixer import Activation, ConvMixerConfig

PICKLED = (".pt", ".pth", ".tar")  # .pth.tar is what timm's training writes
SUFFIXES = (*PICKLED, ".safetensors")
INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model")  # keys of a checkpoint that holds more than weights
WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # of DataParallel and torch.compile
PAPER = re.compile(r"\d+\.")
TIMM = (
    (re.compile(r"^(blocks\.\d+)\.0\.fn\.([02])\."), r"\1.depthwise.\2."),
    (re.compile(r"^(blocks\.\d+)\.1\."), r"\1.pointwise.0."),
    (re.compile(r"^(blocks\.\d+)\.3\."), r"\1.pointwise.2."),
    (re.compile(r"^head\."), "classifier."),
)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Return the tensors of a file by the names that our networks have for them, and whether the file has others.

    Numbers become float32.

    Raises:
        RunError: where the file is none of `SUFFIXES`, cannot be read, or holds other things than tensors.
    """
    if path.suffix == ".safetensors":
        found = _read_safetensors(path)
    elif path.suffix in PICKLED:
        found = _inside(_unpickled(path))
    else:
        raise RunError(f"{path} is not a {', '.join(SUFFIXES)} file; other formats can carry code and are not read")
    _check_tensors(found, path)
    bare = {WRAPPERS.sub("", name): tensor for name, tensor in found.items()}
    named = _as_ours(_as_timm(bare))
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in named.items()}
    return state, set(named) != set(bare)


def convmixer_of(state: Mapping[str, Tensor], path: Path, activation: Activation = "gelu") -> ConvMixerConfig:
    """Return the architecture that the tensors of a file are of; its activation has no tensor.

    Raises:
        RunError: where they are not those of a ConvMixer.
    """
    stem, mixing = state.get("stem.0.weight"), state.get("blocks.0.depthwise.0.weight")
    if stem is None or mixing is None or stem.ndim != 4 or mixing.ndim != 4:
        named = ", ".join(list(state)[:3])
        raise RunError(f"{path} holds no ConvMixer of timm, of the paper's authors or of mixlab, but {named}, ...")
    sizes = {"dim": stem.shape[0], "patch_size": stem.shape[3], "kernel_size": mixing.shape[3]}
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    try:
        return ConvMixerConfig.parse({**sizes, "depth": depth, "activation": activation})
    except UsageError as error:
        raise RunError(f"{path} holds no ConvMixer that can be built: {error}") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise RunError(f"{path} is not a readable safetensors file: {error}") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None


def _unpickled(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise RunError(f"{path} is not read: it is compressed, as torch.save never does, and may have no end")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):  # timm's options
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything
        what = re.search(r"GLOBAL (\S+)", str(error))
        named = f", such as {what[1]}" if what else ""
        raise RunError(f"{path} is not read: it holds other things than tensors and plain containers{named}") from None


def _inside(found: Any) -> Any:
    """Return the weights of a checkpoint that may hold an optimiser and options beside them."""
    places = [key for key in INSIDE if isinstance(found, Mapping) and isinstance(found.get(key), Mapping)]
    return found[places[0]] if places else found


def _check_tensors(found: Any, path: Path) -> None:
    """Refuse what is no table of tensors, and tensors of more numbers than the file has bytes for."""
    if not isinstance(found, Mapping) or not found:
        raise RunError(f"{path} holds no table of tensors")
    for name, tensor in found.items():
        if not isinstance(name, str) or type(tensor) is not Tensor or tensor.layout != torch.strided:
            raise RunError(f"{path} holds other things than tensors: {str(name)[:80]}")
    if sum(tensor.numel() * tensor.element_size() for tensor in found.values()) > path.stat().st_size:
        raise RunError(f"{path} is not read: its tensors claim more numbers than it holds")


def _as_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the layers of the paper's nn.Sequential as timm does: stem, blocks, and the last one, the head."""
    if "3.0.fn.0.weight" not in state or not all(PAPER.match(name) for name in state):
        return dict(state)
    last = max(int(name.split(".")[0]) for name in state)

    def renamed(name: str) -> str:
        place, rest = name.split(".", 1)
        if int(place) < 3:
            return f"stem.{name}"
        return f"head.{rest}" if int(place) == last else f"blocks.{int(place) - 3}.{rest}"

    return {renamed(name): tensor for name, tensor in state.items()}


def _as_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if "blocks.0.0.fn.0.weight" not in state:
        return dict(state)
    renamed = {}
    for name, tensor in state.items():
        for pattern, ours in TIMM:
            name = pattern.sub(ours, name)
        renamed[name] = tensor
    return renamed
