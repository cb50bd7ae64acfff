"""`mixlab explain`."""

from typing import Any

import click

from mixlab.cli import common
from mixlab.cli.predict import find_pictures


@click.command(short_help="Draw what a finished run sees.")
@click.argument("run")
@click.argument("pictures", nargs=-1)
@common.out
@common.device
@common.as_json
@common.quiet_warnings
def explain(run: str, pictures: tuple[str, ...], out: str, device: str, as_json: bool) -> None:
    """Draw the weights of RUN, where in PICTURES it finds its answer, and what its layers make of them.

    PICTURES are files, folders, patterns such as '*.jpg', or - for one picture on standard input; without any, 8
    validation pictures are taken. Folders are searched as for training. The drawings are in the folder explain/ of the
    run, listed in explain.json. A file that cannot be read is reported; the exit code is then 1.
    """
    from pathlib import Path

    from mixlab.explaining.explain import explain as draw
    from mixlab.run.folder import find_run

    sources, wrong = find_pictures(pictures)
    found = draw(find_run(run, Path(out)), sources, device)
    if as_json:
        common.print_json(found.as_json())
    else:
        _print(found)
    if wrong or found.unreadable:
        raise click.exceptions.Exit(1)


def _print(found: Any) -> None:
    width = max(map(len, [*found.files, *found.skipped]))
    for name, shows in found.files.items():
        common.echo(f"{name:<{width}}  {shows}")
    for name, reason in found.skipped.items():
        common.echo(f"{name:<{width}}  not drawn: {reason}")
    for picture, reason in found.unreadable.items():
        common.echo(f"{picture} cannot be read: {reason}", err=True)
    common.echo(f"written  {found.folder} ({len(found.files)} pictures, explain.json)")
