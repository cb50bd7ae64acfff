"""`compare`: train every variant with every seed, measure each finished run once, and say which differences hold.

An interrupted comparison goes on with the same command: finished runs are returned, not repeated, and test images that
were read are not read again.
"""

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mixlab import devices, durable
from mixlab.comparison.budget import Cost, cost_of, load_each, with_budget
from mixlab.comparison.request import Budget, ComparisonRequest, Variant, naming, refuse_equal
from mixlab.comparison.workers import Outcome, Task, run_all
from mixlab.config import digest
from mixlab.data.catalogue import check_outside
from mixlab.errors import Interrupted, MixlabError, RunError, TrainingError, UsageError, did_you_mean
from mixlab.evaluation import evaluate, leaderboard
from mixlab.evaluation.leaderboard import SPLIT, Failure, Leaderboard, counted
from mixlab.experiment import Experiment
from mixlab.reporting.report import write_report
from mixlab.run.folder import Run
from mixlab.training.plan import duration, settle
from mixlab.training.session import Options

REQUEST, LEADERBOARD = "request.json", "leaderboard.json"
ALONE = {  # option of a single training -> why a comparison has none, and what it has instead
    "name": "each run is named by what it is; leave it out, and give out= for the folder they lie in",
    "new": "finished runs are returned, not repeated; leave it out, and give another out= to train anew",
    "max_seconds": 'the budget says how long each run may take; give budget="time=..." instead',
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: a folder beside its runs, and what it found."""

    folder: Path
    leaderboard: Leaderboard

    def runs(self, name: str) -> list[Run]:
        """Return the finished runs of one row, by seed.

        Raises:
            UsageError: for a name that is no row.
        """
        rows = {row.name: row for row in self.leaderboard.rows}
        if name not in rows:
            known = did_you_mean(name, rows) or f"; known: {', '.join(rows)}"
            raise UsageError(f"the comparison has no row {name!r}{known}")
        return [Run(self.folder.parent / each.run) for each in rows[name].runs]

    def report(self, path: str | Path = "") -> Path:
        """Write one HTML file, by default into the folder, and return its path."""
        return write_report(self.folder, self.leaderboard, Path(path) if path else None)


def compare(request: ComparisonRequest, options: Options, jobs: int = 1, say: Say = lambda line: None) -> Comparison:
    """Train, measure and compare every variant with every seed.

    Args:
        jobs: trainings that run at once, each with its share of the cores.
        say: told one line about each run.

    Raises:
        UsageError, DataError: for a variant that cannot be trained at all, or an option that is for a single training;
            nothing has been started then.
        TrainingError: where not one run finished.
        Interrupted: where a signal asked to stop; the same command goes on.
    """
    _refuse_alone(options)
    device = devices.choose_device(options.device)  # a wrong name would fail run by run
    for variant in request.variants:
        check_outside(variant.experiment.data, options.out)
    priced = costs(request)
    experiments = _in_one_precision([experiment for _, experiment, _ in priced], device)
    prepared = [
        variant.model_copy(update={"experiment": experiment})
        for variant, experiment in zip(request.variants, experiments, strict=True)
    ]
    refuse_equal(prepared)  # one budget or precision may have made them so
    folder = folder_of(request, options.out)
    durable.make_folder(folder)
    durable.write_json(folder / REQUEST, request.model_dump(mode="json"))
    durable.append_line(folder / "command.txt", shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    tasks = [_task(variant, seed, options, request.budget) for seed in request.seeds for variant in prepared]
    variants, seeds = counted(len(prepared), "variant"), counted(len(request.seeds), "seed")
    say(f"compare  {variants} x {seeds}, {_budget(request, prepared)}: {counted(len(tasks), 'run')}")
    say(f"         parameters: {', '.join(f'{name} {cost.parameters:,}' for name, _, cost in priced)}")
    outcomes = _train(tasks, jobs, say)
    outcomes = [_measured(outcome, options, say) for outcome in outcomes]
    found = _leaderboard(request, priced, outcomes, _budget(request, prepared))
    _name_unreadable(found, say)
    durable.write_json(folder / LEADERBOARD, found.model_dump(mode="json"))
    if not found.finished:
        raise TrainingError(f"not one of {len(tasks)} runs finished; the first: {outcomes[0].error}")
    return Comparison(folder, found)


def _refuse_alone(options: Options) -> None:
    for name, reason in ALONE.items():
        if getattr(options, name):
            raise UsageError(f"{name}={getattr(options, name)!r} is for a single training: {reason}")


def _in_one_precision(experiments: Sequence[Experiment], device: torch.device) -> list[Experiment]:
    """Return the experiments, with float32 for "auto" where that would not mean the same for all."""
    if len({settle(experiment, device).precision for experiment in experiments}) == 1:
        return list(experiments)
    return [
        experiment.model_copy(update={"precision": "float32"}) if experiment.precision == "auto" else experiment
        for experiment in experiments
    ]


def folder_of(request: ComparisonRequest, root: Path) -> Path:
    """Return the folder of a comparison, the same for the same request."""
    return root / f"compare-{request.variants[0].experiment.data.label}-{digest(request)}"


def is_comparison(folder: Path) -> bool:
    """Whether a folder holds a comparison, finished or not."""
    try:
        found = durable.read_json(folder / REQUEST)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "variants" in found


def read_comparison(folder: Path) -> Comparison:
    """Read a comparison that finished.

    Raises:
        RunError: where there is none.
    """
    path = folder / LEADERBOARD
    try:
        return Comparison(folder, Leaderboard.parse(durable.read_json(path)))
    except FileNotFoundError:
        way_out = "; its command goes on with it" if is_comparison(folder) else ""
        raise RunError(f"{folder} is no finished comparison: it has no {LEADERBOARD}{way_out}") from None
    except (ValueError, MixlabError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None


def costs(request: ComparisonRequest) -> list[tuple[str, Experiment, Cost]]:
    """Return each variant's name, its experiment with the epochs of the budget, and what it costs; starts nothing.

    Every mistake in a variant shows here.
    """
    found = []
    experiments = [variant.experiment for variant in request.variants]
    for variant, data in zip(request.variants, load_each(experiments), strict=True):
        with naming(variant.name):
            cost = cost_of(variant.experiment, data)
            found.append((variant.name, with_budget(variant.experiment, request.budget, cost), cost))
    return found


def _budget(request: ComparisonRequest, prepared: list[Variant]) -> str:
    """Return the budget for people; one that is each variant's own by the number of epochs, where it is the same."""
    epochs = {variant.experiment.epochs for variant in prepared}
    if request.budget.kind == "own" and len(epochs) == 1:
        return f"{counted(epochs.pop(), 'epoch')} each"
    return str(request.budget)


def _task(variant: Variant, seed: int, options: Options, budget: Budget) -> Task:
    limit = budget.amount if budget.kind == "time" else 0.0
    chosen = replace(options, quiet=True, max_seconds=limit, auto_learning_rate=variant.auto_learning_rate)
    return Task(variant.name, variant.experiment.model_copy(update={"seed": seed}), chosen)


def _train(tasks: list[Task], jobs: int, say: Say) -> list[Outcome]:
    """Run every task, saying what became of it and how long the rest may take."""
    started, outcomes = time.perf_counter(), []
    try:
        for outcome in run_all(tasks, jobs):
            outcomes.append(outcome)
            left = len(tasks) - len(outcomes)
            trained = sum(not each.was_finished for each in outcomes)
            seconds = (time.perf_counter() - started) / max(trained, 1) * left
            rest = f", about {duration(seconds)} left" if left and trained else ""
            say(f"{len(outcomes):3}/{len(tasks)}  {_line(outcome)}{rest}")
    except Interrupted as interruption:
        reason = str(interruption).partition(";")[0]
        raise Interrupted(f"{reason}; the same command goes on with the comparison") from None
    return outcomes


def _name_unreadable(found: Leaderboard, say: Say) -> None:
    """Name each file that could not be read, once for all runs."""
    reasons = {name: reason for row in found.rows for run in row.runs for name, reason in run.unreadable.items()}
    for name, reason in reasons.items():
        say(f"skipped  {name}: {reason}")


def _line(outcome: Outcome) -> str:
    if outcome.run is None:
        return f"{outcome.task}: failed: {outcome.error}"
    top1 = outcome.run.summary["validation"].get("top1")
    found = f"validation {top1:.2%}" if top1 is not None else "trained"
    seconds = duration(sum(row["seconds"] for row in outcome.run.timings()))
    return f"{outcome.task}: {found}, {'finished before' if outcome.was_finished else seconds}"


def _measured(outcome: Outcome, options: Options, say: Say) -> Outcome:
    """Read the test images of a finished run, unless that was done before."""
    run = outcome.run
    if run is None or run.is_measured(SPLIT):
        return outcome
    try:
        evaluate.evaluate(run, SPLIT, device=options.device, workers=options.workers, draw=False)
    except MixlabError as error:
        say(f"{outcome.task.variant} seed {outcome.task.experiment.seed}: cannot be measured: {error}")
        return replace(outcome, run=None, error=str(error))
    return outcome


def _leaderboard(
    request: ComparisonRequest, priced: list[tuple[str, Experiment, Cost]], outcomes: list[Outcome], budget: str
) -> Leaderboard:
    runs: dict[str, dict[int, Run]] = {name: {} for name, _, _ in priced}
    failures: dict[str, list[Failure]] = {name: [] for name, _, _ in priced}
    for outcome in outcomes:
        name, seed = outcome.task.variant, outcome.task.experiment.seed
        if outcome.run is None:
            failures[name].append(Failure(seed=seed, reason=outcome.error))
        else:
            runs[name][seed] = outcome.run
    rows = leaderboard.rank(
        leaderboard.row_of(name, experiment, cost.parameters, cost.macs, _in_order(runs[name]), failures[name])
        for name, experiment, cost in priced
    )
    answers = {
        name: {seed: leaderboard.right_answers(run) for seed, run in of_seed.items()} for name, of_seed in runs.items()
    }
    first = priced[0][1]
    return Leaderboard(
        data=first.data.label,
        protocol=first.protocol,
        budget=budget,
        seeds=request.seeds,
        rows=rows,
        pairs=leaderboard.pairs_of(rows, answers),
        differing=_differing(runs),
    )


def _differing(runs: Mapping[str, Mapping[int, Run]]) -> dict[str, dict[str, Any]]:
    """Return the fields that were not the same in all finished runs, each with what the rows had.

    Runs know what was measured before their first step: rates that were found, epochs that fit into a time, the parts
    of a batch that fit into memory. Where a row's seeds differ, it is the lowest and the highest.
    """
    found = leaderboard.differing_fields({run.name: run.experiment for row in runs.values() for run in row.values()})
    return {
        key: {name: _range([values[run.name] for run in row.values()]) for name, row in runs.items() if row}
        for key, values in found.items()
    }


def _range(values: Sequence[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else [min(values), max(values)]


def _in_order(runs: Mapping[int, Run]) -> list[Run]:
    return [runs[seed] for seed in sorted(runs)]
