"""`mixlab data`."""

import os
from pathlib import Path
from typing import Any

import click

from mixlab.cli import common
from mixlab.errors import CheckFailed, UsageError

LEAST_TAR = 10_240  # bytes


@click.group()
def data() -> None:
    """Check, measure, pack and download data sets; show and clear the cache of decoded pictures."""


@data.command()
@click.argument("name", metavar="NAME|FOLDER")
@common.overrides
@common.recipe
@common.ignore_unknown_classes
@click.option(
    "--resize-mode", type=click.Choice(["crop", "pad", "squash"]), help="What the others would cost is said too."
)
@click.option("--sheet", metavar="FILE.png", help="Draw some training pictures of each class as the network sees them.")
@click.option(
    "--fail-on",
    type=click.Choice(["exact", "near", "unreadable", "never"]),
    multiple=True,
    help="Exit with 3 on exact copies in two splits (the default), near ones too, unreadable files; can be repeated.",
)
@click.option("--strict", is_flag=True, help="Short for adding --fail-on unreadable.")
@common.workers
@common.as_json
@common.quiet_warnings
def check(name: str, overrides: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Look at every picture and name what may be wrong, with what to do about it.

    Unreadable and odd files; empty, tiny and uneven classes; exact and near copies, in two splits or two classes;
    shapes that the resize treats badly. Splits are those of mixlab train with the same KEY=VALUE words, such as seed=1
    or data.labels_csv=labels.csv.
    """
    from mixlab.data import check as checks

    experiment = _experiment(name, overrides, options)
    sheet = _sheet_place(options["sheet"], experiment.data) if options["sheet"] else None
    carve = experiment.protocol == "honest"
    found = checks.check(experiment.data, options["workers"], experiment.seed, carve, common.bar)
    if as_json:
        common.print_json(found.as_json())
    else:
        common.echo(*found.lines())
    if sheet is not None:
        from mixlab.evaluation.contact_sheet import contact_sheet

        contact_sheet(sheet, experiment, experiment.load_data())
        common.echo(f"{'sheet':<11} {sheet}", err=as_json)
    asked = {*(options["fail_on"] or ["exact"]), *(["unreadable"] if options["strict"] else [])}
    failures = dict.fromkeys(text for each in checks.FAILURES if each in asked for text in found.failures(each))
    if failures:
        raise CheckFailed(f"{name}: {'; '.join(failures)}")


@data.command()
@click.argument("name", metavar="NAME|FOLDER")
@common.overrides
@common.recipe
@common.ignore_unknown_classes
@common.workers
@common.as_json
@common.quiet_warnings
def stats(name: str, overrides: tuple[str, ...], workers: int, as_json: bool, **options: Any) -> None:
    """Count the pictures of each class, and measure mean and standard deviation of the training pictures."""
    from mixlab.data.stats import stats as measure

    experiment = _experiment(name, overrides, options)
    found = measure(experiment.data, workers, experiment.seed, experiment.protocol == "honest")
    if as_json:
        return common.print_json(found)
    common.print_table(
        ["class", *found["splits"]],
        [[label, *(counts[label] for counts in found["splits"].values())] for label in found["classes"]],
        right=[1, 2, 3],
    )
    common.echo(f"mean {', '.join(f'{value:.4f}' for value in found['mean'])}  (per channel, of pixels in [0, 1])")
    return common.echo(f"std  {', '.join(f'{value:.4f}' for value in found['std'])}")


@data.command()
@click.argument("name", metavar="FOLDER")
@click.argument("out", metavar="OUT")
@common.overrides
@common.recipe
@click.option("--shard-size", default="256MB", show_default=True, metavar="SIZE", help="Most that a tar file has.")
@common.ignore_unknown_classes
@common.workers
@common.as_json
@common.quiet_warnings
def pack(
    name: str, out: str, overrides: tuple[str, ...], shard_size: str, workers: int, as_json: bool, **options: Any
) -> None:
    """Write a folder of pictures as tar shards (WebDataset's layout) into a new folder, for train --data OUT.

    The pictures' bytes stay as they are; those that cannot be read are named and left out.
    """
    from mixlab.data import shard_writer
    from mixlab.places import expand_user

    size = common.size_bytes("--shard-size", shard_size)
    if size < LEAST_TAR:
        raise UsageError(f"--shard-size {shard_size}: expected at least 10KiB, which an empty tar file has")
    config = _experiment(name, overrides, options).data
    found = shard_writer.pack(config, expand_user(out), size, workers, lambda line: common.echo(line, err=True))
    if as_json:
        return common.print_json(found.as_json())
    return common.echo(*found.lines())


@data.command()
@click.argument("name")
def download(name: str) -> None:
    """Fetch a known data set into the data home (MIXLAB_DATA, or mixlab in your cache folder)."""
    from mixlab.data.downloads import fetch

    common.echo(fetch(name))


@data.command()
@click.option("--clear", is_flag=True, help="Remove all of it.")
@common.as_json
def cache(clear: bool, as_json: bool) -> None:
    """Show the decoded pictures that train --cache keeps (MIXLAB_CACHE names the place).

    With --clear the indexes of shards that others wrote go too; they are made again when they are needed.
    """
    from mixlab.data import cache as caches
    from mixlab.data import shard_index

    found = caches.kept()
    if clear:
        caches.clear()
        shard_index.clear_cached()
    if as_json:
        return common.print_json({"place": caches.home(), "cleared": clear, "kept": [vars(each) for each in found]})
    rows = [[each.source, each.kind, " x ".join(map(str, each.shape)), caches.size_text(each.bytes)] for each in found]
    if found:
        common.print_table(["pictures of", "for", "pixels", "size"], rows, right=[3])
    total = caches.size_text(sum(each.bytes for each in found))
    return common.echo(f"{total if found else 'nothing'} in {caches.home()}{', removed' if found and clear else ''}")


def _experiment(name: str, overrides: tuple[str, ...], options: dict[str, Any]) -> Any:
    from mixlab.experiment import compose

    return compose(options["recipe"], common.experiment_values({**options, "data": name}), overrides)


def _sheet_place(sheet: str, config: Any) -> Path:
    """Return where the sheet goes, before the long look at the data.

    Raises:
        UsageError: for another kind of file, or a place inside the data set's folder, which nothing is written to.
    """
    path = Path(sheet)
    if path.suffix.lower() != ".png":
        raise UsageError(f"--sheet {sheet}: expected a file that ends in .png")
    folder = getattr(config, "path", "")
    if folder and path.resolve().is_relative_to(Path(folder).resolve()):
        raise UsageError(f"--sheet {sheet} is inside the data set's own folder, which stays as it is; choose another")
    there = next(parent for parent in path.resolve().parents if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise UsageError(f"--sheet {sheet}: {there} cannot be written to")
    return path
