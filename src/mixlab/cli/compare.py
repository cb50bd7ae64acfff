"""`mixlab compare`."""

from pathlib import Path
from typing import Any

import click

from mixlab.cli import common
from mixlab.errors import MixlabError


@click.command(short_help="Compare models, or variants of any field, under one budget.")
@common.overrides
@common.data
@click.option("--models", default="", metavar="NAME,NAME", help="Such as convmixer_256_8,vit_small_patch4,resnet9.")
@click.option(
    "--vary", multiple=True, metavar="KEY=A,B", help="A variant for each value, such as model.kernel_size=3,5."
)
@click.option("--file", default="", metavar="FILE", help="TOML file with a table for each variant.")
@common.recipe
@common.seeds
@click.option(
    "--budget", default="", metavar="KIND=N", help="epochs=30, images=1e6, macs=1e15 or time=10m for each run."
)
@click.option("--match-parameters", default="", metavar="NAME", help="Give all as many parameters as this variant has.")
@common.epochs
@common.batch_size
@common.precision
@common.class_weights
@common.balanced
@common.jobs
@common.cache
@common.download
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
    out = Path(options["out"])
    chosen = Options(device=options["device"], workers=options["workers"], out=out, cache=options["cache"])
    say = (lambda line: None) if options["quiet"] else (lambda line: common.echo(line, err=True))
    found = comparing.compare(request, chosen, options["jobs"], say)
    report = found.report()
    if as_json:
        common.print_json({**found.leaderboard.model_dump(mode="json"), "report": str(report)})
    else:
        common.echo(*str(found.leaderboard).splitlines())
        common.echo(f"report   {report}")
    failed = [row.name for row in found.leaderboard.rows if row.failures]
    if failed:
        raise MixlabError(f"some runs failed: {', '.join(failed)}; the report names the reasons")


def _request(overrides: tuple[str, ...], options: dict[str, Any]) -> Any:
    from mixlab.comparison.compose import ComparisonFile, compose_request, read_file
    from mixlab.comparison.request import parse_vary, read_seeds

    file = read_file(Path(options["file"])) if options["file"] else ComparisonFile()
    given = {name: options[name] for name in ("recipe", "budget", "match_parameters") if options[name]}
    if options["seeds"]:
        given["seeds"] = read_seeds(options["seeds"])
    models = [name.strip() for name in options["models"].split(",") if name.strip()]
    vary = [parse_vary(word) for word in options["vary"]]
    file, values = file.model_copy(update=given), common.experiment_values(options)
    if options["download"]:  # first of all: matching parameters needs the data
        unmatched = file.model_copy(update={"match_parameters": ""})
        request = compose_request(unmatched, models, vary, values, overrides)
        common.fetch_missing(variant.experiment.data for variant in request.variants)
    return compose_request(file, models, vary, values, overrides)
