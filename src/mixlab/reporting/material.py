"""What a report is made of: run folders, their predictions, and the images that they were measured on."""

import csv
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mixlab.data.catalogue import DataSet
from mixlab.data.images import Images
from mixlab.errors import MixlabError
from mixlab.evaluation import inference
from mixlab.evaluation.leaderboard import SPLIT, Leaderboard, Row
from mixlab.evaluation.metrics import ReliabilityBins, reliability_of
from mixlab.run.bundle import read_bundle
from mixlab.run.folder import Run


@dataclass(frozen=True)
class Prediction:
    """What a run said of one test image."""

    label: str
    predicted: str
    confidence: float

    @property
    def right(self) -> bool:
        return self.label == self.predicted


@dataclass(frozen=True, eq=False)
class Material:
    """A leaderboard with the runs that it was made of."""

    folder: Path  # of the comparison, or of the one run
    leaderboard: Leaderboard
    runs: Mapping[str, Sequence[Run]]  # row -> its finished runs, by seed

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.leaderboard.finished

    def first_run(self, row: str) -> Run:
        return self.runs[row][0]

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        return read_bundle(self.first_run(self.rows[0].name)).description.spec.classes

    @functools.cache  # noqa: B019
    def predictions(self, row: str) -> tuple[dict[str, Prediction], ...]:
        """Return what each run of a row said, by image."""
        return tuple(_predictions(run) for run in self.runs[row])

    @functools.cache  # noqa: B019
    def data(self, row: str) -> DataSet | None:
        """Return the data of a row's first run, or None where it is no longer there or is another one."""
        run = self.first_run(row)
        try:
            data = run.experiment.data.load(run.experiment.seed, run.experiment.protocol == "honest")
        except MixlabError:
            return None
        return data if data.fingerprint() == run.read_splits()["fingerprint"] else None

    @functools.cache  # noqa: B019
    def model(self, row: str) -> nn.Module:
        """Return the trained network of a row's first run, on the CPU."""
        return read_bundle(self.first_run(row)).build()

    def confusion(self, row: str) -> NDArray[np.int64]:
        """Return the confusion (true, predicted) summed over a row's seeds."""
        return np.sum([np.array(run.measured(SPLIT)["confusion"]) for run in self.runs[row]], axis=0)

    def bins(self, row: str) -> ReliabilityBins:
        """Return all predictions of a row's seeds, sorted by confidence."""
        everything = [each for found in self.predictions(row) for each in found.values()]
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


def _predictions(run: Run) -> dict[str, Prediction]:
    rows = csv.DictReader(io.StringIO(run.predictions(SPLIT)))
    return {row["image"]: Prediction(row["class"], row["predicted"], float(row["confidence"])) for row in rows}


def _places(images: Images) -> dict[str, int]:
    return {name: place for place, name in enumerate(images.names)}


def uint8(inputs: Tensor) -> NDArray[np.uint8]:
    """Return images (n, channels, height, width) in [0, 1] as (n, height, width, channels), 0 to 255."""
    return (inputs * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
