"""Measuring a finished run on one split of its data, or of other data with the same classes."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixlab import devices, durable
from mixlab.config import digest
from mixlab.data.catalogue import DataConfig, check_outside
from mixlab.data.images import Images
from mixlab.evaluation import calibration, inference, measured_data, metrics, pictures
from mixlab.evaluation.metrics import Estimate, Metrics
from mixlab.evaluation.predictions import as_table
from mixlab.evaluation.regression import Against
from mixlab.evaluation.rejection import Acceptance, measure_accepted, with_rejection
from mixlab.kernels import placement
from mixlab.run.bundle import read_bundle
from mixlab.run.folder import Run
from mixlab.spec import DataSpec

GALLERY = 40  # pictures in a gallery


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and the folder that holds it."""

    folder: Path
    split: str
    metrics: Metrics  # after the temperature
    ece_before: Estimate  # before it
    temperature: float
    readings: int  # how often the split has been read for this run, this time included
    unreadable: dict[str, str]  # file -> reason
    left_out: dict[str, int] = field(default_factory=dict)  # class that the model does not know -> images
    learned: int = 0  # images that the model was trained or chosen on, which are left out
    own_data: bool = False  # other data was asked for, but it is the model's own: measured is the split of its training
    precision: str = "float32"  # of the network
    accepted: Acceptance | None = None  # where answers of too little confidence are unknown
    against: Against | None = None  # beside the model that this one would replace, where that was asked

    def as_json(self) -> dict[str, Any]:
        found = self.metrics.model_dump(mode="json")
        return {
            "split": self.split,
            "folder": str(self.folder),
            **{name: found.pop(name) for name in ("images", "top1", "top5", "loss", "ece")},
            "ece_before_temperature": self.ece_before.model_dump(mode="json"),
            "temperature": self.temperature,
            "readings": self.readings,
            "precision": self.precision,
            "unreadable": self.unreadable,
            "left_out": self.left_out,
            "learned": self.learned,
            "accepted": self.accepted.model_dump(mode="json") if self.accepted else None,
            **found,
            **({"against": self.against.as_json()} if self.against else {}),
        }


def evaluate(
    place: Run | Path,
    split: str = "test",
    data: DataConfig | None = None,
    device: str = "auto",
    workers: int = 2,
    draw: bool = True,
    reject_below: str = "",
    root: Path = Path("runs"),
    precision: str = "float32",
) -> Evaluation:
    """Measure a finished run or a bundle folder, and write metrics.json, predictions.csv and pictures.

    Those of a run are in its folder, those of a bundle in bundle-<digest of its weights> below `root`.

    Args:
        data: other data than the run was trained on; its classes are matched by name. A folder without parts is
            test data as a whole, but for images that the run has learned. Of what the model was trained on only the
            split is measured. With its ignore_unknown_classes, images of classes that the model does not know are
            left out.
        draw: whether to draw pictures too.
        reject_below: as in `with_rejection`.
        precision: "float32" or "bfloat16", of the network.

    Raises:
        UsageError: for an unknown precision.
        RunError: where the run is not finished or damaged, or as `with_rejection`.
        DataError: where a bundle is given no data, or the data cannot be read, changed since the training, or has
            classes that the model does not know.
    """
    devices.check_answer_precision(precision)  # before the reading counts
    bundle = read_bundle(place)
    described = with_rejection(bundle.description, reject_below)
    run = place if isinstance(place, Run) else Run(root / f"bundle-{described.weights_sha256[:8]}")
    spec, chosen = described.spec, devices.choose_device(device)
    if data is not None:
        check_outside(data, run.folder)
    measured = measured_data.choose(place, data, split, described)
    images, model = measured.images, placement.place(bundle.build(), chosen)
    given = "" if data is None or (measured.own_data and place is run) else f"-{data.label}-{digest(data)}"
    label = f"{split}{given}"
    readings = run.count_reading(label, len(images))
    found = inference.collect(inference.iterate(model, images, spec, chosen, workers, precision=precision))
    folder = run.evaluation(label if precision == "float32" else f"{label}-{precision}")
    evaluation, before, after = _measure(folder, label, found, described.temperature, spec, readings, images)
    accepted = measure_accepted(after.max(1), after.argmax(1) == found.labels, described.reject_below)
    evaluation = replace(
        evaluation,
        left_out=measured.left_out,
        learned=measured.learned,
        own_data=measured.own_data,
        precision=precision,
        accepted=accepted if described.reject_below else None,
    )
    predictions = as_table(found, after, images, spec).encode("utf-8", "surrogateescape")
    durable.write_bytes(evaluation.folder / "predictions.csv", predictions)
    if draw:
        _draw(evaluation.folder, evaluation, found, before, after, images, spec)
    durable.write_json(evaluation.folder / "metrics.json", evaluation.as_json())  # last: now it counts as measured
    return evaluation


def _measure(
    folder: Path,
    split: str,
    found: inference.Predictions,
    temperature: float,
    spec: DataSpec,
    readings: int,
    images: Images,
) -> tuple[Evaluation, np.ndarray, np.ndarray]:
    """Return what was measured, and the probabilities before and after the temperature."""
    before = calibration.softmax(found.logits)
    after = calibration.softmax(found.logits, temperature)
    measured = metrics.measure(after, found.labels, spec.classes)
    raw = metrics.measure(before, found.labels, spec.classes)
    return Evaluation(folder, split, measured, raw.ece, temperature, readings, images.unreadable), before, after


def _draw(
    folder: Path,
    evaluation: Evaluation,
    found: inference.Predictions,
    before: np.ndarray,
    after: np.ndarray,
    images: Images,
    spec: DataSpec,
) -> None:
    pictures.confusion(folder / "confusion.png", evaluation.metrics)
    pictures.per_class(folder / "per_class.png", evaluation.metrics)
    bins = [metrics.reliability(probabilities, found.labels) for probabilities in (before, after)]
    pictures.reliability(folder / "reliability.png", bins[0], bins[1], evaluation.temperature)
    predicted, confidence = after.argmax(1), after.max(1)
    pictures.coverage(folder / "coverage.png", confidence, predicted == found.labels, evaluation.accepted)
    wrong = np.flatnonzero(predicted != found.labels)
    surest_wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:GALLERY]
    spread = np.linspace(0, len(predicted) - 1, min(GALLERY, len(predicted))).astype(np.int64)
    for name, title, places in (
        ("predictions.png", f"{evaluation.split}: pictures spread evenly over the split", spread),
        ("mistakes.png", f"{evaluation.split}: the surest of {len(wrong):,} mistakes", surest_wrong),
    ):
        if len(places):
            shown = pixels(images, found.indices[places], spec)
            chosen = (found.labels[places], predicted[places], confidence[places])
            pictures.gallery(folder / name, shown, *chosen, spec.classes, title)


def pixels(images: Images, indices: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Return images as the network sees them, uint8 (images, height, width, channels)."""
    return inference.as_pixels(inference.as_input(images.batch(indices).images.cpu(), spec))
