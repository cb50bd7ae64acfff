"""`mixlab lr-find`."""

from pathlib import Path
from typing import Any

import click

from mixlab.cli import common

POSITIVE = click.FloatRange(min=0, min_open=True)
SHOWN = 12  # rows of the table, at most


@click.command("lr-find", short_help="Find a learning rate by a range test.")
@common.overrides
@common.experiment_options
@click.option("--from", "low", type=POSITIVE, default=1e-6, show_default=True, help="Learning rate of the first step.")
@click.option("--to", "high", type=POSITIVE, help="Of the last step.  [default: 1 for sgd, else 0.1]")
@click.option("--steps", type=click.IntRange(20), default=100, show_default=True, help="Training steps.")
@click.option("--shape", type=click.Choice(["exponential", "linear"]), default="exponential", show_default=True)
@common.stream
@common.ignore_unknown_classes
@common.download
@common.out
@common.workers
@common.device
@common.as_json
@common.quiet_warnings
def lr_find(overrides: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Train for a few steps while the learning rate rises, and suggest rates from the loss (Smith, 2017).

    Pictures, their order, augmentation, batch size and precision are those that mixlab train would have with the same
    flags; mixlab train --lr auto does all this by itself.
    """
    from mixlab.data.catalogue import check_outside
    from mixlab.training import fine_tuning, lr_files
    from mixlab.training import train as training
    from mixlab.training.lr_range import Sweep
    from mixlab.training.session import Options

    sweep = Sweep.parse({key: options[key] for key in ("low", "high", "steps", "shape") if options[key] is not None})
    experiment = fine_tuning.compose(options["recipe"], common.experiment_values(options), overrides)
    check_outside(experiment.data, Path(options["out"]))
    if options["download"]:
        common.fetch_missing([experiment.data])
    chosen = Options(device=options["device"], workers=options["workers"], stream=options["stream"])
    found = training.find_learning_rate(experiment, chosen, sweep)
    folder = Path(options["out"]) / f"lr-find-{lr_files.label(experiment)}"
    picture = lr_files.write(folder, experiment, found)
    if as_json:
        return common.print_json({"folder": str(folder), "picture": str(picture), **lr_files.as_values(found)})
    return _show(found, picture)


def _show(found: Any, picture: Path) -> None:
    count = len(found.rates)
    places = sorted({round(place * (count - 1) / (SHOWN - 1)) for place in range(SHOWN)})
    rows = [[f"{found.rates[at]:.3g}", f"{found.losses[at]:.4f}", f"{found.raw_losses[at]:.4f}"] for at in places]
    common.print_table(["learning rate", "smoothed loss", "loss"], rows, right=[0, 1, 2])
    common.echo()
    if found.steepest is not None:
        common.echo(f"steepest fall  {found.steepest:g}  (the one that mixlab train --lr auto reads)")
        common.echo(f"minimum / 10   {found.minimum_tenth:g}")
    if found.note:
        common.echo(f"note           {found.note}")
    common.echo(f"picture        {picture}")
