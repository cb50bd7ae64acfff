"""A run beside the model that it would replace: both answer the same images, and each change is named and drawn."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mixlab import devices, durable
from mixlab.data.catalogue import DataConfig
from mixlab.data.images import Images
from mixlab.errors import DataError
from mixlab.evaluation import inference, measured_data, pictures
from mixlab.evaluation.calibration import softmax
from mixlab.evaluation.evaluate import GALLERY, Evaluation, pixels
from mixlab.evaluation.measured_data import as_evaluated, listed
from mixlab.evaluation.paired import paired_difference
from mixlab.evaluation.predictions import Prediction, read_predictions
from mixlab.evaluation.regression import Against, Flip, changes_of, flips_of
from mixlab.kernels import placement
from mixlab.run import own_data
from mixlab.run.bundle import Bundle, read_bundle
from mixlab.run.folder import Run
from mixlab.run.table import as_cell


def compare(
    run: Run,
    evaluation: Evaluation,
    other: Run | Path,
    split: str,
    data: DataConfig | None = None,
    device: str = "auto",
    workers: int = 2,
    margin: float | None = None,
) -> Against:
    """Let another model answer what a run was just evaluated on; write against.json, flips.csv and pictures.

    Left out are images of classes that the other model does not know, and of the folder that it was trained on those
    that it has learned, unless it is the run itself. A class is worse where an exact test of its flips says so, with
    all classes tested together.

    Args:
        other: a run or a bundle folder.
        split: and `data`: what the evaluation was given.
        margin: share by which the accuracy may be lower; the whole interval has to be above it. None: the model
            fails only where the whole interval is below 0.

    Raises:
        RunError: where the other model is missing or damaged.
        DataError: where there is no image that both can answer.
    """
    bundle, experiment = read_bundle(other), run.experiment
    if data is None:
        data, loaded = experiment.data, own_data.load(run)
    else:
        loaded = measured_data.given(data, read_bundle(run).description)
    images, unknown = as_evaluated(loaded, split, bundle.description.spec, ignore_unknown=True)
    if isinstance(other, Run):
        other.count_reading(evaluation.split, len(images))
    there = _answers(bundle, images, device, workers)
    here = read_predictions(run, evaluation.folder.name)
    itself = isinstance(other, Run) and other.folder.resolve() == run.folder.resolve()  # in another precision, say
    learned = set() if itself else measured_data.learned(experiment.data if evaluation.own_data else data, other)
    both = [Flip(name, here[name].label, here[name], answer) for name, answer in there.items() if name in here]
    answers = [each for each in both if each.image not in learned]
    if not answers:
        raise DataError(f"there is no picture that {run.name} and the other model can both answer and did not learn")
    here_right, there_right = (np.array([getattr(each, side).right for each in answers]) for side in ("here", "there"))
    found = Against(
        folder=evaluation.folder / f"against-{_name(other)}",
        other=other.name if isinstance(other, Run) else str(other),
        difference=paired_difference([here_right], [there_right]),
        here=float(here_right.mean()),
        there=float(there_right.mean()),
        flips=flips_of(answers),
        classes=changes_of(answers),
        margin=margin,
        unknown_there=unknown,
        learned_there=len(both) - len(answers),
    )
    _write(found, images, bundle)
    return found


def check(run: Run | Path, other: Run | Path) -> None:
    """Raise RunError or DataError where another model is missing, damaged, or knows none of a run's classes."""
    given, known = (read_bundle(each).description.spec.classes for each in (run, other))
    if not set(given) & set(known):
        raise DataError(f"the model knows none of these classes: {listed(given)}; it knows {listed(known)}")


def _name(other: Run | Path) -> str:
    """Return a name for a folder; many bundles are called bundle."""
    return other.name if isinstance(other, Run) else "-".join(other.resolve().parts[-2:])


def _answers(bundle: Bundle, images: Images, device: str, workers: int) -> dict[str, Prediction]:
    spec, chosen = bundle.description.spec, devices.choose_device(device)
    model = placement.place(bundle.build(), chosen)
    found = inference.collect(inference.iterate(model, images, spec, chosen, workers=workers))
    probabilities = softmax(found.logits, bundle.description.temperature)
    best = probabilities.argmax(1)
    return {
        images.names[index]: Prediction(spec.classes[label], spec.classes[answer], float(row[answer]))
        for index, label, answer, row in zip(found.indices, found.labels, best, probabilities, strict=True)
    }


def _write(found: Against, images: Images, bundle: Bundle) -> None:
    durable.make_folder(found.folder)
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["image", "class", "change", "here", "confidence_here", "there", "confidence_there"])
    for flip in found.flips:
        answers = [(as_cell(each.predicted), f"{each.confidence:.6f}") for each in (flip.here, flip.there)]
        writer.writerow([as_cell(flip.image), as_cell(flip.label), flip.kind, *answers[0], *answers[1]])
    durable.write_bytes(found.folder / "flips.csv", buffer.getvalue().encode("utf-8", "surrogateescape"))
    places = {name: place for place, name in enumerate(images.names)}
    for kind, right, wrong in (("lost", "the other model", "this one"), ("won", "this model", "the other one")):
        path, flips = found.folder / f"{kind}.png", found.flipped(kind)
        path.unlink(missing_ok=True)
        if flips:
            chosen = np.array([places[flip.image] for flip in flips[:GALLERY]])
            title = f"{kind}: {len(flips):,} that only {right} gets right; beneath, what {wrong} says"
            _gallery(path, pixels(images, chosen, bundle.description.spec), flips[:GALLERY], title)
    durable.write_json(found.folder / "against.json", found.as_json())


def _gallery(path: Path, shown: np.ndarray, flips: Sequence[Flip], title: str) -> None:
    """Draw images with the answer of the model that is wrong."""
    wrong = [flip.mistake for flip in flips]
    classes = sorted({name for each in wrong for name in (each.label, each.predicted)})
    numbers: Mapping[str, int] = {name: place for place, name in enumerate(classes)}
    labels, answers = ([numbers[getattr(each, name)] for each in wrong] for name in ("label", "predicted"))
    confidences = np.array([each.confidence for each in wrong])
    pictures.gallery(path, shown, np.array(labels), np.array(answers), confidences, classes, title)
