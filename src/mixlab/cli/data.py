"""`mixlab data`."""

import click

from mixlab.cli import common
from mixlab.errors import CheckFailed


@click.group()
def data() -> None:
    """Check, measure and download data sets; show and clear the cache of decoded pictures."""


@data.command()
@click.argument("name", metavar="NAME|FOLDER")
@common.ignore_unknown_classes
@click.option("--strict", is_flag=True, help="Exit with 3 where a picture cannot be read.")
@common.workers
@common.as_json
@common.quiet_warnings
def check(name: str, ignore_unknown_classes: bool | None, strict: bool, workers: int, as_json: bool) -> None:
    """Decode every picture; name those that cannot be read, and classes that are empty or tiny."""
    from mixlab.data import check as checks
    from mixlab.data.catalogue import parse_data

    found = checks.check(parse_data(common.data_fields(name, ignore_unknown_classes)), workers)
    if as_json:
        common.print_json(found.as_json())
    else:
        click.echo("\n".join(found.lines()))
    if strict and found.unreadable:
        raise CheckFailed(f"{len(found.unreadable)} pictures of {name} cannot be read")


@data.command()
@click.argument("name", metavar="NAME|FOLDER")
@common.ignore_unknown_classes
@common.workers
@common.as_json
@common.quiet_warnings
def stats(name: str, ignore_unknown_classes: bool | None, workers: int, as_json: bool) -> None:
    """Count the pictures of each class, and measure mean and standard deviation of the training pictures."""
    from mixlab.data import check as checks
    from mixlab.data.catalogue import parse_data

    found = checks.stats(parse_data(common.data_fields(name, ignore_unknown_classes)), workers)
    if as_json:
        return common.print_json(found)
    common.print_table(
        ["class", *found["splits"]],
        [[label, *(counts[label] for counts in found["splits"].values())] for label in found["classes"]],
        right=[1, 2, 3],
    )
    click.echo(f"mean {', '.join(f'{value:.4f}' for value in found['mean'])}  (per channel, of pixels in [0, 1])")
    return click.echo(f"std  {', '.join(f'{value:.4f}' for value in found['std'])}")


@data.command()
@click.argument("name")
def download(name: str) -> None:
    """Fetch a known data set into the data home (MIXLAB_DATA, or mixlab in your cache folder)."""
    from mixlab.data.downloads import fetch

    click.echo(fetch(name))


@data.command()
@click.option("--clear", is_flag=True, help="Remove all of it.")
@common.as_json
def cache(clear: bool, as_json: bool) -> None:
    """Show the decoded pictures that train --cache keeps (MIXLAB_CACHE names the place)."""
    from mixlab.data import cache as caches

    found = caches.kept()
    if clear:
        caches.clear()
    if as_json:
        return common.print_json({"place": caches.home(), "cleared": clear, "kept": [vars(each) for each in found]})
    rows = [[each.source, each.kind, " x ".join(map(str, each.shape)), caches.size_text(each.bytes)] for each in found]
    if found:
        common.print_table(["pictures of", "for", "pixels", "size"], rows, right=[3])
    total = caches.size_text(sum(each.bytes for each in found))
    return click.echo(f"{total if found else 'nothing'} in {caches.home()}{', removed' if found and clear else ''}")
