"""What is compared: variants of an experiment, seeds and one budget, from flags or a TOML file."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from mixlab.config import Config, flatten, parse_override, read_toml
from mixlab.errors import UsageError, did_you_mean
from mixlab.experiment import Experiment, compose_auto

BudgetKind = Literal["own", "epochs", "images", "macs", "time"]
KINDS = ("epochs", "images", "macs", "time")
UNITS = {"s": 1, "m": 60, "h": 3600}


class Budget(Config):
    """What every run may spend; "own" leaves each variant the epochs of its experiment."""

    kind: BudgetKind = "own"
    amount: PositiveFloat = 1.0  # epochs, images, multiply-accumulates of the training, or seconds

    def __str__(self) -> str:
        units = {"epochs": "epochs", "images": "images", "macs": "multiply-accumulates", "time": "seconds"}
        return "own epochs" if self.kind == "own" else f"{self.amount:,.10g} {units[self.kind]} each"


class Variant(Config):
    name: str
    experiment: Experiment  # its seed is replaced by each of the comparison's
    auto_learning_rate: bool = False  # found by a range test before each run


class ComparisonRequest(Config):
    """Everything that decides a comparison."""

    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0,)
    budget: Budget = Budget()

    @field_validator("variants")
    @classmethod
    def _differ(cls, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        for first, second in itertools.combinations(variants, 2):
            if first.name == second.name or first.experiment == second.experiment:
                raise ValueError(f"{first.name} and {second.name} are the same experiment; leave one out")
        return variants


class ComparisonFile(Config):
    """A comparison as people write it, in TOML."""

    seeds: PositiveInt | tuple[NonNegativeInt, ...] = 1  # how many, from 0 on, or which
    budget: str = ""  # such as "epochs=30" or "time=10m"
    match_parameters: str = ""  # variant whose number of parameters the others get, by their width
    recipe: str = ""  # recipe that `experiment` lies over; without both: the data set's own
    experiment: dict[str, Any] = {}  # fields for all variants
    variants: dict[str, dict[str, Any]] = {}  # name -> fields that differ


def read_file(path: Path) -> ComparisonFile:
    """Read a comparison file; raises UsageError naming the key, the value and the way out."""
    return ComparisonFile.parse(read_toml(path))


def variants_of(
    file: ComparisonFile,
    models: Sequence[str],
    vary: Sequence[tuple[str, Sequence[Any]]],
    values: Mapping[str, Any],
    overrides: Sequence[str],
) -> tuple[Variant, ...]:
    """Return every variant of a file or of models, times every combination of the values to vary.

    Args:
        models: names of models, each a variant, where the file has no variants.
        vary: pairs of a key path and its values.
        values: fields of all variants, by key path (flags).
        overrides: "key=value" words of all variants.

    Raises:
        UsageError, DataError: as `compose_auto`.
    """
    if file.variants and models:
        raise UsageError("the file names its variants; leave out --models, or the file's table of variants")
    recipe: str | dict[str, Any] = file.recipe or ({} if file.experiment else "")
    tables: Mapping[str, Mapping[str, Any]] = file.variants or {name: {"model": name} for name in models} or {"": {}}
    variants = []
    for name, table in tables.items():
        for choice in itertools.product(*([(key, value) for value in options] for key, options in vary)):
            label = " ".join([name, *(f"{key.rpartition('.')[2]}={value}" for key, value in choice)]).strip()
            fields = {**flatten(file.experiment), **flatten(table), **values, **dict(choice)}
            experiment, auto = compose_auto(recipe, fields, overrides)
            label = label or experiment.model.name
            variants.append(Variant(name=label, experiment=experiment, auto_learning_rate=auto))
    return tuple(variants)


def parse_budget(text: str) -> Budget:
    """Read "epochs=30", "images=500000", "macs=1e15" or "time=10m".

    Raises:
        UsageError: for anything else.
    """
    if not text:
        return Budget()
    kind, _, amount = text.partition("=")
    if kind not in KINDS:
        raise UsageError(f"budget {text}{did_you_mean(kind, KINDS) or '; expected epochs=, images=, macs= or time='}")
    factor = UNITS.get(amount[-1:], 1) if kind == "time" else 1
    try:
        return Budget.parse({"kind": kind, "amount": float(amount.rstrip("smh")) * factor})
    except (ValueError, UsageError):
        raise UsageError(f"budget {text}: expected a number above 0, such as epochs=30 or time=10m") from None


def parse_vary(word: str) -> tuple[str, list[Any]]:
    """Read "model.kernel_size=3,5,7" as a key path and its values.

    Raises:
        UsageError: where there are fewer than two values.
    """
    key, _, texts = word.partition("=")
    found = [parse_override(f"{key}={text}") for text in texts.split(",") if text]
    if len(found) < 2:
        raise UsageError(f"--vary {word}: expected a key and two values or more, such as model.kernel_size=3,5,7")
    return ".".join(found[0][0]), [value for _, value in found]


def parse_seeds(given: int | Sequence[int]) -> tuple[int, ...]:
    """Return the seeds: so many from 0 on, or those given."""
    return tuple(range(given)) if isinstance(given, int) else tuple(given)
