"""The experiment: one frozen tree of everything that decides a result."""

import contextlib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from mixlab import randomness
from mixlab.config import Config, assign, merge, parse_override, read_toml
from mixlab.data.augmentation_config import AugmentationConfig
from mixlab.data.balance import balanced_order
from mixlab.data.catalogue import DataConfig, DigitsConfig
from mixlab.data.data_set import DataSet
from mixlab.data.names import expand as expand_data
from mixlab.errors import UsageError, did_you_mean, shown
from mixlab.models import catalogue as models
from mixlab.models.catalogue import ModelConfig
from mixlab.models.convmixer import ConvMixerConfig
from mixlab.optim.optimizers import AdamWConfig, OptimizerConfig
from mixlab.optim.schedules import OneCycleConfig, ScheduleConfig, learning_rate

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Share = Annotated[float, Field(ge=0, lt=1)]
UpToAll = Annotated[float, Field(ge=0, le=1)]
Epochs = Annotated[float, Field(gt=0, le=1e6)]
Recipe = Path | str | Mapping[str, Any]


def _as_sizes(value: Any) -> Any:
    """Refuse what is no list of pairs, showing the form."""
    if isinstance(value, Sequence) and all(isinstance(pair, Sequence) and len(pair) == 2 for pair in value):
        return value
    raise ValueError("expected pairs of a share and a side in pixels, such as [[0, 16], [0.5, 32]]")


ImageSizes = Annotated[tuple[tuple[Share, PositiveInt], ...], BeforeValidator(_as_sizes)]


def _as_parts(value: Any) -> Any:
    """Refuse what is neither a number of parts nor auto, saying both."""
    if value == "auto" or (isinstance(value, int | str) and str(value).isdecimal() and int(value) > 0):
        return value if value == "auto" else int(value)
    raise ValueError("expected a number of parts such as 2, or auto")


Parts = Annotated[PositiveInt | Literal["auto"], BeforeValidator(_as_parts)]


