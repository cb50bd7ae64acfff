"""The origin's experiments: recipes that know the published figures, run as comparisons and laid beside them."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from pydantic import PositiveInt

from mixlab.comparison.compose import ComparisonFile, compose_request
from mixlab.comparison.request import ComparisonRequest
from mixlab.config import flatten, parse_override
from mixlab.data.names import expand
from mixlab.errors import UsageError, did_you_mean
from mixlab.evaluation.leaderboard import Leaderboard
from mixlab.experiment import asked

MEASURES = {  # name in a recipe -> what people read, field of `Measured`
    "train_top1": ("train top-1", "train_top1"),
    "test_top1": ("test top-1", "top1"),
    "test_top5": ("test top-5", "top5"),
    "best_watched": ("best test top-1 of an epoch", "best_watched"),
}


class Reproduction(ComparisonFile):
    """A comparison with the figures that were published of it."""

    title: str
    source: str
    published: dict[str, dict[str, float]] = {}  # variant -> figure -> value; shares, but for parameters
    quick: dict[str, Any] = {}  # fields of the quick form, and `only`: the variants it has

    seeds: PositiveInt | tuple[int, ...] = 1


class Beside(NamedTuple):
    """One published figure, and ours."""

    variant: str
    figure: str
    published: str
    ours: str


def names() -> list[str]:
    """Return the names of all reproductions."""
    folder = resources.files("mixlab") / "recipes" / "reproduce"
    return sorted(path.name.removesuffix(".toml") for path in folder.iterdir() if path.name.endswith(".toml"))


def read(name: str) -> Reproduction:
    """Read a reproduction by its name.

    Raises:
        UsageError: for a name that there is none of.
    """
    if name not in names():
        raise UsageError(f"unknown reproduction {name!r}{did_you_mean(name, names())}; known: {', '.join(names())}")
    text = (resources.files("mixlab") / "recipes" / "reproduce" / f"{name}.toml").read_text(encoding="utf-8")
    return Reproduction.parse(tomllib.loads(text))


def request_of(
    found: Reproduction, quick: bool, values: Mapping[str, Any], overrides: Sequence[str]
) -> ComparisonRequest:
    """Return the comparison that a reproduction is; a schedule that is planned for longer than its epochs stays so.

    Args:
        quick: in its quick form, which shows that everything runs, and no accuracy.
        values: fields of all variants by key path (flags); overrides: "key=value" words.

    Raises:
        UsageError, DataError: naming what cannot be read and the way out.
    """
    fields = dict(found.quick) if quick else {}
    only = fields.pop("only", list(found.variants))
    kept = {name: table for name, table in found.variants.items() if name in only}
    if "data" in values:
        values = {**values, "data": _lying_at(found, values["data"])}
    for word in overrides:
        if parse_override(word)[0] in (["data"], ["data", "name"]):
            raise UsageError(f"{word}: the data set belongs to the experiment; --data is where it lies")
    values = {**_planned(found, asked("", values, overrides)), **values}
    file = ComparisonFile(seeds=found.seeds, experiment=found.experiment, variants=kept)
    return compose_request(file, (), (), {**flatten(fields), **values}, overrides)


def _planned(found: Reproduction, given: Mapping[str, Any]) -> dict[str, float]:
    """Return the length of the schedule for other epochs, in the published proportion, unless it is given too."""
    planned, epochs = found.experiment.get("schedule_epochs"), given.get("epochs")
    if not planned or "schedule_epochs" in given or not isinstance(epochs, int | float):
        return {}
    return {"schedule_epochs": planned / found.experiment["epochs"] * epochs}


def _lying_at(found: Reproduction, given: Any) -> dict[str, Any]:
    """Return the data set of an experiment at another place; raises UsageError for another data set."""
    name, fields = expand(found.experiment["data"])["name"], expand(given)
    if fields["name"] == "folder":  # it may be the folder around a data set's own
        return {**fields, "name": name}
    if fields["name"] != name and (fields["name"], name) != ("shards", "folder"):
        expected = "a folder of pictures" if name == "folder" else name
        raise UsageError(f"this experiment is on {expected}, not on {fields['name']}; --data is where that lies")
    return fields


def beside(found: Reproduction, result: Leaderboard) -> list[Beside]:
    """Lay our figures beside the published ones; a variant or figure that was not published has only ours."""
    lines = []
    for row in sorted(result.rows, key=lambda row: list(found.variants).index(row.name)):
        published = found.published.get(row.name, {})
        if "parameters" in published:
            lines.append(Beside(row.name, "parameters", f"{published['parameters']:,.0f}", f"{row.parameters:,}"))
        for key, (name, field) in MEASURES.items():
            mean, deviation = row.mean(field), row.deviation(field)
            if key not in published and key != "test_top1":
                continue
            after = f" ± {100 * deviation:.2f}" if deviation is not None else ""
            ours = "failed" if mean is None else f"{100 * mean:.2f} %{after}"
            lines.append(Beside(row.name, name, f"{100 * published[key]:.2f} %" if key in published else "–", ours))
    return lines
