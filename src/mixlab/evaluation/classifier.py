"""A trained model that answers pictures with classes; it knows of no run, no command line and no server."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mixlab import devices
from mixlab.data.decode import decode, decode_image
from mixlab.data.images import fit
from mixlab.errors import UnreadableImage, UsageError
from mixlab.evaluation.calibration import softmax
from mixlab.kernels import placement
from mixlab.models.folding import fold
from mixlab.run.bundle import Bundle

Picture = str | Path | bytes | np.ndarray | Image.Image


@dataclass(frozen=True, eq=False)
class Answer:
    """What a classifier says of one picture."""

    classes: tuple[str, ...]
    probabilities: np.ndarray  # (classes,), float64, calibrated

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the most probable classes and their probabilities, the best first."""
        best = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[index], float(self.probabilities[index])) for index in best]

    @property
    def label(self) -> str:
        return self.top(1)[0][0]

    @property
    def confidence(self) -> float:
        return self.top(1)[0][1]


class Classifier:
    """Calibrated class probabilities of pictures, decoded and resized exactly as in evaluation."""

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.spec = bundle.description.spec
        self.temperature = bundle.description.temperature
        self.device = devices.choose_device(device)
        self.model = placement.place(bundle.build(), self.device)
        self.layout = placement.memory_format(self.model, self.device)
        self.folded = fold(self.model)

    def __call__(self, picture: Picture) -> Answer:
        """Classify one picture: a path, the bytes of a file, a Pillow image, or uint8 (height, width[, channels]).

        Raises:
            UnreadableImage: where it cannot be decoded.
        """
        return self.classify([pixels_of(picture, self.spec.channels)])[0]

    def classify(self, pictures: Sequence[np.ndarray]) -> list[Answer]:
        """Classify decoded pixels, uint8 (height, width, channels) each, in one batch."""
        return self.answer(torch.stack([fit(pixels, self.spec) for pixels in pictures]))

    def answer(self, inputs: Tensor) -> list[Answer]:
        """Classify images as the network sees them, float32 (batch, channels, size, size) in [0, 1]."""
        with torch.inference_mode():
            logits = self.folded(inputs.to(self.device).contiguous(memory_format=self.layout)).float().cpu().numpy()
        return [Answer(self.spec.classes, row) for row in softmax(logits, self.temperature)]

    def stream(
        self, pictures: Iterable[Path | bytes], batch_size: int = 32
    ) -> Iterator[tuple[Path | bytes, Answer | UnreadableImage]]:
        """Yield each picture with its answer, or with the reason why it has none, in the order given."""
        waiting: list[tuple[Path | bytes, np.ndarray | UnreadableImage]] = []
        for picture in pictures:
            try:
                waiting.append((picture, decode(picture, self.spec.channels)))
            except UnreadableImage as error:
                waiting.append((picture, error))
            if len(waiting) == batch_size:
                yield from self._answer(waiting)
                waiting = []
        yield from self._answer(waiting)

    def _answer(
        self, waiting: list[tuple[Path | bytes, np.ndarray | UnreadableImage]]
    ) -> Iterator[tuple[Path | bytes, Answer | UnreadableImage]]:
        readable = [pixels for _, pixels in waiting if isinstance(pixels, np.ndarray)]
        answers = iter(self.classify(readable) if readable else [])
        for picture, pixels in waiting:
            yield picture, pixels if isinstance(pixels, UnreadableImage) else next(answers)


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
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.size == 0:
            given = f"{picture.dtype} {picture.shape}"
            raise UsageError(f"expected uint8 pixels (height, width) or (height, width, channels), got {given}")
        picture = Image.fromarray(picture)
    return decode_image(picture, channels)
