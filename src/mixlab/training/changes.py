"""What became of data and weights since a run began: it goes on with the same ones or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixlab.data.catalogue import check_outside
from mixlab.data.data_set import DataSet
from mixlab.errors import DataError, RunError, UsageError
from mixlab.places import expand_user
from mixlab.run import trained
from mixlab.run.folder import Run

TOUCHED = "touched"
WEIGHTS = "weights_sha256"  # key of splits.json


@dataclass(frozen=True)
class Seen:
    """The data as it was before anything was decoded."""

    fingerprint: str
    splits: dict[str, tuple[str, ...]]  # names of the images
    files: dict[str, list[str | int]]  # class, size and times by name


def look(data: DataSet) -> Seen:
    return Seen(data.fingerprint(), {split: images.names for split, images in data.splits.items()}, data.files())


def record(run: Run, seen: Seen, unreadable: Mapping[str, str], weights: str) -> None:
    """Write down what a run begins with; `weights` is where it has its own from, or ""."""
    began = {WEIGHTS: trained.sha256(weights)} if weights else {}
    run.write_files(seen.files)
    run.write_splits({"fingerprint": seen.fingerprint, **seen.splits, "unreadable": unreadable, **began})


def refuse_other_weights(run: Run, weights: str) -> None:
    """Refuse a run that began with other weights than those that lie where it was told to take them.

    Where they are gone, it has what it took of them.

    Raises:
        RunError: where they differ.
    """
    began = run.read_splits().get(WEIGHTS)
    if not weights or began is None:  # an older mixlab wrote nothing down
        return
    try:
        found = trained.sha256(weights)
    except RunError:
        return
    if found != began:
        raise RunError(
            f"the weights {weights} changed since {run.folder} began with them (SHA-256 {began[:8]}, now {found[:8]}); "
            "restore them, or start another run with --new"
        )


def refuse_changes(run: Run, seen: Seen) -> list[str]:
    """Return what the reader should know of the data of a run that goes on.

    Raises:
        DataError: naming what was added, removed, put into another class or split, or has another size.
    """
    began = run.read_splits()
    if not began:
        return []
    found = _find_changes(began, run.read_files(), seen)
    touched = found.pop(TOUCHED, [])
    if found or began["fingerprint"] != seen.fingerprint:
        changed = "; ".join(f"{len(names)} {what}, such as {names[0]}" for what, names in found.items())
        raise DataError(
            f"the data changed since {run.folder} began ({changed or 'the content of images'}); "
            "restore it, or start another run with --new"
        )
    if not touched:
        return []
    return [
        f"{len(touched)} files were touched since the run began, such as {touched[0]}. Their sizes are as they were; "
        "where their pixels are not, the result is one of mixed data, and --new starts another run"
    ]


def move_data(run: Run, place: str) -> None:
    """Let a run find its data at another place from now on.

    Raises:
        UsageError: where its data set lies at no place.
        DataError: where another one lies there.
    """
    request = run.request
    experiment = request.experiment
    if not hasattr(experiment.data, "path"):
        raise UsageError(
            f"{run.folder} is trained on {experiment.data.name}, which comes with mixlab; leave out --data"
        )
    moved = experiment.data.model_copy(update={"path": str(expand_user(place).absolute())})
    check_outside(moved, run.folder.parent)
    there = {"data": moved}
    try:
        refuse_changes(run, look(experiment.model_copy(update=there).load_data()))
    except DataError as error:
        raise DataError(f"{place} is not where the data of {run.folder} lies: {error}") from None
    if run.has_begun:
        run.write_experiment(run.experiment.model_copy(update=there))
    run.write_request(request.model_copy(update={"experiment": experiment.model_copy(update=there)}))


def refuse_unreadable(run: Run) -> None:
    """Raise DataError where a run has left out files that cannot be read."""
    unreadable = run.read_splits().get("unreadable")
    if unreadable:
        name, reason = next(iter(unreadable.items()))
        raise DataError(
            f"{run.folder} was trained without {len(unreadable)} files that cannot be read, such as {name}: {reason}; "
            "mend or remove them and start another run with --new, or leave out --strict"
        )


def _find_changes(began: Mapping[str, Any], files: Mapping[str, Any], seen: Seen) -> dict[str, list[str]]:
    """Return the names of images by what became of them."""
    before = {name: split for split in seen.splits for name in began[split]}
    now = {name: split for split, names in seen.splits.items() for name in names}
    found = {
        "gone": [name for name in before if name not in now],
        "new": [name for name in now if name not in before],
    }
    if not any(found.values()):  # else all labels and splits may differ for it
        pairs = {name: (files[name], status) for name, status in seen.files.items() if name in files}
        found = {
            "in another split": [name for name, split in before.items() if now[name] != split],
            "of another class": [name for name, (old, new) in pairs.items() if old[0] != new[0]],
            "of another size": [name for name, (old, new) in pairs.items() if old[1] != new[1]],
            TOUCHED: [name for name, (old, new) in pairs.items() if old[2:] != new[2:]],
        }
    return {what: names for what, names in found.items() if names}
