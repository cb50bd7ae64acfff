"""`mixlab reproduce`."""

from pathlib import Path
from typing import Any

import click

from mixlab.cli import common
from mixlab.errors import MixlabError


@click.command(short_help="Repeat a published experiment, and lay the figures side by side.")
@click.argument("name", metavar="NAME|list")
@common.overrides
@click.option("--quick", is_flag=True, help="A short form that a CPU finishes in minutes; it shows no accuracy.")
@common.data
@common.seeds
@common.epochs
@common.batch_size
@common.precision
@common.jobs
@click.option("--dry-run", is_flag=True, help="Print what would be done, with parameters and steps.")
@common.download
@common.out
@common.workers
@common.device
@common.as_json
@common.quiet_warnings
def reproduce(name: str, overrides: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Run one of the published experiments; `mixlab reproduce list` shows them.

    Flags replace what was published; --data says where the data lies, where it is not in the data home. The end prints
    our figures beside the published ones, and the report's path. The same command goes on where it stopped.
    """
    from mixlab.comparison import compare as comparing
    from mixlab.comparison.request import read_seeds
    from mixlab.reproduction import reproduce as reproducing
    from mixlab.training.session import Options

    if name == "list":
        return _list(as_json)
    found = reproducing.read(name)
    if options["seeds"]:
        found = found.model_copy(update={"seeds": read_seeds(options["seeds"])})
    request = reproducing.request_of(found, options["quick"], common.experiment_values(options), overrides)
    if options["download"]:
        common.fetch_missing(variant.experiment.data for variant in request.variants)
    if options["dry_run"]:
        return _plan(found, comparing.costs(request), as_json)
    chosen = Options(device=options["device"], workers=options["workers"], out=Path(options["out"]))
    done = comparing.compare(request, chosen, options["jobs"], lambda line: common.echo(line, err=True))
    report, lines = done.report(), reproducing.beside(found, done.leaderboard)
    if as_json:
        common.print_json({"figures": [line._asdict() for line in lines], "report": str(report)})
    else:
        common.print_table(["", "figure", "published", "ours"], lines, right=[2, 3])
        common.echo(f"source   {found.source}")
        if options["quick"]:
            common.echo("note     the quick form trains far too little to be compared; it shows that everything runs")
        common.echo(f"report   {report}")
    if any(row.failures for row in done.leaderboard.rows):
        raise MixlabError("some runs failed; the report names the reasons")
    return None


def _list(as_json: bool) -> None:
    from mixlab.reproduction import reproduce as reproducing

    found = {name: reproducing.read(name) for name in reproducing.names()}
    if as_json:
        return common.print_json({name: each.model_dump() for name, each in found.items()})
    rows = [[name, each.title, _figures(each)] for name, each in found.items()]
    return common.print_table(["name", "experiment", "published test top-1"], rows)


def _figures(found: Any) -> str:
    values = [figures["test_top1"] for figures in found.published.values() if "test_top1" in figures]
    return " ".join(f"{100 * value:.1f} %" for value in values[:4]) + (" ..." if len(values) > 4 else "")


def _plan(found: Any, costs: Any, as_json: bool) -> None:
    rows = [
        {
            "variant": name,
            "parameters": cost.parameters,
            "published_parameters": found.published.get(name, {}).get("parameters"),
            "macs": cost.macs,
            "train_images": cost.train_images,
            "epochs": experiment.epochs,
            "steps": experiment.steps(cost.train_images),
        }
        for name, experiment, cost in costs
    ]
    if as_json:
        return common.print_json({"variants": rows})
    table = [
        [
            row["variant"],
            f"{row['parameters']:,}",
            f"{row['published_parameters']:,.0f}" if row["published_parameters"] else "",
            f"{row['macs'] / 1e6:,.1f}",
            f"{row['train_images']:,}",
            f"{row['epochs']:g}",
            f"{row['steps']:,}",
        ]
        for row in rows
    ]
    headers = ["variant", "parameters", "published", "M MACs", "images", "epochs", "steps"]
    return common.print_table(headers, table, right=range(1, 7))
