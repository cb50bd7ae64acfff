"""The pictures that an exported file is judged by, and those that set the ranges of 8 bits."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from mixlab.data.catalogue import DataConfig
from mixlab.data.data_set import DataSet
from mixlab.data.decode import decode
from mixlab.data.images import FileImages, Images
from mixlab.errors import DataError, UnreadableImage
from mixlab.evaluation.measured_data import as_evaluated, given, ignores_unknown, is_own
from mixlab.evaluation.networks import in_batches, of_one_size
from mixlab.run import own_data
from mixlab.run.bundle import BundleDescription
from mixlab.run.folder import Run
from mixlab.spec import DataSpec

CALIBRATION = 256  # pictures
BATCH = 32


@dataclass(frozen=True, eq=False)
class Judges:
    """Labelled pictures, as many as were asked for, spread evenly over what there is."""

    what: str  # such as "validation"
    images: Images
    calibration: Images  # never among those that judge; none where nothing is calibrated
    spec: DataSpec
    unreadable: dict[str, str] = field(default_factory=dict)  # name -> reason, as met so far

    def batches(self) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
        """Yield decoded pixels, uint8 (height, width, channels) each, and labels of those that can be read."""
        yield from _decoded(self.images, self.spec, self.unreadable)

    def calibrating(self) -> Iterator[np.ndarray]:
        """Yield pictures of one size, uint8 (batch, height, width, channels)."""
        for pictures, _ in _decoded(self.calibration, self.spec, {}):
            for places in of_one_size(pictures):
                yield np.stack([pictures[place] for place in places])


def find_judges(
    place: Run | None, data: DataConfig | None, model: BundleDescription, count: int, calibrate: bool = False
) -> Judges:
    """Return at most `count` pictures (0: all): validation pictures of the model's own data, or pictures of other data.

    Test pictures are never among them: they are for `evaluate` alone. Calibration, where it is asked for, takes
    training pictures, or every second of other data, of which the rest judges.

    Raises:
        DataError: where there are no pictures, or they are of classes that the model does not know.
    """
    found, split = _load(place, data, model)
    if not len(found.splits[split]):
        raise DataError("there are no validation pictures to judge the file by; name others with --data NAME|FOLDER")
    ignore = ignores_unknown(data)
    images, _ = as_evaluated(found, split, model.spec, ignore)
    judging, calibration = np.arange(len(images)), images.select(np.arange(0))
    if calibrate and split == "validation":
        calibration, _ = as_evaluated(found, "train", model.spec, ignore)
    elif calibrate:
        calibration, judging = images.select(judging[1::2]), judging[::2]
    what = split if data is None else data.label
    chosen = images.select(_spread(judging, count))
    calibrating = calibration.select(_spread(np.arange(len(calibration)), CALIBRATION))
    return Judges(what, chosen, calibrating, model.spec)


def _load(place: Run | None, data: DataConfig | None, model: BundleDescription) -> tuple[DataSet, str]:
    """Return a data set, and the split of it that judges."""
    if data is not None:
        return (
            (given(data, model), "validation")
            if is_own(data, model)
            else (data.load(seed=0, carve_validation=False), "train")
        )
    if place is None:
        raise DataError("a bundle has no pictures to judge the file by; name some with --data NAME|FOLDER")
    return own_data.load(place), "validation"


def _spread(places: np.ndarray, count: int) -> np.ndarray:
    if not count or count >= len(places):
        return places
    return places[np.linspace(0, len(places) - 1, count).round().astype(np.int64)]


def _decoded(
    images: Images, spec: DataSpec, unreadable: dict[str, str]
) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    readable = _readable(images, spec, unreadable)
    for batch in in_batches(readable, lambda each: each[0].nbytes, BATCH):
        yield [pixels for pixels, _ in batch], np.array([label for _, label in batch])


def _readable(images: Images, spec: DataSpec, unreadable: dict[str, str]) -> Iterator[tuple[np.ndarray, int]]:
    for index, label in enumerate(images.labels.tolist()):
        try:
            yield _pixels(images, index, spec), label
        except UnreadableImage as error:
            unreadable[images.names[index]] = str(error)


def _pixels(images: Images, index: int, spec: DataSpec) -> np.ndarray:
    if isinstance(images, FileImages):
        return decode(images.source(index), spec.channels)
    return np.ascontiguousarray(images.images[index].permute(1, 2, 0).cpu().numpy())
