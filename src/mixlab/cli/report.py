"""`mixlab report`."""

from pathlib import Path

import click

from mixlab.cli import common


@click.command(short_help="Write the report of a comparison or a run.")
@click.argument("place", metavar="COMPARISON|RUN")
@click.option("--to", default="", metavar="FILE", help="Where to; else report.html in the folder.")
@common.out
@common.quiet_warnings
def report(place: str, to: str, out: str) -> None:
    """Write one HTML file that opens offline: leaderboard, curves, differences, classes, calibration, pictures."""
    from mixlab import api

    common.echo(api.report(place, to or None, Path(out)))
