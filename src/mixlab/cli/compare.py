"""`mixlab compare`."""

from pathlib import Path
from typing import Any

import click

from mixlab.cli import common
from mixlab.errors import MixlabError, UsageError

FLAGS = {
    "data": "data",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "precision": "precision",
    "ignore_unknown_classes": "data.ignore_unknown_classes",
}


@click.command(short_help="Compare models, or variants of any field, under one budget.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data", metavar="NAME|FOLDER", help="digits, cifar10, imagenette160, ... or a folder of pictures.")
@click.option("--models", default="", metavar="NAME,NAME", help="Such as convmixer_256_8,vit_small_patch4,resnet9.")
@click.option(
    "--vary", multiple=True, metavar="KEY=A,B", help="A variant for each value, such as model.kernel_size=3,5."
)
@click.option("--file", default="", metavar="FILE", help="TOML file with a table for each variant.")
@click.option(
    "-c", "--recipe", default="", metavar="FILE", help="TOML file that all start from; else the data set's own."
)
@click.option("--seeds", default="", metavar="N", help="How many seeds, or which: 3, or 4,5,6.  [default: 1]")
@click.option(
    "--budget", default="", metavar="KIND=N", help="epochs=30, images=1e6, macs=1e15 or time=10m for each run."
)
@click.option("--match-parameters", default="", metavar="NAME", help="Give all as many parameters as this variant has.")
@click.option("--epochs", type=float, help="Passes over the training pictures.")
@click.option("--batch-size", type=int, help="Pictures of one optimiser step.")
@click.option("--precision", metavar="TYPE", help="float32, bfloat16 or float16.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Trainings at once.")
@click.option("--download", is_flag=True, help="Fetch the data set where it is missing.")
@click.option("--quiet", is_flag=True, help="Print nothing but the result.")
@common.ignore_unknown_classes
@common.out
@common.workers
@common.device
@common.as_json
@common.quiet_warnings
def compare(overrides: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Train models, or variants, with several seeds under one budget; say which differences hold, and write a report.

    All see the same pictures in the same order with the same augmentation. The same command goes on where it stopped;
    finished runs are not repeated.
    """
    from mixlab.comparison import compare as comparing
    from mixlab.training.session import Options

    request = _request(overrides, options)
    if options["download"]:
        fetch(request)
    out = Path(options["out"])
    chosen = Options(device=options["device"], workers=options["workers"], out=out)
    say = (lambda line: None) if options["quiet"] else (lambda line: click.echo(line, err=True))
    found = comparing.compare(request, chosen, options["jobs"], say)
    report = found.report()
    if as_json:
        common.print_json({**found.leaderboard.model_dump(mode="json"), "report": str(report)})
    else:
        click.echo(found.leaderboard)
        click.echo(f"report   {report}")
    failed = [row.name for row in found.leaderboard.rows if row.failures]
    if failed:
        raise MixlabError(f"some runs failed: {', '.join(failed)}; the report names the reasons")


def _request(overrides: tuple[str, ...], options: dict[str, Any]) -> Any:
    from mixlab.comparison.compose import ComparisonFile, compose_request, read_file
    from mixlab.comparison.request import parse_vary, read_seeds

    file = read_file(Path(options["file"])) if options["file"] else ComparisonFile()
    given = {name: options[name] for name in ("recipe", "budget", "match_parameters") if options[name]}
    if options["epochs"] and options["budget"].partition("=")[0] in ("epochs", "images", "macs"):
        raise UsageError(
            f"--epochs {options['epochs']:g} and --budget {options['budget']} both say how long; leave one out"
        )
    if options["seeds"]:
        given["seeds"] = read_seeds(options["seeds"])
    values = {key: options[flag] for flag, key in FLAGS.items() if options[flag] is not None}
    models = [name.strip() for name in options["models"].split(",") if name.strip()]
    vary = [parse_vary(word) for word in options["vary"]]
    return compose_request(file.model_copy(update=given), models, vary, values, overrides)


def fetch(request: Any) -> None:
    """Fetch the data sets of a comparison where they are missing."""
    from mixlab.data.downloads import fetch_missing

    for data in {variant.experiment.data for variant in request.variants}:
        fetch_missing(data.name, getattr(data, "path", ""))
