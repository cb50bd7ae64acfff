"""Several models on the same test images: what each measured over its seeds, and which differences hold."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlab.config import Config, flatten
from mixlab.evaluation.paired import FEWEST_SEEDS, Difference, paired_difference
from mixlab.evaluation.predictions import read_predictions
from mixlab.experiment import Experiment
from mixlab.models import catalogue
from mixlab.run import timing
from mixlab.run.folder import Run
from mixlab.run.table import columns

SPLIT = "test"


class Measured(Config):
    """One finished run; accuracies are shares."""

    run: str  # name of its folder
    seed: int
    epochs: float  # that it trained
    chosen_epoch: float  # whose weights were measured
    seconds: float  # of training and validation
    images_per_second: float  # of training, median of the epochs
    train_top1: float  # of the last epoch's augmented images
    validation_top1: float | None
    top1: float
    top5: float
    loss: float  # nats
    ece: float  # calibration error after the temperature
    best_watched: float | None  # highest test accuracy of an epoch, where test was watched: optimistic
    readings: int  # how often its test images were read
    unreadable: dict[str, str] = {}  # file -> reason, of all splits


class Failure(Config):
    seed: int
    reason: str


class Row(Config):
    """One model, or one variant of it, over its seeds."""

    name: str
    model: str
    parameters: int
    macs: int  # of one image, forward
    runs: tuple[Measured, ...] = ()
    failures: tuple[Failure, ...] = ()

    def mean(self, what: str) -> float | None:
        """Return the mean of a field of `Measured` over the seeds, or None where no run has it."""
        values = self._values(what)
        return statistics.fmean(values) if values else None

    def deviation(self, what: str) -> float | None:
        """Return the standard deviation over the seeds, or None below two."""
        values = self._values(what)
        return statistics.stdev(values) if len(values) > 1 else None

    def cells(self) -> list[str]:
        """Return the row as text for people, without its place."""
        return [
            self.name,
            f"{self.parameters:,}",
            f"{self.macs / 1e6:,.1f}",
            *(self._spread(what) for what in ("validation_top1", "top1", "ece")),
            f"{self.mean('images_per_second'):,.0f}" if self.runs else "failed",
        ]

    def _spread(self, what: str) -> str:
        mean, deviation = self.mean(what), self.deviation(what)
        if mean is None:
            return ""
        return f"{mean:.2%}" + (f" ± {100 * deviation:.2f}" if deviation is not None else "")

    def _values(self, what: str) -> list[float]:
        return [value for run in self.runs if (value := getattr(run, what)) is not None]


class Pair(Config):
    """Two rows, the one that ranks higher first."""

    first: str
    second: str
    difference: Difference
    by_seed: tuple[float, ...] = ()  # the difference for each common seed


class Leaderboard(Config):
    """The result of a comparison, the best row first: by validation where there is one, for it chooses the winner."""

    data: str
    protocol: str
    budget: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...] = ()
    differing: dict[str, dict[str, Any]] = {}  # field -> row -> value, where the rows' experiments differ

    def __str__(self) -> str:
        """Return a table, the best row first, and the headline."""
        headers = ["#", "model", "parameters", "M MACs", "val top-1", "test top-1", "ECE", "img/s"]
        rows = [[place, *row.cells()] for place, row in enumerate(self.rows, 1)]
        return f"{columns(headers, rows, right=[0, 2, 3, 4, 5, 6, 7])}\n{self.headline()}"

    @property
    def finished(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.runs)

    def headline(self) -> str:
        """Say in a sentence or two who is better, by how much, and what cannot be told apart."""
        if not self.finished:
            return "No run finished."
        best = self.finished[0]
        against = [pair for pair in self.pairs if pair.first == best.name]
        beaten = [f"{pair.second} by {points(pair.difference)}" for pair in against if _is(pair, "better")]
        close = [pair.second for pair in against if _is(pair, "within noise")]
        reversed_ = [f"{pair.second}: {points(pair.difference)}" for pair in against if _is(pair, "worse")]
        verb = "beats" if not self.caution() else "as trained here does better on test than"
        parts = [f"{verb} {_listed(beaten)}"] if beaten else []
        parts += [f"cannot be told from {_listed(close)}"] if close else []
        parts += [f"is chosen by validation but loses on test to {_listed(reversed_)}"] if reversed_ else []
        text = f"{best.name} {'; it '.join(parts)}." if parts else f"{best.name}: test top-1 {best.mean('top1'):.2%}."
        return text + self.caution()

    def caution(self) -> str:
        """Return what the number of seeds does not allow to say, or ""."""
        fewest = min((pair.difference.seeds for pair in self.pairs), default=FEWEST_SEEDS)
        if fewest >= FEWEST_SEEDS:
            return ""
        seeds = counted(fewest, "seed")
        return f" With {seeds} this makes no claim about training variance: another seed may turn it round."


def points(difference: Difference) -> str:
    """Return a difference with its interval, as "0.7 points (0.4 to 1.1)"."""
    value, low, high = (100 * each for each in (difference.value, difference.low, difference.high))
    return f"{value:.1f} points ({low:.1f} to {high:.1f})"


def measured(run: Run) -> Measured:
    """Read what was measured of a finished and evaluated run."""
    found, metrics, timings = run.measured(SPLIT), run.metrics(), run.timings()
    watched = [row["test_top1"] for row in metrics if "test_top1" in row]
    return Measured(
        run=run.name,
        seed=run.experiment.seed,
        epochs=run.experiment.epochs,
        chosen_epoch=run.summary["chosen"]["epoch"],
        seconds=timing.seconds(timings),
        images_per_second=timing.median_speed(timings),
        train_top1=metrics[-1]["train_top1"],
        validation_top1=run.summary["validation"].get("top1"),
        top1=found["top1"]["value"],
        top5=found["top5"]["value"],
        loss=found["loss"]["value"],
        ece=found["ece"]["value"],
        best_watched=max(watched) if watched else None,
        readings=run.readings(SPLIT),
        unreadable={**run.read_splits().get("unreadable", {}), **found["unreadable"]},
    )


def differing_fields(experiments: Mapping[str, Experiment]) -> dict[str, dict[str, Any]]:
    """Return the fields, other than seed and model, in which experiments differ: what was not kept equal."""
    flat = {name: flatten(experiment.model_dump(mode="json")) for name, experiment in experiments.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    kept = [key for key in keys if key != "seed" and not key.startswith("model.")]
    return {
        key: {name: values.get(key) for name, values in flat.items()}
        for key in kept
        if len({repr(values.get(key)) for values in flat.values()}) > 1
    }


def rank(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Order rows by their mean validation accuracy, else test accuracy; rows without a run come last."""

    def key(row: Row) -> tuple[bool, float]:
        chosen = row.mean("validation_top1")
        accuracy = row.mean("top1") if chosen is None else chosen
        return (accuracy is not None, accuracy or 0.0)

    return tuple(sorted(rows, key=key, reverse=True))


