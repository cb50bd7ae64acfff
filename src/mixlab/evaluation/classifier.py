"""A trained model that answers pictures with classes; it knows of no run, no command line and no server."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mixlab import devices
from mixlab.data.decode import decode, decode_image
from mixlab.errors import RunError, UnreadableImage, UsageError, shown
from mixlab.evaluation.calibration import softmax
from mixlab.evaluation.networks import (
    Network,
    OnnxNetwork,
    TorchNetwork,
    check_signature,
    in_batches,
    open_onnx,
    read_onnx,
)
from mixlab.evaluation.rejection import with_rejection
from mixlab.run import bundle
from mixlab.run.bundle import BundleDescription
from mixlab.run.folder import Run

Picture = str | Path | bytes | np.ndarray | Image.Image


@dataclass(frozen=True, eq=False)
class Answer:
    """What a classifier says of one picture."""

    classes: tuple[str, ...]
    probabilities: np.ndarray  # (classes,), float64, calibrated
    reject_below: float = 0.0  # confidence below which the answer is that it is not known

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the most probable classes and their probabilities, the best first; raises UsageError below one."""
        if count < 1:
            raise UsageError(f"top({count}): expected how many classes, 1 or more")
        best = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[index], float(self.probabilities[index])) for index in best]

    @property
    def label(self) -> str:
        return self.top(1)[0][0]

    @property
    def confidence(self) -> float:
        return self.top(1)[0][1]

    @property
    def is_unknown(self) -> bool:
        """Whether the confidence is too low to act on."""
        return self.confidence < self.reject_below


class Classifier:
    """Calibrated class probabilities of pictures, decoded and resized exactly as in evaluation."""

    def __init__(self, description: BundleDescription, network: Network) -> None:
        self.description = description
        self.spec = description.spec
        self.temperature = description.temperature
        self.reject_below = description.reject_below
        self.network = network

    def __call__(self, picture: Picture) -> Answer:
        """Classify one picture: a path, the bytes of a file, a Pillow image, or uint8 (height, width[, channels]).

        Raises:
            UnreadableImage: where it cannot be decoded.
            UsageError: for an array of another type or shape.
        """
        return self.classify([pixels_of(picture, self.spec.channels)])[0]

    def classify(self, pictures: Sequence[np.ndarray]) -> list[Answer]:
        """Classify decoded pixels, uint8 (height, width, channels) each, in one batch."""
        return self.answers(self.network.logits(pictures))

    def features(self, pictures: Iterable[Picture], batch_size: int = 32) -> np.ndarray:
        """Return the pooled features of pictures, float32 (pictures, dim): what the last layer makes logits of.

        Raises:
            UnreadableImage: where one cannot be decoded.
            RunError: where the network is an exported file.
            UsageError: for what is no list of pictures.
        """
        if isinstance(pictures, str | bytes | Path | np.ndarray | Image.Image):
            raise UsageError("features takes a list of pictures; put the one into brackets")
        if not isinstance(self.network, TorchNetwork):
            raise RunError("an exported file gives no features; load the run or bundle that it came from")
        prepared = (self.network.prepare(pixels_of(picture, self.spec.channels)) for picture in pictures)
        found = [self.network.features(batch) for batch in in_batches(prepared, lambda each: each.nbytes, batch_size)]
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    def answers(self, logits: np.ndarray) -> list[Answer]:
        """Return what the logits (pictures, classes) of the network say."""
        rows = softmax(logits, self.temperature)
        return [Answer(self.spec.classes, row, self.reject_below) for row in rows]

    def stream(
        self, pictures: Iterable[Path | bytes], batch_size: int = 32
    ) -> Iterator[tuple[Path | bytes, Answer | UnreadableImage]]:
        """Yield each picture with its answer, or with the reason why it has none, in the order given."""
        waiting = ((picture, self._prepared(picture)) for picture in pictures)
        for batch in in_batches(waiting, lambda each: getattr(each[1], "nbytes", 0), batch_size):
            readable = [prepared for _, prepared in batch if not isinstance(prepared, UnreadableImage)]
            answers = iter(self.answers(self.network.of_prepared(readable)) if readable else [])
            for picture, prepared in batch:
                yield picture, prepared if isinstance(prepared, UnreadableImage) else next(answers)

    def _prepared(self, picture: Path | bytes) -> Any | UnreadableImage:
        try:
            return self.network.prepare(decode(picture, self.spec.channels))
        except UnreadableImage as error:
            return error


def read_classifier(
    place: Run | Path, device: str = "auto", reject_below: str = "", precision: str = "float32"
) -> Classifier:
    """Return the classifier of a finished run, a bundle folder or an exported ONNX file.

    Args:
        device: of a run or bundle; an ONNX file is answered on the CPU.
        reject_below: as in `with_rejection`.
        precision: "float32" or "bfloat16", of a run or bundle; an ONNX file has its own.

    Raises:
        RunError: where there is none, or it is damaged.
        UsageError: for an unknown precision, or another than float32 of an ONNX file.
        UsageError, RunError: as `with_rejection`.
    """
    devices.check_answer_precision(precision)
    if isinstance(place, Path) and place.suffix == ".onnx":
        if precision != "float32":
            raise UsageError(
                f"precision {precision} is for runs and bundles; the numbers that {place} computes in are its own"
            )
        content = read_onnx(place)
        session = open_onnx(place, content=content)
        metadata = session.get_modelmeta().custom_metadata_map
        description = bundle.read_description(metadata.get(bundle.METADATA, ""), place)
        check_signature(session, description.spec, place)
        return Classifier(
            with_rejection(description, reject_below), OnnxNetwork(session, hashlib.sha256(content).hexdigest())
        )
    found = bundle.read_bundle(place)
    return Classifier(with_rejection(found.description, reject_below), TorchNetwork(found, device, precision))


def pixels_of(picture: Picture, channels: int) -> np.ndarray:
    """Return uint8 pixels (height, width, channels).

    Raises:
        UnreadableImage: where the picture cannot be decoded.
        UsageError: for an array of another type or shape.
    """
    if isinstance(picture, str | Path):
        return decode(Path(picture).expanduser(), channels)
    if isinstance(picture, bytes):
        return decode(picture, channels)
    if isinstance(picture, np.ndarray):
        picture = _image_of(picture)
    if not isinstance(picture, Image.Image):
        raise UsageError(f"expected one picture: a path, bytes, uint8 pixels or a Pillow image, not {shown(picture)}")
    return decode_image(picture, channels)


def _image_of(pixels: np.ndarray) -> Image.Image:
    is_picture = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 2, 3, 4))
    if pixels.dtype != np.uint8 or not is_picture or pixels.size == 0:
        raise UsageError(
            "expected uint8 pixels (height, width) or (height, width, channels), with 1 or 3 channels, or 2 or 4 of "
            f"which the last is opacity; got {pixels.dtype} {pixels.shape}"
        )
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)