class Experiment(Config):
    """Device, workers and progress bar are no part of it: they do not decide the result."""

    seed: NonNegativeInt = 0
    epochs: Epochs = 10  # passes over the training images; the last may be a part of one
    schedule_epochs: Annotated[float, Field(ge=0, le=1e6)] = (
        0  # length that the schedule is planned for, in epochs; 0: epochs
    )
    batch_size: PositiveInt = 128  # images of one optimiser step
    accumulate: Parts = "auto"  # parts that a batch is computed in; BatchNorm sees one part; auto: the fewest that fit
    sync_batchnorm: bool = False  # BatchNorm sees what all ranks compute at once; costs the fused kernels of ConvMixer
    label_smoothing: Share = 0.0
    class_weights: bool = False  # the loss of an image is weighted by one over its class's share of the training images
    balanced: bool = False  # each class is equally frequent in an epoch: few images come often, of many only a part
    clip_norm: NonNegativeFloat = 1.0  # largest norm of the gradient; 0: not clipped
    on_nan: Literal["stop", "skip", "rollback"] = "stop"  # where a step leaves a number that is not finite: end, drop
    # the step's update, or go on from the newest checkpoint without that step
    weight_average: Share = 0.0  # decay of the moving average of weights that is evaluated and shipped; 0: off
    precision: Precision = "auto"  # of operations that allow it; auto: bfloat16 where it is faster, else float32
    protocol: Literal["honest", "published"] = "honest"  # published: no validation images, test watched each epoch
    select: Literal["best", "last"] = (
        "best"  # epoch that is shipped; best: by validation accuracy; published: always the last
    )
    weights: str = ""  # run, bundle or safetensors file to start from; "": fresh weights
    freeze: bool = False  # train only what `weights` did not have
    image_sizes: ImageSizes = ()  # (share of the schedule, side in pixels): from there on steps train at that size;
    # before the first, and in evaluation, it is data.image_size
    freeze_filters: UpToAll = 1.0  # share of the schedule after which depthwise filters stay as they are
    data: DataConfig = DigitsConfig()
    model: ModelConfig = ConvMixerConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: OptimizerConfig = AdamWConfig()
    schedule: ScheduleConfig = OneCycleConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.parts > self.batch_size:
            raise ValueError(f"accumulate={self.accumulate} is more than batch_size={self.batch_size}")
        if self.schedule_epochs and self.schedule_epochs < self.epochs:
            raise ValueError(f"schedule_epochs={self.schedule_epochs} is shorter than epochs={self.epochs}")
        if self.freeze and not self.weights:
            raise ValueError("freeze=true needs weights=FILE_OR_RUN to start from")
        if self.class_weights and self.balanced:
            raise ValueError("class_weights and balanced both make up for classes of unequal size; choose one")
        shares = [share for share, _ in self.image_sizes]
        if shares != sorted(set(shares)):
            raise ValueError("image_sizes: the shares of the schedule must rise")
        if self.image_sizes and not self.model.is_convolutional:
            raise ValueError(f"image_sizes: {self.model.name} is built for one image size")
        return self

    @property
    def parts(self) -> int:
        """The parts that a batch is computed in; 1 as long as nobody has measured how many it takes."""
        return 1 if self.accumulate == "auto" else self.accumulate

    def load_data(self) -> DataSet:
        """Load its data in its splits; raises DataError where it cannot be used."""
        return self.data.load(self.seed, carve_validation=self.protocol == "honest")

    def steps_per_epoch(self, images: int) -> int:
        return max(images // self.batch_size, 1)

    def steps(self, images: int) -> int:
        """Return the number of optimiser steps for so many training images; an epoch leaves out its remainder."""
        return max(round(self.epochs * self.steps_per_epoch(images)), 1)

    def order(self, labels: np.ndarray, epoch: int) -> list[np.ndarray]:
        """Return the indices of each batch of an epoch, of training images with these labels."""
        name, size = (self.seed, "order", epoch), self.batch_size
        if self.balanced:
            drawn = balanced_order(labels, randomness.generator(*name))
        else:
            drawn = randomness.permutation(len(labels), *name)
        return [drawn[place * size : (place + 1) * size] for place in range(self.steps_per_epoch(len(labels)))]

    def schedule_steps(self, images: int) -> int:
        return max(round((self.schedule_epochs or self.epochs) * self.steps_per_epoch(images)), 1)

    def learning_rate(self, step: int, images: int) -> float:
        """Return the learning rate of a step of a training on so many images."""
        return learning_rate(self.schedule, self.optimizer.learning_rate, step, self.schedule_steps(images))

    def image_size(self, step: int, images: int, usual: int) -> int:
        """Return the side, in pixels, that a step is trained at; `usual` is that of the data."""
        begun = [size for share, size in self.image_sizes if step >= share * self.schedule_steps(images)]
        return begun[-1] if begun else usual

    def relative_area(self, images: int, usual: int) -> float:
        """Return the mean area that steps are trained at, over that of the data's images."""
        if not self.image_sizes:
            return 1.0
        total = self.steps(images)
        return sum(self.image_size(step, images, usual) ** 2 for step in range(total)) / total / usual**2

    def has_frozen_filters(self, step: int, images: int) -> bool:
        """Return whether depthwise filters no longer learn at a step."""
        return self.freeze_filters < 1 and step >= self.freeze_filters * self.schedule_steps(images)


def parse_experiment(values: Mapping[str, Any]) -> Experiment:
    """Build an experiment from plain values, in which data, model, optimizer and schedule may be just names.

    Raises:
        UsageError: naming the key, the value and the way out.
        DataError: for data that is neither a known set nor a folder.
    """
    expanded = dict(values)
    if "data" in expanded:
        expanded["data"] = expand_data(expanded["data"])
    if "model" in expanded:
        expanded["model"] = models.expand(expanded["model"])
    for key, usual in (("optimizer", "adamw"), ("schedule", "one_cycle")):
        if isinstance(expanded.get(key), str):
            expanded[key] = {"name": expanded[key]}
        elif isinstance(expanded.get(key), Mapping):
            expanded[key] = {"name": usual, **expanded[key]}
    return Experiment.parse(expanded)


def compose(recipe: Path | str | Mapping[str, Any], values: Mapping[str, Any], overrides: Sequence[str]) -> Experiment:
    """Lay values (flags) and then overrides ("model.dim=64") over a recipe.

    Args:
        recipe: a TOML file or what stands in one, or the name of a recipe that comes with mixlab, or "" for the one of
            the data set.

    Raises:
        UsageError, DataError: as `parse_experiment`.
    """
    with _naming(recipe):
        return parse_experiment(_compose(recipe, values, overrides))


def compose_auto(recipe: Recipe, values: Mapping[str, Any], overrides: Sequence[str]) -> tuple[Experiment, bool]:
    """Do as `compose`, and return too whether optimizer.learning_rate is "auto": to be measured before step 0.

    The experiment has the optimiser's default then, so that it does not depend on a number that nobody uses.
    """
    with _naming(recipe):
        laid = _compose(recipe, values, overrides)
        optimizer = laid.get("optimizer")
        if not isinstance(optimizer, dict) or optimizer.get("learning_rate") != "auto":
            return parse_experiment(laid), False
        kept = {key: value for key, value in optimizer.items() if key != "learning_rate"}
        return parse_experiment(laid | {"optimizer": kept}), True


@contextlib.contextmanager
def _naming(recipe: Recipe) -> Iterator[None]:
    """Name the file that a wrong value may stand in."""
    try:
        yield
    except UsageError as error:
        if isinstance(recipe, Mapping) or not recipe or str(recipe) in str(error):
            raise
        raise UsageError(f"{error} (recipe {recipe})") from None


def read_recipe(recipe: Path | str) -> dict[str, Any]:
    """Read a TOML file, or a recipe that comes with mixlab by its name.

    Raises:
        UsageError: where there is no such file.
    """
    built_in = resources.files("mixlab") / "recipes" / f"{recipe}.toml"
    if Path(recipe).suffix != ".toml" and os.path.isfile(str(built_in)):
        return tomllib.loads(built_in.read_text(encoding="utf-8"))
    found = read_toml(Path(recipe))
    if isinstance(found.get("variants"), Mapping):
        raise UsageError(f"{recipe} describes a comparison: mixlab compare --file {recipe}")
    return found


def asked(recipe: Recipe, values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return what is asked for in so many words: nothing spelt out, and nothing of the data set's own recipe."""
    given = _given(values, overrides)
    if isinstance(recipe, Mapping):
        return merge(recipe, given)
    return merge(read_recipe(recipe), given) if recipe else given


def _given(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for key, value in values.items():
        assign(given, key.split("."), value)
    for word in overrides:
        assign(given, *parse_override(word))
    return given


def _compose(recipe: Recipe, values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    given = _given(values, overrides)
    if isinstance(recipe, Mapping):
        return lay(dict(recipe), given)
    if recipe:
        return lay(read_recipe(recipe), given)
    data = expand_data(given.get("data", "digits"))
    return lay(read_recipe("folder" if data["name"] == "shards" else data["name"]), given | {"data": data})


def lay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge after spelling out names on both sides; a published size overrides every field below it.

    What a recipe has `for` the architecture that comes out lies between the two.
    """
    base, over = dict(base), dict(over)
    for key, expand in (("data", expand_data), ("model", models.expand)):
        if key in base:
            base[key] = expand(base[key])
        if key in over and (not isinstance(over[key], dict) or "name" in over[key]):
            over[key] = expand(over[key])
    if {base.get("data", {}).get("name"), over.get("data", {}).get("name")} == {"folder", "shards"}:
        base["data"] = {**base["data"], "name": over["data"]["name"]}  # the same pictures, packed: their fields stay
    per_architecture = base.pop("for", {})
    if not isinstance(per_architecture, Mapping) or not all(
        isinstance(each, Mapping) for each in per_architecture.values()
    ):
        raise UsageError(
            f"for={shown(per_architecture)}: expected a table for each architecture, such as [for.convmixer]"
        )
    architecture = merge(base, over).get("model", {}).get("name", next(iter(models.ARCHITECTURES)))
    return merge(merge(base, _needs_of(architecture, per_architecture)), over)


def _needs_of(architecture: str, per_architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a recipe has `for` one architecture, checking the names of all."""
    unknown = [name for name in per_architecture if name not in models.ARCHITECTURES]
    if unknown:
        known = did_you_mean(unknown[0], models.ARCHITECTURES) or f"; known: {', '.join(models.ARCHITECTURES)}"
        raise UsageError(f"the recipe has a table for.{unknown[0]}, which is no architecture{known}")
    needs = dict(per_architecture.get(architecture, {}))
    if "model" in needs:
        needs["model"] = models.expand(needs["model"])
        if needs["model"]["name"] != architecture:
            raise UsageError(f"the recipe's for.{architecture}.model is of another architecture")
    return needs
