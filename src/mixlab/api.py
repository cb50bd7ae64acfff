"""The names of `import mixlab`: verbs that do what the commands do, and return what the commands print."""

from pathlib import Path
from typing import Any

from mixlab.data import catalogue as data_sets
from mixlab.errors import RunError
from mixlab.evaluation import evaluate as evaluation
from mixlab.evaluation.classifier import Answer, Classifier
from mixlab.evaluation.evaluate import Evaluation
from mixlab.experiment import Experiment, compose
from mixlab.explaining import explain as explaining
from mixlab.explaining.explain import Explanation
from mixlab.models.catalogue import create_model
from mixlab.run import bundle
from mixlab.run.folder import Run, find_run
from mixlab.training import train as training
from mixlab.training.session import Options

__all__ = [
    "Answer",
    "Classifier",
    "Evaluation",
    "Experiment",
    "Explanation",
    "Run",
    "create_model",
    "evaluate",
    "explain",
    "load",
    "resume",
    "train",
]

OPTIONS = set(Options.__dataclass_fields__)


def train(recipe: str | Path = "", /, **values: Any) -> Run:
    """Start the run of an experiment, go on with it, or return it where it is finished.

    Args:
        recipe: a TOML file; without one, the recipe of the data set.
        values: fields of the experiment, nested ones as `model={"dim": 64}` or `**{"model.dim": 64}`; and what does
            not decide the result: device, workers, out, name, new, quiet, stream, strict, max_seconds, save_seconds,
            tensorboard.

    Raises:
        MixlabError: with one line that says what was given, what was expected and what to do.
    """
    options = {key: values.pop(key) for key in OPTIONS & values.keys()}
    if "out" in options:
        options["out"] = Path(options["out"])
    return training.train(compose(recipe, values, ()), Options(**options))


def resume(place: str | Path, **options: Any) -> Run:
    """Go on with an interrupted run, with no more than its folder; `options` and errors as `train`."""
    return training.resume(find_run(place), Options(**options))


def load(place: str | Path | Run, device: str = "auto") -> Classifier:
    """Return the classifier of a finished run or of a bundle folder.

    Raises:
        RunError: where there is none, or it is damaged.
    """
    if isinstance(place, Run):
        return Classifier(bundle.read_bundle(place), device)
    path = Path(place).expanduser()
    if bundle.is_bundle(path):
        return Classifier(bundle.read_bundle(path), device)
    return Classifier(bundle.read_bundle(find_run(place)), device)


def evaluate(
    place: str | Path | Run, split: str = "test", data: str | Path = "", device: str = "auto", workers: int = 2
) -> Evaluation:
    """Measure a finished run on a split of its data, or of other data with the same classes.

    Raises:
        RunError: where the run is not finished or damaged.
        DataError: where the data cannot be read or has classes that the model does not know.
    """
    run = place if isinstance(place, Run) else find_run(place)
    other = data_sets.parse_data(data) if data else None
    if not run.is_finished:
        raise RunError(f"{run.folder} is not finished; go on with: mixlab train --resume {run.folder}")
    return evaluation.evaluate(run, split, other, device, workers)


def explain(place: str | Path | Run, *pictures: str | Path, device: str = "auto") -> Explanation:
    """Draw what a finished run sees into its folder: of pictures, or of 8 validation images.

    Raises:
        RunError: where the run is not finished or damaged.
        DataError: where the data cannot be read, or kept no validation images.
    """
    run = place if isinstance(place, Run) else find_run(place)
    return explaining.explain(run, [(str(picture), Path(picture).expanduser()) for picture in pictures], device)
