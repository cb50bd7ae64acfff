"""What a model is measured on: its own data in the splits of its training, or other data, never what it learned."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mixlab.data.catalogue import DataConfig, PicturesConfig, foreign
from mixlab.data.data_set import DataSet
from mixlab.data.downloads import IMAGENETTE_CLASSES
from mixlab.data.images import FileImages, Images
from mixlab.errors import DataError, did_you_mean
from mixlab.run import own_data
from mixlab.run.bundle import BundleDescription
from mixlab.run.folder import Run
from mixlab.spec import DataSpec


@dataclass(frozen=True, eq=False)
class Measured:
    """The images that a model is measured on."""

    images: Images  # with the labels and the preprocessing of the model
    left_out: dict[str, int]  # class that the model does not know -> images
    learned: int  # images that the model was trained or chosen on, which are left out
    own_data: bool  # data was given, and is the model's own: measured is the split of its training


OTHER_NAMES = IMAGENETTE_CLASSES | {name: folder for folder, name in IMAGENETTE_CLASSES.items()}


def choose(place: Run | Path, data: DataConfig | None, split: str, model: BundleDescription) -> Measured:
    """Return what a run or a bundle is measured on: a split of a run's own data, or of data that is given.

    Raises:
        DataError: where a bundle is given no data, or there is nothing to measure.
    """
    own, names = False, set[str]()
    if data is not None:
        own, loaded = is_own(data, model), given(data, model)
        names = set() if own else learned(data, place)
    elif isinstance(place, Run):
        loaded = _unchanged(place, model.data_fingerprint)
    else:
        raise DataError(f"{place} is a bundle, which has no data of its own; give some: --data NAME|FOLDER")
    images, left_out = as_evaluated(loaded, split, model.spec, ignores_unknown(data))
    kept = _without(images, names)
    return Measured(kept, left_out, len(images) - len(kept), own)


def is_own(data: DataConfig, model: BundleDescription) -> bool:
    """Whether data is what a model was trained on, wherever it lies."""
    try:
        return data.load(seed=0, carve_validation=True).fingerprint() == model.data_fingerprint
    except DataError:  # it cannot be trained on, such as images of one class
        return False


def given(data: DataConfig, model: BundleDescription) -> DataSet:
    """Load data that was given to measure a model on; what it was trained on is split as for its training."""
    if is_own(data, model):
        return data.load(int(model.training.get("seed", 0)), carve_validation=bool(model.validation))
    return foreign(data)


def learned(data: DataConfig, place: Run | Path) -> set[str]:
    """Return the names of the images of a data set that a run was trained or chosen on, where it is the run's own."""
    if not isinstance(place, Run) or _place(place.experiment.data) != _place(data):
        return set()
    splits = place.read_splits()
    return {*splits.get("train", ()), *splits.get("validation", ())}


def as_evaluated(data: DataSet, split: str, spec: DataSpec, ignore_unknown: bool) -> tuple[Images, dict[str, int]]:
    """Return a split with the labels and the preprocessing of a model, and how many images of which class it lacks."""
    images, names, left_out = data.split(split), [_known_as(name, spec.classes) for name in data.spec.classes], {}
    if ignore_unknown:
        images, left_out = _known(images, names, spec.classes)
    else:
        _check_known(names, spec.classes, isinstance(images, FileImages))
    if tuple(names) != spec.classes:
        places = {name: place for place, name in enumerate(spec.classes)}
        labels = np.array([places[names[label]] for label in images.labels], dtype=np.int64)
        images = replace(images, labels=labels)
    if isinstance(images, FileImages):
        return replace(images, spec=spec, canvas_size=0, unreadable={}), left_out
    if images.images.shape[1] != spec.channels:
        raise DataError(f"the model takes {spec.channels} channels, these images have {images.images.shape[1]}")
    return images, left_out


def ignores_unknown(data: DataConfig | None) -> bool:
    return isinstance(data, PicturesConfig) and data.ignore_unknown_classes


def listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"


def _unchanged(run: Run, fingerprint: str) -> DataSet:
    """Load a run's own data; refuse what changed since the training: its test images may have been training images."""
    data = own_data.load(run)
    if data.fingerprint() != fingerprint:
        raise DataError(
            "the data changed since the training, so its test pictures may be ones the model was trained on; "
            "restore it, or measure pictures that are all new with --data FOLDER"
        )
    return data


def _without(images: Images, names: set[str]) -> Images:
    """Return the images of other names.

    Raises:
        DataError: where there are none.
    """
    kept = [index for index, name in enumerate(images.names) if name not in names]
    if not kept:
        raise DataError("the model was trained on every one of these pictures; measure others")
    return images if len(kept) == len(images) else images.select(np.array(kept))


def _place(data: DataConfig) -> tuple[str, Path]:
    return data.name, Path(getattr(data, "path", "")).resolve()


def _known_as(name: str, known: Sequence[str], others: Mapping[str, str] = OTHER_NAMES) -> str:
    """Return the name under which a model knows a class: Imagenette's have two, of the folder and of the class."""
    return others[name] if name not in known and others.get(name) in known else name


def _known(images: Images, names: Sequence[str], known: Sequence[str]) -> tuple[Images, dict[str, int]]:
    """Return the images of known classes, and the number of the others of each class."""
    is_known = np.array([name in known for name in names])[images.labels]
    if not is_known.any():
        raise DataError(f"the model knows none of these classes: {listed(names)}; it knows {listed(known)}")
    left_out = Counter(names[int(label)] for label in images.labels[~is_known])
    return images.select(np.flatnonzero(is_known)), dict(left_out)


def _check_known(names: Sequence[str], known: Sequence[str], can_ignore: bool) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        way_out = ". Rename its folder, or pass --ignore-unknown-classes" if can_ignore else ""
        raise DataError(
            f"the model does not know the class {unknown[0]!r}{did_you_mean(unknown[0], known)}; "
            f"it knows {listed(known)}{way_out}"
        )
