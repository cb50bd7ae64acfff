"""Experiments that start from trained weights: what is not asked for is as the weights were trained.

A network is its weights, its architecture and what it is shown. So `weights` bring along their model, and their image
size, mean and standard deviation, between the recipe of the data set and what is asked for in so many words. Their
path becomes absolute, so that it means the same from any current folder.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mixlab import experiment
from mixlab.config import merge
from mixlab.data.catalogue import PicturesConfig
from mixlab.experiment import Experiment, Recipe
from mixlab.run.trained import Trained, from_anywhere, read_trained
from mixlab.spec import DataSpec


def compose(recipe: Recipe, values: Mapping[str, Any], overrides: Sequence[str]) -> Experiment:
    """Do as `experiment.compose`, with the model and the preprocessing of the weights.

    Raises:
        RunError: where the weights cannot be read.
        UsageError, DataError: as `experiment.compose`.
    """
    asked = experiment.asked(recipe, values, overrides)
    trained = _trained(asked)
    return _as_trained(experiment.compose(recipe, _with_model(values, asked, trained), overrides), asked, trained)


def compose_auto(recipe: Recipe, values: Mapping[str, Any], overrides: Sequence[str]) -> tuple[Experiment, bool]:
    """Do as `experiment.compose_auto`, with the model and the preprocessing of the weights; raises as `compose`."""
    asked = experiment.asked(recipe, values, overrides)
    trained = _trained(asked)
    found, auto = experiment.compose_auto(recipe, _with_model(values, asked, trained), overrides)
    return _as_trained(found, asked, trained), auto


def _trained(asked: Mapping[str, Any]) -> Trained | None:
    place = asked.get("weights")
    return read_trained(place) if place and isinstance(place, str) else None


def _with_model(values: Mapping[str, Any], asked: Mapping[str, Any], trained: Trained | None) -> Mapping[str, Any]:
    model = asked.get("model", {})
    if trained is None or trained.model is None or not isinstance(model, Mapping) or "name" in model:
        return values
    return {**values, "model": merge(trained.model.model_dump(mode="json"), model)}


def _as_trained(found: Experiment, asked: Mapping[str, Any], trained: Trained | None) -> Experiment:
    if trained is None:
        return found
    found, data = found.model_copy(update={"weights": from_anywhere(found.weights)}), asked.get("data", {})
    if trained.spec is None:
        return found
    taken = _preprocessing(found, trained.spec)
    fields = {key: value for key, value in taken.items() if not isinstance(data, Mapping) or key not in data}
    return found.model_copy(update={"data": found.data.model_copy(update=fields)})


def _preprocessing(found: Experiment, spec: DataSpec) -> dict[str, Any]:
    """Return the fields of the data that show pictures as the weights were shown them."""
    taken: dict[str, Any] = {"image_size": spec.image_size}
    if found.data.channels == spec.channels:
        taken |= {"mean": spec.mean, "std": spec.std}
    if isinstance(found.data, PicturesConfig):
        taken["resize_mode"] = spec.resize_mode
    return taken
