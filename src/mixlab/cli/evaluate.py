"""`mixlab evaluate`."""

from typing import Any

import click

from mixlab.cli import common
from mixlab.errors import CheckFailed

LISTED = 5  # lost pictures that are named on the screen


@click.command(short_help="Measure a finished run.")
@click.argument("run", metavar="RUN")
@click.option("--split", default="test", show_default=True, metavar="NAME", help="train, validation or test.")
@click.option("--data", default="", metavar="NAME|FOLDER", help="Other data with the same classes.")
@click.option(
    "--ignore-unknown-classes", is_flag=True, help="With --data: leave out classes that the model does not know."
)
@common.reject_below
@common.answer_precision
@click.option("--against", default="", metavar="RUN|BUNDLE", help="The model that this one would replace.")
@click.option(
    "--margin",
    type=click.FloatRange(0),
    metavar="POINTS",
    help="With --against: fail unless top-1 is surely at most so many points lower.",
)
@common.out
@common.workers
@common.device
@common.as_json
@common.quiet_warnings
def evaluate(
    run: str,
    split: str,
    data: str,
    ignore_unknown_classes: bool,
    reject_below: str,
    precision: str,
    against: str,
    margin: float | None,
    out: str,
    workers: int,
    device: str,
    as_json: bool,
) -> None:
    """Measure a finished run: accuracy with intervals, calibration, every class, confusion, pictures.

    With --data RUN may be a bundle folder too.

    How often the test pictures were read is counted: the more often, the less a test result is worth.

    With --against both models answer the same pictures; what changed is listed and drawn. The exit code is 3 where
    the run, or one of its classes, is worse than the other model beyond doubt, or may be worse by more than --margin.
    The other model computes in float32 whatever the --precision: a run against itself shows what rounding costs.
    """

    from mixlab import api

    if ignore_unknown_classes and not data:
        raise click.UsageError("--ignore-unknown-classes goes with --data; a run knows the classes of its own data.")
    if margin is not None and not against:
        raise click.UsageError("--margin goes with --against.")
    other = common.data_fields(data, ignore_unknown_classes) if data else ""
    found = api.evaluate(run, split, other, device, workers, against, margin, reject_below, out, precision)
    if as_json:
        common.print_json(found.as_json())
    else:
        _print(found)
    if found.against and found.against.failures():
        raise CheckFailed("; ".join(found.against.failures()))


def _print(found: Any) -> None:
    from mixlab.evaluation.leaderboard import counted

    measured = found.metrics
    rounded = "" if found.precision == "float32" else f", computed in {found.precision}"
    common.echo(f"{found.split}: {measured.images:,} pictures, read {_times(found.readings)} for this run{rounded}")
    if found.own_data:
        common.echo("note     the model was trained on this data; measured is that split of it alone", err=True)
    for name, reason in found.unreadable.items():
        common.echo(f"skipped  {name}: {reason}", err=True)
    if found.learned:
        common.echo(f"left out {counted(found.learned, 'picture')} that the model has learned", err=True)
    for name, images in found.left_out.items():
        common.echo(f"left out {counted(images, 'picture')} of {name}, which the model does not know", err=True)
    rows = [
        ["top-1 accuracy", *_percent(measured.top1)],
        ["top-5 accuracy", *_percent(measured.top5)],
        ["loss (nats)", *_plain(measured.loss)],
        ["calibration error, raw", *_percent(found.ece_before)],
        [f"calibration error, T={found.temperature:.2f}", *_percent(measured.ece)],
    ]
    if found.accepted:
        rows.append([f"answered (confidence from {found.accepted.threshold:.2%})", *_percent(found.accepted.coverage)])
    if found.accepted and found.accepted.accuracy:
        rows.append(["right of the answered", *_percent(found.accepted.accuracy)])
    common.print_table(["", "value", "95 % interval"], rows, right=[1])
    if measured.ece.low > found.ece_before.value:
        common.echo("note     the temperature makes calibration worse here; it was fitted on the validation pictures")
    worst = sorted(
        (row for row in measured.per_class if row.recall and row.recall.value < 1), key=lambda row: row.recall.value
    )
    if worst:
        common.echo("weakest classes: " + ", ".join(f"{row.name} ({row.recall.value:.1%})" for row in worst[:3]))
    common.echo(f"written  {found.folder} (metrics.json, predictions.csv, pictures)")
    if found.against:
        _print_against(found.against, "" if found.precision == "float32" else " in float32")


def _print_against(found: Any, computed: str) -> None:
    from mixlab.evaluation.leaderboard import counted

    gain, won, lost = found.difference, found.flipped("won"), found.flipped("lost")
    for name, images in found.unknown_there.items():
        common.echo(f"left out {counted(images, 'picture')} of {name}, which {found.other} does not know", err=True)
    if found.learned_there:
        common.echo(f"left out {counted(found.learned_there, 'picture')} that {found.other} was trained on", err=True)
    top1 = f"top-1 {found.here:.2%}, there{computed} {found.there:.2%}"
    points = f"{100 * gain.value:+.2f} points ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
    common.echo(
        f"against  {found.other} on {counted(gain.images, 'picture')}: {top1}",
        f"         {points}: {gain.verdict}",
        f"changed  {len(won):,} won, {len(lost):,} lost",
        *(f"         lost {flip.image}: {_said(flip)}" for flip in lost[:LISTED]),
        *([f"         and {len(lost) - LISTED:,} more"] if len(lost) > LISTED else []),
        f"written  {found.folder} (against.json, flips.csv, pictures of both)",
    )


def _said(flip: Any) -> str:
    here, there = (f"{each.predicted} {each.confidence:.0%}" for each in (flip.here, flip.there))
    return f"{here}, before {there}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _percent(estimate: Any) -> tuple[str, str]:
    return f"{estimate.value:.2%}", f"{estimate.low:.2%} to {estimate.high:.2%}"


def _plain(estimate: Any) -> tuple[str, str]:
    return f"{estimate.value:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}"