def pairs_of(rows: Sequence[Row], answers: Mapping[str, Mapping[int, Mapping[str, bool]]]) -> tuple[Pair, ...]:
    """Compare all pairs of rows on their common seeds and images.

    Args:
        answers: row -> seed -> image -> whether it was right.
    """
    found = []
    for first, second in combinations([row.name for row in rows if row.runs], 2):
        seeds = sorted(answers[first].keys() & answers[second].keys())
        if not seeds:
            continue
        images = sorted(set.intersection(*(set(answers[name][seed]) for name in (first, second) for seed in seeds)))
        if images:
            rows_of = [[_row(answers[name][seed], images) for seed in seeds] for name in (first, second)]
            by_seed = tuple(float(ours.mean() - theirs.mean()) for ours, theirs in zip(*rows_of, strict=True))
            difference = paired_difference(*rows_of)
            found.append(Pair(first=first, second=second, difference=difference, by_seed=by_seed))
    return tuple(found)


def right_answers(run: Run) -> dict[str, bool]:
    """Return which test images a run's model gets right, by name."""
    return {name: prediction.right for name, prediction in read_predictions(run, SPLIT).items()}


def counted(count: float, what: str) -> str:
    """Return "1 epoch" or "1,000 epochs"."""
    return f"{count:,.10g} {what}{'' if count == 1 else 's'}"


def row_of(
    name: str, experiment: Experiment, parameters: int, macs: int, runs: Iterable[Run], failures: Iterable[Failure]
) -> Row:
    """Return a leaderboard's row of evaluated runs."""
    return Row(
        name=name,
        model=catalogue.published_name(experiment.model),
        parameters=parameters,
        macs=macs,
        runs=tuple(measured(run) for run in runs),
        failures=tuple(failures),
    )


def _row(answers: Mapping[str, bool], images: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([answers[image] for image in images], dtype=bool)


def _is(pair: Pair, verdict: str) -> bool:
    return pair.difference.verdict == verdict


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
