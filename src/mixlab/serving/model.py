"""The model that a server answers with: preparing one picture, and answering a batch of prepared ones."""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mixlab.data.decode import decode
from mixlab.data.images import fit
from mixlab.errors import RunError
from mixlab.evaluation.classifier import Answer, Classifier, read_classifier
from mixlab.evaluation.explanation import heat_maps, scaled
from mixlab.evaluation.networks import OnnxNetwork, TorchNetwork, run_onnx
from mixlab.models.catalogue import published_name
from mixlab.run import bundle
from mixlab.run.folder import Run
from mixlab.spec import DataSpec

DIGEST_LENGTH = 16  # hexadecimal digits


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture that was decoded, as its network takes it."""

    values: Any  # a tensor (channels, size, size), or pixels, uint8 (height, width, channels)
    pixels: int  # of the picture that stay in memory until it is answered
    view: str  # a data URL of the picture as the network sees it; "": not asked for


class _Torch:
    """A network that gets pictures resized."""

    def __init__(self, network: TorchNetwork) -> None:
        self._network = network
        self.has_heat = True

    def prepare(self, pixels: np.ndarray) -> tuple[Tensor, int]:
        return fit(pixels, self._network.spec), 0

    def logits(self, values: Sequence[Tensor]) -> np.ndarray:
        return self._network.of_inputs(torch.stack(list(values)))

    def heat(self, values: Sequence[Tensor], classes: Sequence[int]) -> np.ndarray:
        return heat_maps(self._network.model, torch.stack(list(values)), classes)


class _Onnx:
    """An exported file, whose graph resizes."""

    def __init__(self, network: OnnxNetwork) -> None:
        self._network = network
        self.has_heat = "heat" in [output.name for output in network.session.get_outputs()]

    def prepare(self, pixels: np.ndarray) -> tuple[np.ndarray, int]:
        return pixels, pixels.shape[0] * pixels.shape[1]

    def logits(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return self._network.logits(values)

    def heat(self, values: Sequence[np.ndarray], classes: Sequence[int]) -> np.ndarray:
        heats = [run_onnx(self._network.session, pixels[None], ["heat"])[0] for pixels in values]
        return scaled(np.stack([heat[0, index] for heat, index in zip(heats, classes, strict=True)]))


class ServedModel:
    """A classifier under a name and a digest; it never changes, a reload makes another one."""

    def __init__(self, classifier: Classifier, digest: str) -> None:
        self.classifier = classifier
        self.spec: DataSpec = classifier.spec
        self.name = published_name(classifier.description.model)
        self.digest = digest
        network = classifier.network
        self._network = _Onnx(network) if isinstance(network, OnnxNetwork) else _Torch(_as_torch(network))
        self.has_heat = self._network.has_heat

    def prepare(self, data: bytes, with_view: bool = False) -> Prepared:
        """Decode a picture; raises UnreadableImage."""
        pixels = decode(data, self.spec.channels)
        values, kept = self._network.prepare(pixels)
        return Prepared(values, kept, _data_url(fit(pixels, self.spec)) if with_view else "")

    def answer(self, prepared: Sequence[Prepared]) -> list[Answer]:
        """Answer pictures together.

        Raises:
            RunError: where an answer is no finite number.
        """
        logits = self._network.logits([each.values for each in prepared])
        if not np.isfinite(logits).all():
            raise RunError("the network's answer is not finite")
        return self.classifier.answers(logits)

    def heat_map(self, prepared: Prepared, answer: Answer) -> np.ndarray:
        """Return where the best class was found, (rows, columns) in [0, 1]."""
        return self._network.heat([prepared.values], [int(answer.probabilities.argmax())])[0]

    def warm(self) -> None:
        """Answer a grey picture: what is set up at first use is set up now, and what cannot answer is found out."""
        side = self.spec.image_size
        pixels = np.full((side, side, self.spec.channels), 128, np.uint8)
        values, _ = self._network.prepare(pixels)
        self.answer([Prepared(values, 0, "")])


def read_model(
    place: Run | Path, device: str = "auto", reject_below: str = "", precision: str = "float32"
) -> ServedModel:
    """Read and warm what a run, a bundle folder or an .onnx file holds.

    Args:
        reject_below: as in `with_rejection`.
        precision: as in `read_classifier`.

    Raises:
        RunError: where it cannot be used.
        UsageError: as `read_classifier`.
    """
    classifier = read_classifier(place, device, reject_below, precision)
    total = hashlib.sha256(bundle.as_text(classifier.description).encode())
    if isinstance(classifier.network, OnnxNetwork):  # a bundle's description has the digest of its weights
        total.update(classifier.network.digest.encode())
    if precision != "float32":
        total.update(precision.encode())
    model = ServedModel(classifier, total.hexdigest()[:DIGEST_LENGTH])
    model.warm()
    return model


def files_of(place: Run | Path) -> list[Path]:
    """Return the files whose change is another model."""
    if isinstance(place, Path) and place.suffix == ".onnx":
        return [place]
    folder = place.bundle if isinstance(place, Run) else place
    return [folder / bundle.DESCRIPTION, folder / bundle.WEIGHTS]


def _as_torch(network: Any) -> TorchNetwork:
    if not isinstance(network, TorchNetwork):
        raise RunError(f"a server cannot answer with a {type(network).__name__}")
    return network


def _data_url(image: Tensor) -> str:
    values = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    stream = io.BytesIO()
    Image.fromarray(values.squeeze(2) if values.shape[2] == 1 else values).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
