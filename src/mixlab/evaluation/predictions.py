"""predictions.csv: what a model said of each image of a split."""

import csv
import io
from dataclasses import dataclass

import numpy as np

from mixlab.data.images import Images
from mixlab.evaluation.inference import Predictions
from mixlab.run.folder import Run
from mixlab.run.table import as_cell, from_cell
from mixlab.spec import DataSpec


@dataclass(frozen=True)
class Prediction:
    """One line of predictions.csv."""

    label: str
    predicted: str
    confidence: float  # in [0, 1], calibrated

    @property
    def right(self) -> bool:
        return self.label == self.predicted


def read_predictions(run: Run, split: str) -> dict[str, Prediction]:
    """Return what an evaluated run said of each image of a split, by the image's name."""
    rows = csv.DictReader(io.StringIO(run.predictions(split)))
    texts = [(*(from_cell(row[key]) for key in ("image", "class", "predicted")), row["confidence"]) for row in rows]
    return {name: Prediction(label, predicted, float(confidence)) for name, label, predicted, confidence in texts}


def as_table(found: Predictions, probabilities: np.ndarray, images: Images, spec: DataSpec) -> str:
    """Return predictions.csv: an image a line, with its class, its answer and how sure the model is."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["image", "class", "predicted", "correct", "confidence", "probability_of_class"])
    predicted = probabilities.argmax(1)
    for place, index in enumerate(found.indices):
        label, answer = found.labels[place], predicted[place]
        numbers = (probabilities[place, answer], probabilities[place, label])
        names = (images.names[index], spec.classes[label], spec.classes[answer])
        writer.writerow([*map(as_cell, names), int(label == answer), *(f"{number:.6f}" for number in numbers)])
    return buffer.getvalue()
