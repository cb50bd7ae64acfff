"""Options and printing that several commands share."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from mixlab.errors import UsageError
from mixlab.places import expand_user
from mixlab.run.table import columns, one_line

EXPERIMENT = {  # flag -> key of the experiment
    "data": "data",
    "model": "model",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "lr": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "optimizer": "optimizer.name",
    "seed": "seed",
    "precision": "precision",
    "weights": "weights",
    "accumulate": "accumulate",
    "class_weights": "class_weights",
    "balanced": "balanced",
    "ignore_unknown_classes": "data.ignore_unknown_classes",
    "resize_mode": "data.resize_mode",
}

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object; everything else to stderr.")
device = click.option("--device", default="auto", show_default=True, metavar="NAME", help="cpu, cuda, cuda:1 or mps.")
out = click.option(
    "--out",
    default="runs",
    show_default=True,
    metavar="FOLDER",
    help="Folder of run folders.",
    callback=lambda context, parameter, value: str(expand_user(value)),  # shells leave --out=~/x as it is
)
ignore_unknown_classes = click.option(
    "--ignore-unknown-classes",
    is_flag=True,
    default=None,
    help="Leave out pictures of classes that the training pictures do not have.",
)
class_weights = click.option(
    "--class-weights",
    is_flag=True,
    default=None,
    help="Weight the loss by one over the class's share of the training pictures.",
)
balanced = click.option(
    "--balanced", is_flag=True, default=None, help="Show each class equally often, whatever its size."
)
workers = click.option("--workers", default=2, show_default=True, type=click.IntRange(0), help="Decoding processes.")
overrides = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
recipe = click.option(
    "-c", "--recipe", default="", metavar="FILE", help="TOML file to start from; else the data set's own."
)
data = click.option(
    "--data", metavar="NAME|FOLDER", help="digits, cifar10, imagenette160, ... or a folder of pictures."
)
epochs = click.option("--epochs", type=float, help="Passes over the training pictures.")
batch_size = click.option("--batch-size", type=int, help="Pictures of one optimiser step.")
precision = click.option("--precision", metavar="TYPE", help="auto, float32, bfloat16 or float16.")
seeds = click.option(
    "--seeds", default="", metavar="N", help="How many seeds, or which: 3, or 4,5,6 (one alone: 7,).  [default: 1]"
)
jobs = click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Trainings at once.")
reject_below = click.option(
    "--reject-below",
    default="",
    metavar="P|precision=P",
    help="Answer unknown below this confidence, or below the one from which answers have this precision.",
)
answer_precision = click.option(
    "--precision",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16"]),
    help="Numbers that the network computes in; bfloat16 rounds, and is faster where bench says so.",
)
stream = click.option("--stream", is_flag=True, help="Decode pictures as needed instead of keeping them in memory.")
cache = click.option(
    "--cache",
    is_flag=True,
    help="Keep decoded pictures on disk (mixlab data cache), for sets too large for memory and next runs.",
)
download = click.option("--download", is_flag=True, help="Fetch the data set where it is missing.")

_EXPERIMENT_OPTIONS = (
    recipe,
    data,
    click.option("--model", metavar="NAME", help="Such as convmixer_256_8 (mixlab models list)."),
    batch_size,
    click.option(
        "--accumulate", metavar="N|auto", help="Parts a batch is computed in.  [default: the fewest that fit]"
    ),
    click.option("--optimizer", metavar="NAME", help="adamw, muon, adam or sgd."),
    click.option("--weight-decay", type=float),
    click.option("--seed", type=int, help="Decides weights, order, augmentation and the validation pictures."),
    precision,
    class_weights,
    balanced,
    click.option(
        "--weights",
        metavar="RUN|BUNDLE|FILE|hf://...",
        help="Start from trained weights, with their model and preprocessing; new head where classes differ.",
    ),
)


def experiment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags of one experiment that train and lr-find share."""
    for option in reversed(_EXPERIMENT_OPTIONS):
        command = option(command)
    return command


def given_flags(options: Mapping[str, Any]) -> list[str]:
    """Return the flags of `EXPERIMENT` that were given."""
    return [flag for flag in EXPERIMENT if options.get(flag) is not None]


def experiment_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the experiment's values by key, of the flags that were given."""
    return {EXPERIMENT[flag]: options[flag] for flag in given_flags(options)}


def model_fields(overrides: Iterable[str]) -> dict[str, Any]:
    """Return the fields of a model from KEY=VALUE words, with or without `model.` before the key.

    Raises:
        UsageError: for what is no such word, and for the name, which has its own place.
    """
    from mixlab.config import parse_override

    fields = {".".join(path).removeprefix("model."): value for path, value in map(parse_override, overrides)}
    if "name" in fields:
        raise UsageError(f"name={fields['name']}: give the model's name alone, before the KEY=VALUE words")
    return fields


def data_fields(name: str, ignore_unknown_classes: bool | None) -> dict[str, Any]:
    """Return a data set's fields."""
    return {"name": name, **({"ignore_unknown_classes": True} if ignore_unknown_classes else {})}


def fetch_missing(configs: Iterable[Any]) -> None:
    """Download the data sets of these configs where they are missing."""
    from mixlab.data import downloads

    for config in configs:
        downloads.fetch_missing(config.name, getattr(config, "path", ""))


def echo(*lines: Any, err: bool = False) -> None:
    """Print lines, each on one, with the control characters that names of files and classes may hold spelt out."""
    click.echo("\n".join(one_line(str(line)) for line in lines), err=err)


def bar(items: Iterable[Any], total: int) -> Iterable[Any]:
    """Pass items on; a terminal shows how many of the total have come."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, "looking", total, console=console, transient=True, disable=not console.is_terminal)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()) -> None:
    """Print plain columns; those in `right` are aligned to the right."""
    echo(*columns(headers, rows, right).split("\n"))


def size_bytes(flag: str, text: str) -> int:
    """Read a size such as "256MB", "1.5 GiB" or "4096", in bytes.

    Raises:
        UsageError: for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([KMGT])(i?)B?|B)?", text.strip(), re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise UsageError(f"{flag} {text}: expected a size such as 256MB or 1GiB")
    power = " KMGT".index((found[2] or " ").upper())
    return round(float(found[1]) * (1024 if found[3] else 1000) ** power)


def quiet_warnings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Keep warnings of libraries off the screen of people; --debug shows them."""
    import functools
    import warnings

    @functools.wraps(command)
    def silenced(*arguments: Any, **options: Any) -> Any:
        with warnings.catch_warnings():
            if "--debug" not in sys.argv:
                warnings.simplefilter("ignore")
            return command(*arguments, **options)

    return silenced
