"""`mixlab train`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mixlab.cli import common, launch
from mixlab.durations import seconds


class RateOrAuto(click.ParamType):
    name = "RATE|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == "auto":
            return "auto"
        try:
            return float(value)
        except ValueError:
            return self.fail(f"{value!r} is neither a number nor auto.", param, ctx)


@click.command(short_help="Train a model, or go on with a training.")
@common.overrides
@common.experiment_options
@common.epochs
@click.option("--lr", type=RateOrAuto(), help="Peak learning rate; auto: found by a range test (mixlab lr-find).")
@click.option("--max-time", default="", metavar="TIME", help="Fit the epochs into a time, such as 25m.")
@click.option("--name", default="", help="Name of the run's folder.")
@click.option("--new", is_flag=True, help="Start another run where this one exists.")
@click.option("--resume", default="", metavar="RUN", help="Go on with a run; --data: where its data lies now.")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@common.stream
@common.cache
@click.option("--strict", is_flag=True, help="Stop where a picture cannot be read.")
@common.ignore_unknown_classes
@common.download
@click.option("--log", type=click.Choice(["tensorboard"]), help="Log to TensorBoard too.")
@click.option("--save-every", default="5m", show_default=True, metavar="TIME", help="Between checkpoints in an epoch.")
@click.option("--nproc", type=click.IntRange(1), default=1, help="Processes that train together, one for each GPU.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@common.out
@common.workers
@common.device
@common.as_json
@common.quiet_warnings
def train(overrides: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Train a model, go on with an interrupted training, or return the finished one.

    The same command always means the same run. Any value of the experiment can be given as KEY=VALUE, such as
    model.kernel_size=9 or augmentation.mix.mixup=0.2.
    """
    from mixlab.run.folder import Run, find_run
    from mixlab.training import fine_tuning, tensorboard
    from mixlab.training import train as training

    chosen, apart = _options(options), options["nproc"] > 1 and not launch.is_rank()
    if chosen.tensorboard:
        tensorboard.require()
    if options["resume"]:
        _refuse_others(overrides, options)
        run = find_run(options["resume"], chosen.out) if launch.leads() else Run(Path(options["resume"]))
        if apart:
            return launch.start(options["nproc"], sys.argv[1:])
        return _show(training.resume(run, chosen, options["data"] or ""), as_json, options["quiet"])
    experiment, auto = fine_tuning.compose_auto(options["recipe"], common.experiment_values(options), overrides)
    chosen = replace(chosen, auto_learning_rate=auto)
    if options["download"] and not launch.is_rank():
        common.fetch_missing([experiment.data])
    if options["dry_run"]:
        return _show_plan(training.plan(experiment, chosen, options["nproc"]), as_json)
    if apart:
        made = training.open_folder(experiment, chosen).name if chosen.new else ""
        return launch.start(options["nproc"], launch.into(made, sys.argv[1:]) if made else sys.argv[1:])
    return _show(training.train(experiment, chosen), as_json, options["quiet"])


def _options(options: dict[str, Any]) -> Any:
    from mixlab.training.session import Options

    limit, interval = options["max_time"], options["save_every"]
    return Options(
        **{name: options[name] for name in ("device", "workers", "name", "new", "quiet", "stream", "cache", "strict")},
        out=Path(options["out"]),
        max_seconds=seconds(limit, f"--max-time {limit}") if limit else 0.0,
        save_seconds=seconds(interval, f"--save-every {interval}"),
        tensorboard=options["log"] == "tensorboard",
    )


def _refuse_others(overrides: tuple[str, ...], options: dict[str, Any]) -> None:
    flags = [flag for flag in common.given_flags(options) if flag != "data"]
    flags += [flag for flag in ("recipe", "new", "name", "max_time", "dry_run", "download") if options[flag]]
    given = [*(f"--{flag.replace('_', '-')}" for flag in flags), *overrides]
    if given:
        raise click.UsageError(f"--resume goes on with a run as it is; leave out {', '.join(given)}.")


def _show_plan(plan: Any, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        return common.print_json({**asdict(plan), "seconds": plan.seconds})
    return common.echo(*plan.lines())


def _show(run: Any, as_json: bool, quiet: bool) -> None:
    if not launch.leads():
        return None
    if as_json:
        return common.print_json({"run": str(run.folder), **run.summary})
    if quiet:
        return None
    found = run.summary["validation"]
    if found:
        common.echo(f"validation top-1 {found['top1']:.2%} of {found['images']:,.0f} pictures")
    common.echo(f"run      {run.folder}")
    common.echo(f"next     mixlab evaluate {run.quoted}")
    return common.echo(f"         mixlab predict {run.quoted} PICTURES")
