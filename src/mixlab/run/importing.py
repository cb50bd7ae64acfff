"""A checkpoint of others becomes a bundle: its architecture is read off its tensors, the rest has to be said."""

import hashlib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixlab import durable
from mixlab.errors import DataError, RunError, UsageError
from mixlab.models import inspection
from mixlab.models.catalogue import PUBLISHED, AnyModelConfig
from mixlab.models.convmixer import Activation
from mixlab.places import expand_user
from mixlab.run import foreign
from mixlab.run.bundle import Bundle, BundleDescription, misfit, write_bundle
from mixlab.run.card import model_card
from mixlab.spec import DataSpec

USUAL = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.5,), (0.5,))}  # of ImageNet, which timm expects


def import_weights(
    file: str | Path,
    folder: str | Path,
    classes: Sequence[str] = (),
    activation: Activation = "gelu",
    command: str = "",
    **preprocessing: Any,
) -> Bundle:
    """Write the bundle of a ConvMixer of timm or of the paper's authors, and return it.

    Args:
        folder: that does not exist yet, or is empty.
        classes: names in the order of the logits; (): their numbers.
        activation: of which a checkpoint says nothing.
        preprocessing: image_size (224), mean, std (ImageNet's) and resize_mode ("crop"), as fields of the DataSpec.

    Raises:
        RunError: where the file cannot be read or is no ConvMixer, or the folder cannot be written.
        UsageError: where classes or preprocessing do not fit.
    """
    file, folder = expand_user(str(file)), expand_user(str(folder))
    if not file.is_file():
        raise RunError(f"{file} does not exist" if not file.exists() else f"{file} is no file of weights")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} exists; choose another --out")
    state, _ = foreign.read_tensors(file)
    model = foreign.convmixer_of(state, file, activation)
    spec = _spec(state, classes, preprocessing, file)
    with file.open("rb") as opened:
        origin = f"{file.name}, SHA-256 {hashlib.file_digest(opened, 'sha256').hexdigest()}"
    description = BundleDescription(mixlab=version("mixlab"), model=model, spec=spec, origin=origin)
    bundle = Bundle(description, _with_counters(state, description))
    if reason := misfit(description, bundle.state):
        raise RunError(f"{file} cannot be taken: {reason}")
    write_bundle(folder, bundle, model_card(description, inspection.parameters(bundle.build()), command))
    return bundle


def other_activation(model: AnyModelConfig) -> str:
    """Return the published size that differs from a model in nothing but its activation, or ""."""
    without = model.model_dump(exclude={"activation"})
    alike = [name for name, known in PUBLISHED.items() if known.config.model_dump(exclude={"activation"}) == without]
    return "" if not alike or any(PUBLISHED[name].config == model for name in alike) else alike[0]


def read_classes(file: Path) -> tuple[str, ...]:
    """Return the names of classes: lines of text, or JSON: a list, or a table {"0": name} or {"0": [id, name]}.

    Raises:
        DataError: where the file cannot be read so.
    """
    try:
        text = durable.read_bytes(file).decode()
        found = durable.parse_json(text) if file.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if isinstance(found, Mapping):
        if set(found) != {str(place) for place in range(len(found))}:
            raise DataError(f'{file}: expected the keys "0" to "{len(found) - 1}", one for each class')
        found = [found[str(place)] for place in range(len(found))]
    listed: list[Any] = found if isinstance(found, list) else []
    names = [each[-1] if isinstance(each, list) and each else each for each in listed]
    texts = tuple(name.strip() for name in names if isinstance(name, str) and name.strip())
    if not texts or len(texts) < len(names):
        raise DataError(f"{file}: expected the name of a class in each line, or a list of names in JSON")
    return texts


def _spec(state: Mapping[str, Tensor], classes: Sequence[str], preprocessing: dict[str, Any], file: Path) -> DataSpec:
    if "classifier.weight" not in state:
        way_out = f"its weights can be trained on: mixlab train --weights {shlex.quote(str(file))}"
        raise RunError(f"{file} holds no classifier; {way_out}")
    outputs, channels = len(state["classifier.weight"]), state["stem.0.weight"].shape[1]
    if classes and len(classes) != outputs:
        raise UsageError(f"{len(classes):,} names of classes were given, and {file} has {outputs:,} classes")
    twice = [f"{name!r}" for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise UsageError(f"two classes have the same name: {', '.join(twice[:3])}; give each its own")
    mean, std = USUAL.get(channels, USUAL[3])
    usual = {"channels": channels, "image_size": 224, "mean": mean, "std": std}
    return DataSpec.parse({**usual, **preprocessing, "classes": tuple(classes) or tuple(map(str, range(outputs)))})


def _with_counters(state: Mapping[str, Tensor], description: BundleDescription) -> dict[str, Tensor]:
    """Add the counters of batches that old checkpoints do not have; no answer depends on them."""
    with torch.device("meta"):
        expected = description.model.build(description.spec).state_dict()
    counters = [name for name in expected if name.endswith(".num_batches_tracked") and name not in state]
    return {**state, **{name: torch.tensor(0) for name in counters}}
