"""The bundle is what ships: weights, architecture, classes, preprocessing and temperature."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import safetensors
import safetensors.torch
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from mixlab import durable
from mixlab.config import Config
from mixlab.errors import MixlabError, RunError
from mixlab.models import catalogue
from mixlab.models.catalogue import ModelConfig
from mixlab.run.folder import Run
from mixlab.spec import DataSpec

WEIGHTS, DESCRIPTION, CARD = "model.safetensors", "bundle.json", "README.md"
METADATA = "mixlab"  # key of an exported file's metadata; the value is the text of bundle.json


class Accepted(Config):
    """What a threshold did on validation images."""

    threshold: Annotated[float, Field(ge=0, le=1)]  # least confidence of what is accepted
    accepted: PositiveInt  # images
    right: NonNegativeInt  # of those


class BundleDescription(Config):
    """bundle.json: everything but the weights."""

    mixlab: str  # version that wrote it
    model: ModelConfig
    spec: DataSpec
    temperature: PositiveFloat = 1.0  # divides the logits; fitted on validation images
    reject_below: Annotated[float, Field(ge=0, le=1)] = 0.0  # confidence below which a picture's class is not known
    accepted: tuple[Accepted, ...] = ()  # by falling threshold, the last 0: from these any precision can be chosen
    origin: str = ""  # file that the weights were imported from, with its SHA-256
    data: str = ""  # name or folder of the data set
    data_fingerprint: str = ""  # SHA-256 of the data set
    experiment: str = ""  # digest of the experiment
    weights_sha256: str = ""
    validation: dict[str, float] = {}  # what was measured on validation images
    training: dict[str, str] = {}  # what people ask of a training -> the answer

    @property
    def title(self) -> str:
        """The network and the data set, for people."""
        return " on ".join(filter(None, [catalogue.published_name(self.model), Path(self.data).name]))


@dataclass(frozen=True)
class Bundle:
    description: BundleDescription
    state: dict[str, Tensor]

    def build(self) -> nn.Module:
        """Return the trained network in evaluation mode."""
        model = self.description.model.build(self.description.spec)
        model.load_state_dict(self.state)
        return model.eval()


def write_bundle(folder: Path, bundle: Bundle, card: str) -> None:
    """Write a bundle durably; raises RunError where it cannot be written."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in bundle.state.items()}
    weights = safetensors.torch.save(state, {"format": "pt"})
    described = bundle.description.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    described_as = {WEIGHTS: weights, DESCRIPTION: as_text(described).encode(), CARD: card.encode()}
    durable.write_folder(folder, described_as)


def as_text(description: BundleDescription) -> str:
    """Return a description as the text of bundle.json."""
    return json.dumps(description.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def for_page(description: BundleDescription, engine: str, has_heat: bool) -> dict[str, Any]:
    """Return model.json: what the page is told of a model that a server or the browser answers with."""
    spec = description.spec
    return {
        "engine": engine,
        "name": description.title,
        "classes": list(spec.classes),
        "image_size": spec.image_size,
        "channels": spec.channels,
        "resize_mode": spec.resize_mode,
        "mean": list(spec.mean),  # what lies around a picture that is padded
        "temperature": description.temperature,
        "reject_below": description.reject_below,
        "has_heat": has_heat,
    }


def read_description(text: str, file: Path) -> BundleDescription:
    """Read the text of bundle.json, from the metadata of an exported file.

    Raises:
        RunError: where it is none; names the file.
    """
    if not text:
        raise RunError(f"{file} does not say its classes: it was not exported by mixlab")
    try:
        return _parse(durable.parse_json(text.encode()))
    except (ValueError, MixlabError) as error:
        raise RunError(f"the description in {file} cannot be used: {error}") from None


def _parse(values: Any) -> BundleDescription:
    if not isinstance(values, dict):
        raise RunError(f"{DESCRIPTION} holds no object")
    return BundleDescription.parse({**values, "model": catalogue.parse_model(values.get("model", {}))})


def read_bundle(place: Run | Path) -> Bundle:
    """Read the bundle of a run or a bundle folder.

    Raises:
        RunError: where there is none, or it is damaged.
    """
    folder = place.bundle if isinstance(place, Run) else place
    try:
        values = durable.read_json(folder / DESCRIPTION)
        weights = durable.read_bytes(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise RunError(_missing(place, Path(error.filename))) from None
    except ValueError as error:
        raise RunError(f"{folder / DESCRIPTION} is damaged: {error}; copy the bundle again") from None
    except OSError as error:
        raise RunError(f"the bundle {folder} cannot be read: {error}") from None
    try:
        description = _parse(values)
        if hashlib.sha256(weights).hexdigest() != description.weights_sha256:
            raise RunError(f"{folder / WEIGHTS} does not match the SHA-256 in {DESCRIPTION}; copy the bundle again")
        state = safetensors.torch.load(weights)
        if reason := misfit(description, state):
            raise RunError(f"{WEIGHTS} does not hold the model of {DESCRIPTION}: {reason}")
        return Bundle(description, state)
    except (safetensors.SafetensorError, MixlabError) as error:
        raise RunError(f"the bundle {folder} cannot be used: {error}") from None


def misfit(description: BundleDescription, state: dict[str, Tensor]) -> str:
    """Return why weights are not those of the model, or ""; no memory is taken for it."""
    with torch.device("meta"):
        expected = description.model.build(description.spec).state_dict()
    for name, tensor in expected.items():
        found = state.get(name)
        if found is None:
            return f"{name} is missing"
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            return f"{name} is {_form(found)}; expected {_form(tensor)}"
        if not found.isfinite().all():
            return f"{name} holds numbers that are not finite"
    unknown = [name for name in state if name not in expected]
    return f"the model has no {unknown[0]}" if unknown else ""


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def is_bundle(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file()


def _missing(place: Run | Path, file: Path) -> str:
    if isinstance(place, Run) and not place.is_finished:
        return f"{place.folder} is not finished and has no bundle yet; go on with: mixlab train --resume {place.quoted}"
    folder = place.bundle if isinstance(place, Run) else place
    return f"{folder} is no bundle: {file.name} is missing"
