"""The names of `import mixlab`: verbs that do what the commands do, and return what the commands print."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixlab.comparison import compare as comparing
from mixlab.comparison.compare import Comparison
from mixlab.comparison.compose import ComparisonFile, compose_request, read_file
from mixlab.data import catalogue as data_sets
from mixlab.errors import RunError, UsageError
from mixlab.evaluation import against as comparing_models
from mixlab.evaluation import evaluate as evaluation
from mixlab.evaluation.classifier import Answer, Classifier, read_classifier
from mixlab.evaluation.evaluate import Evaluation
from mixlab.experiment import Experiment
from mixlab.explaining import explain as explaining
from mixlab.explaining.explain import Explanation
from mixlab.exporting import export as exporting
from mixlab.exporting.export import Exported
from mixlab.exporting.web_runtime import web_runtime
from mixlab.models.catalogue import create_model
from mixlab.places import expand_user
from mixlab.reporting.report import write_run_report
from mixlab.run.folder import Run, find_run
from mixlab.run.importing import import_weights
from mixlab.run.table import one_line
from mixlab.run.trained import find_bundle, find_model
from mixlab.training import fine_tuning
from mixlab.training import train as training
from mixlab.training.lr_range import RangeTest, Sweep
from mixlab.training.session import Options

__all__ = [
    "Answer",
    "Classifier",
    "Comparison",
    "Evaluation",
    "Experiment",
    "Explanation",
    "Exported",
    "RangeTest",
    "Run",
    "compare",
    "create_model",
    "evaluate",
    "explain",
    "export",
    "find_learning_rate",
    "import_weights",
    "load",
    "report",
    "resume",
    "train",
]

OPTIONS = set(Options.__dataclass_fields__) - {"auto_learning_rate"}
SHORT = {"lr": "optimizer.learning_rate", "learning_rate": "optimizer.learning_rate"}


def train(recipe: str | Path = "", /, **values: Any) -> Run:
    """Start the run of an experiment, go on with it, or return it where it is finished.

    Args:
        recipe: a TOML file; without one, the recipe of the data set.
        values: fields of the experiment, nested ones as `model={"dim": 64}` or `**{"model.dim": 64}`; `lr`, or
            `learning_rate`, a number or "auto" (found by a range test), for `optimizer.learning_rate`; and what does
            not decide the result: device, workers, out, name, new, quiet, stream, cache, strict, max_seconds,
            save_seconds, tensorboard.

    Raises:
        MixlabError: with one line that says what was given, what was expected and what to do.
    """
    options = _take_options(values)
    experiment, auto = fine_tuning.compose_auto(
        recipe, {SHORT.get(key, key): value for key, value in values.items()}, ()
    )
    return training.train(experiment, replace(options, auto_learning_rate=auto))


def find_learning_rate(recipe: str | Path = "", /, **values: Any) -> RangeTest:
    """Train for a few steps while the learning rate rises, and suggest rates; writes nothing.

    Args:
        recipe: as for `train`.
        values: as for `train`; and of the test: low and high (rates of the first and the last step), steps, shape
            ("exponential" or "linear").

    Raises:
        MixlabError: with one line that says what was given, what was expected and what to do.
    """
    sweep = Sweep.parse({key: values.pop(key) for key in Sweep.model_fields.keys() & values.keys()})
    options = _take_options(values)
    return training.find_learning_rate(fine_tuning.compose(recipe, values, ()), options, sweep)


def resume(place: str | Path, data: str | Path = "", **options: Any) -> Run:
    """Go on with an interrupted run, with no more than its folder or its name in `out`; options, errors as `train`.

    Args:
        data: where the data of the run lies from now on, where it was moved.
    """
    chosen = _options(options)
    return training.resume(find_run(place, chosen.out), chosen, os.fspath(data))


def load(
    place: str | Path | Run, device: str = "auto", reject_below: float | str = "", precision: str = "float32"
) -> Classifier:
    """Return the classifier of a finished run, a bundle folder, an exported ONNX file or a model of the Hub.

    Args:
        place: of the Hugging Face Hub: "hf://OWNER/NAME", which is fetched.
        reject_below: confidence, such as 0.7, below which an answer is unknown; or a precision that accepted answers
            are to have, such as "precision=0.95"; "": as the bundle says.
        precision: of the network: "float32", or "bfloat16", which rounds and is faster where `mixlab bench` says so;
            an ONNX file has its own.

    Raises:
        UsageError: for a precision that is unknown, or not the file's own.
        RunError: where there is none, it is damaged, or its validation images cannot vouch for that precision.
    """
    return read_classifier(find_model(place), device, str(reject_below), precision)


def evaluate(
    place: str | Path | Run,
    split: str = "test",
    data: str | Path | Mapping[str, Any] = "",
    device: str = "auto",
    workers: int = 2,
    against: str | Path | Run = "",
    margin: float | None = None,
    reject_below: float | str = "",
    out: str | Path = "runs",
    precision: str = "float32",
) -> Evaluation:
    """Measure a finished run on a split of its data, or it or a bundle on other data with the same classes.

    Args:
        data: a data set's name, a folder, or a table such as {"name": "birds", "ignore_unknown_classes": True}.
        against: run or bundle folder of a model that this one would replace; both answer the same pictures. What
            speaks against the run is in `.against.failures()`.
        margin: percentage points by which top-1 may be lower than that of `against`; None: it fails only where it is
            lower beyond doubt.
        reject_below: as for `load`.
        out: folder of run folders, and of what is measured of bundles.
        precision: as for `load`. What is not measured in float32 has a folder of its own. `against` always answers in
            float32, so a run against itself says what rounding costs.

    Raises:
        UsageError: for an unknown precision.
        RunError: where the run or the other model is missing, not finished or damaged, or as for `load`.
        DataError: where the data cannot be read or has classes that the model does not know.
    """
    root = expand_user(str(out))
    found = find_bundle(place, root)
    other = data_sets.parse_data(data) if data else None
    if isinstance(found, Run) and not found.is_finished:
        raise RunError(f"{found.folder} is not finished; go on with: mixlab train --resume {found.quoted}")
    if isinstance(found, Path) and against:
        raise RunError(f"{place} is no run; measure the run that it came from")
    before = find_bundle(against, root) if against else None
    if before is not None:
        comparing_models.check(found, before)  # what is wrong with it is said before test images are read
    measured = evaluation.evaluate(
        found, split, other, device, workers, reject_below=str(reject_below), root=root, precision=precision
    )
    if before is None or isinstance(found, Path):
        return measured
    share = None if margin is None else margin / 100
    beside = comparing_models.compare(found, measured, before, split, other, device, workers, share)
    return replace(measured, against=beside)


def _take_options(values: dict[str, Any]) -> Options:
    """Take out of `values` what does not decide a result."""
    return _options({key: values.pop(key) for key in OPTIONS & values.keys()})


def _options(given: Mapping[str, Any]) -> Options:
    return Options(**given) if "out" not in given else Options(**{**given, "out": expand_user(str(given["out"]))})


def compare(
    models: Sequence[str] = (),
    *,
    data: str | Path = "",
    seeds: int | Sequence[int] = (),
    budget: str = "",
    vary: Mapping[str, Sequence[Any]] | None = None,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    file: str | Path = "",
    recipe: str | Path = "",
    match_parameters: str = "",
    jobs: int = 1,
    **values: Any,
) -> Comparison:
    """Train models, or variants, with several seeds under one budget, and say which differences hold.

    Args:
        models: names, each a variant.
        seeds: how many, from 0 on, or which; (): those of the file, else 1.
        budget: of each run: "epochs=30", "images=1e6", "macs=1e15" or "time=10m"; "": the recipe's epochs.
        vary: key path -> values; a variant for each combination, such as {"model.kernel_size": [3, 5]}.
        variants: name -> fields that differ, such as {"wide": {"model": {"name": "resnet9", "width": 64}}}; instead of
            models, and of those in `file`.
        file: TOML file with a table for each variant.
        match_parameters: variant whose number of parameters the others get, by their width.
        jobs: trainings at once.
        values: as for `train`, for all variants, without name, new and max_seconds; `quiet=True` says nothing of the
            runs.

    Raises:
        MixlabError: with one line that says what was given, what was expected and what to do.
    """
    if isinstance(models, str):
        raise UsageError(f"models={models!r}: expected a list of names, such as [{models!r}, 'resnet9']")
    options = _take_options(values)
    given = {"recipe": str(recipe), "budget": budget, "match_parameters": match_parameters}
    given |= {"variants": variants, "seeds": seeds}
    laid = {name: value for name, value in given.items() if value}
    read = ComparisonFile.parse((read_file(Path(file)) if file else ComparisonFile()).model_dump() | laid)
    fields = {"data": data} if data else {}  # first, so that words for its fields come to lie over it
    fields |= {SHORT.get(key, key): value for key, value in values.items()}
    request = compose_request(read, models, list((vary or {}).items()), fields, ())
    say = (lambda line: None) if options.quiet else (lambda line: print(one_line(line), file=sys.stderr))
    return comparing.compare(request, options, jobs, say)


def report(place: str | Path, path: str | Path | None = None, root: Path = Path("runs")) -> Path:
    """Write the report of a comparison's folder or of a run, and return its path.

    Raises:
        RunError: where there is neither, or it is not finished.
    """
    root = expand_user(str(root))
    for folder in (expand_user(str(place)), root / place):
        if comparing.is_comparison(folder):
            return comparing.read_comparison(folder).report(path or "")
    return write_run_report(find_run(place, root), Path(path) if path else None)


def explain(place: str | Path | Run, *pictures: str | Path, device: str = "auto") -> Explanation:
    """Draw what a finished run sees into its folder: of pictures, or of 8 validation images.

    Raises:
        RunError: where the run is not finished or damaged.
        DataError: where the data cannot be read, or kept no validation images.
    """
    run = place if isinstance(place, Run) else find_run(place)
    return explaining.explain(run, [(str(picture), Path(picture).expanduser()) for picture in pictures], device)


def export(
    place: str | Path | Run,
    to: str = "onnx",
    *,
    out: str | Path = "",
    data: str | Path | Mapping[str, Any] = "",
    images: int = exporting.IMAGES,
    reject_below: float | str = "",
    runtime: str | Path = "",
    download: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> Exported:
    """Write the network of a finished run or a bundle folder as a file for other runtimes, and compare both.

    Args:
        to: "onnx", "torch", "openvino", "int8" or "web", a page that any static host can serve.
        out: folder; "": export/<kind> beside the bundle.
        data: pictures to compare on; "": the run's validation pictures.
        images: how many; 0: all.
        reject_below: confidence below which an answer is unknown, or a precision such as "precision=0.95".
        runtime: folder or archive of the npm package onnxruntime-web, for "web"; "": the cache.
        download: have npm fetch it where the cache has none.
        say: takes a line of progress.

    Raises:
        CheckFailed: where the file does not say what the network says; none is left then.
        MixlabError: where the run is not finished, a package is missing, or there are no pictures.
    """
    found = find_bundle(place)
    folder, other = expand_user(str(out)) if out else None, data_sets.parse_data(data) if data else None
    if to == "web" and (runtime or download):
        web_runtime(str(runtime), download)  # stays in the cache
    return exporting.export(found, to, folder, other, images, str(reject_below), say)
