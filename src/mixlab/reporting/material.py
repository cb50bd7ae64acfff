"""What a report is made of: run folders, their predictions, and the images that they were measured on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mixlab.config import digest
from mixlab.data.data_set import DataSet
from mixlab.data.images import Images
from mixlab.errors import MixlabError
from mixlab.evaluation import inference
from mixlab.evaluation.leaderboard import SPLIT, Leaderboard, Row
from mixlab.evaluation.metrics import ReliabilityBins, reliability_of
from mixlab.evaluation.predictions import Prediction, read_predictions
from mixlab.experiment import Experiment
from mixlab.run.bundle import read_bundle
from mixlab.run.folder import Run

Loaded = tuple[DataSet, str]  # with its fingerprint


@dataclass(frozen=True, eq=False)
class Material:
    """A leaderboard with the runs that it was made of."""

    folder: Path  # of the comparison, or of the one run
    leaderboard: Leaderboard
    runs: Mapping[str, Sequence[Run]]  # row -> its finished runs, by seed
    _data: dict[tuple[str, int, str], Loaded | None] = field(default_factory=dict)
    _models: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.leaderboard.finished

    def first_run(self, row: str) -> Run:
        return self.runs[row][0]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return read_bundle(self.first_run(self.rows[0].name)).description.spec.classes

    @cached_property
    def unreadable(self) -> dict[str, str]:
        """Return the files that some run could not read, with the reasons."""
        return {name: reason for row in self.rows for each in row.runs for name, reason in each.unreadable.items()}

    @cached_property
    def predictions(self) -> Mapping[str, Sequence[Mapping[str, Prediction]]]:
        """Return what each run of each row said of the test images, by row, run and image."""
        return {row: [read_predictions(run, SPLIT) for run in runs] for row, runs in self.runs.items()}

    def data(self, row: str) -> DataSet | None:
        """Return the data of a row's first run, or None where it is no longer there or is another one."""
        run = self.first_run(row)
        experiment = run.experiment
        key = (digest(experiment.data), experiment.seed, experiment.protocol)
        if key not in self._data:
            self._data[key] = _load(experiment)
        found = self._data[key]
        return found[0] if found and found[1] == run.read_splits()["fingerprint"] else None

    def model(self, row: str) -> nn.Module:
        """Return the trained network of a row's first run, on the CPU."""
        if row not in self._models:
            self._models[row] = read_bundle(self.first_run(row)).build()
        return self._models[row]

    def confusion(self, row: str) -> NDArray[np.int64]:
        """Return the confusion (true, predicted) summed over a row's seeds."""
        return np.sum([np.array(run.measured(SPLIT)["confusion"]) for run in self.runs[row]], axis=0)

    def bins(self, row: str) -> ReliabilityBins:
        """Return all predictions of a row's seeds, sorted by confidence."""
        everything = [each for found in self.predictions[row] for each in found.values()]
        confidence = np.array([each.confidence for each in everything])
        return reliability_of(confidence, np.array([each.right for each in everything]))

    def inputs(self, row: str, names: Sequence[str]) -> Tensor | None:
        """Return test images as a row's model sees them, (images, channels, side, side), or None without the data."""
        data = self.data(row)
        if data is None:
            return None
        place = _places(data.test)
        indices = np.array([place[name] for name in names if name in place], dtype=np.int64)
        if len(indices) != len(names) or len(names) == 0:
            return None
        batch = data.test.batch(indices)
        return inference.as_input(batch.images, data.spec) if len(batch.indices) == len(names) else None


def _load(experiment: Experiment) -> Loaded | None:
    try:
        data = experiment.load_data()
    except MixlabError:
        return None
    return data, data.fingerprint()


def _places(images: Images) -> dict[str, int]:
    return {name: place for place, name in enumerate(images.names)}
