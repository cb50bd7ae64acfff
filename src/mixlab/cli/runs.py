"""`mixlab runs`."""

from pathlib import Path
from typing import Any

import click

from mixlab.cli import common
from mixlab.errors import MixlabError


@click.group()
def runs() -> None:
    """List, show and remove runs."""


@runs.command("list")
@common.out
@common.as_json
def list_runs(out: str, as_json: bool) -> None:
    """List the runs below a folder, oldest first."""
    from mixlab.run import folder

    rows = [_row_or_damaged(run) for run in folder.list_runs(Path(out))]
    if as_json:
        return common.print_json({"runs": rows})
    if not rows:
        return common.echo(f"{out} holds no runs yet; mixlab train starts one")
    table = [
        [row["run"], row["state"], row["epochs"], _percent(row["validation"]), _percent(row["test"])] for row in rows
    ]
    return common.print_table(["run", "state", "epochs", "validation", "test"], table, right=[2, 3, 4])


@runs.command()
@click.argument("run")
@common.out
@common.as_json
def show(run: str, out: str, as_json: bool) -> None:
    """Show a run's experiment, epochs and results."""
    from mixlab.config import flatten
    from mixlab.run.folder import find_run

    found = find_run(run, Path(out))
    experiment, rows = found.experiment.model_dump(mode="json"), found.metrics()
    summary = found.summary if found.is_finished else {}
    if as_json:
        return common.print_json({**_row(found), "experiment": experiment, "summary": summary, "metrics": rows})
    for key, value in flatten(experiment).items():
        common.echo(f"{key} = {value}")
    names = list(rows[-1]) if rows else []
    common.echo()
    common.print_table(names, [[_number(name, row[name]) for name in names] for row in rows], right=range(len(names)))
    return common.echo("", f"{found.folder} is {_row(found)['state']}")


@runs.command()
@click.argument("run")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common.out
def rm(run: str, yes: bool, out: str) -> None:
    """Delete a run's folder with its weights and results."""
    from mixlab.run.folder import find_run, remove_run

    found = find_run(run, Path(out))
    if not yes and not click.confirm(f"Delete {found.folder} with everything in it?", err=True):
        return common.echo("not removed", err=True)
    remove_run(found)
    return common.echo(f"removed {found.folder}", err=True)


def _row(run: Any) -> dict[str, Any]:
    metrics = run.metrics()
    return {
        "run": run.name,
        "state": "finished" if run.is_finished else "unfinished",
        "epochs": metrics[-1]["epoch"] if metrics else 0,
        "validation": run.summary["validation"].get("top1") if run.is_finished else None,
        "test": run.top1("test"),
    }


def _row_or_damaged(run: Any) -> dict[str, Any]:
    try:
        return _row(run)
    except MixlabError as error:
        common.echo(f"note: {error}", err=True)
        return {"run": run.name, "state": "damaged", "epochs": 0, "validation": None, "test": None}


def _number(name: str, value: float) -> str:
    """Return a value of a row of metrics.jsonl: counts with all their digits, what was measured with four."""
    return f"{value:,}" if isinstance(value, int) else f"{value:{',.10g' if name == 'epoch' else '.4g'}}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
