"""From flags or a TOML file to a request: every variant is an experiment that was composed and checked."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from mixlab.comparison.budget import load_each, matched, parameters_of
from mixlab.comparison.request import ComparisonRequest, Variant, naming, parse_budget, parse_seeds, refuse_equal
from mixlab.config import Config, read_toml
from mixlab.errors import UsageError, did_you_mean, shown
from mixlab.experiment import Experiment, asked, lay
from mixlab.spec import DataSpec
from mixlab.training import fine_tuning


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
    found = read_toml(path)
    misplaced = [key for key in found if key not in ComparisonFile.model_fields and key in Experiment.model_fields]
    if misplaced:
        raise UsageError(f"{path}: {misplaced[0]} is a field of the experiment; put it under [experiment]")
    return ComparisonFile.parse(found)


def compose_request(
    file: ComparisonFile,
    models: Sequence[str],
    vary: Sequence[tuple[str, Sequence[Any]]],
    values: Mapping[str, Any],
    overrides: Sequence[str],
) -> ComparisonRequest:
    """Return what a file, with flags laid over it, asks for.

    Args:
        models: names of models, each a variant, where the file has no variants.
        vary: pairs of a key path and its values; each variant is made with every combination of them.
        values: fields of all variants, by key path (flags).
        overrides: "key=value" words of all variants.

    Raises:
        UsageError, DataError: naming what cannot be read and the way out.
    """
    if not (models or vary or file.variants):
        raise UsageError("nothing to compare: give models, values to vary, or a file with variants")
    if file.variants and models:
        raise UsageError("the file names its variants; leave out --models, or the file's table of variants")
    seeds, budget = parse_seeds(file.seeds), parse_budget(file.budget)
    variants = _variants(file, models, vary, values, overrides)
    if file.match_parameters:
        variants = match_parameters(variants, file.match_parameters)
    refuse_equal(variants)
    return ComparisonRequest.parse({"variants": variants, "seeds": seeds, "budget": budget})


def _variants(
    file: ComparisonFile,
    models: Sequence[str],
    vary: Sequence[tuple[str, Sequence[Any]]],
    values: Mapping[str, Any],
    overrides: Sequence[str],
) -> tuple[Variant, ...]:
    """Return every variant of a file or of models, times every combination of the values to vary."""
    named: list[tuple[str, dict[str, Any]]] = [*file.variants.items(), *((name, {"model": name}) for name in models)]
    recipe = file.recipe or ({} if file.experiment else "")
    variants = []
    for name, table in named or [("", {})]:
        for choice in itertools.product(*([(key, value) for value in options] for key, options in vary)):
            label = " ".join([name, *(f"{key.rpartition('.')[2]}={value}" for key, value in choice)]).strip()
            given = asked("", {**values, **dict(choice)}, overrides)
            with naming(label):
                fields = _laid(_laid(file.experiment, asked("", table, ())), given)
                _refuse_shared(asked(recipe, fields, ()), fields.get("epochs"), file.budget)
                experiment, auto = fine_tuning.compose_auto(recipe, fields, ())
            variants.append(Variant(name=label, experiment=experiment, auto_learning_rate=auto))
    return tuple(variants)


def _laid(below: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Do as `lay`, without what it spells out where nobody asked for it: that is for the weights to say.

    A model without a name stays so, and a data set's name does not stand for a size of pictures yet.
    """
    found = lay(dict(below), dict(over))
    if "for" in below:
        return found
    for key in ("data", "model"):
        given = [each[key] for each in (below, over) if key in each]
        if len(given) == 1:
            found[key] = given[0]
        elif given and all(isinstance(each, Mapping) and "name" not in each for each in given):
            del found[key]["name"]
    return found


def _refuse_shared(everything: Mapping[str, Any], epochs: Any, budget: str) -> None:
    """Refuse as a field what the comparison decides for all variants: it would be passed over."""
    if "seed" in everything:
        raise UsageError(
            f"seed={shown(everything['seed'])}: all variants are trained with the same seeds; leave it out and give "
            "--seeds 7,8 (one alone: --seeds 7,); in a file, and in Python, seeds = [7]"
        )
    given = parse_budget(budget)
    if epochs is not None and given.gives_epochs and (given.kind, given.amount) != ("epochs", epochs):
        raise UsageError(f"epochs and the budget {budget} both say how long to train; leave one out")


def match_parameters(variants: tuple[Variant, ...], name: str) -> tuple[Variant, ...]:
    """Return the variants at widths that give them as many parameters as the named one has.

    Raises:
        UsageError: for a name that is no variant, or a model that cannot be widened so far.
    """
    experiments = {variant.name: variant.experiment for variant in variants}
    if name not in experiments:
        known = did_you_mean(name, experiments) or f"; variants are {', '.join(experiments)}"
        raise UsageError(f"--match-parameters {name}: no variant has this name{known}")
    specs = {key: data.spec for key, data in zip(experiments, load_each(experiments.values()), strict=True)}
    goal = parameters_of(experiments[name].model, specs[name])
    return tuple(
        variant if variant.name == name else _matched(variant, specs[variant.name], goal) for variant in variants
    )


def _matched(variant: Variant, spec: DataSpec, goal: int) -> Variant:
    model = matched(variant.experiment.model, spec, goal)
    return variant.model_copy(update={"experiment": variant.experiment.model_copy(update={"model": model})})
