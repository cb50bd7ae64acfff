"""What turns decoded pictures into logits: a trained network in PyTorch, or a file that was exported from one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from mixlab import devices, durable
from mixlab.data.images import fit
from mixlab.errors import RunError, first_line
from mixlab.kernels import placement
from mixlab.models.folding import fold
from mixlab.run.bundle import Bundle
from mixlab.spec import DataSpec

MOST_BYTES = (
    48_000_000  # of decoded pixels held at once (16 megapixels in colour); an exported file takes 10 times that
)

Item = TypeVar("Item")


class Network(Protocol):
    """Logits of pictures of any size, resized as in evaluation."""

    def logits(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 logits (pictures, classes) of decoded pixels, uint8 (height, width, channels) each."""
        ...

    def prepare(self, pixels: np.ndarray) -> Any:
        """Return what is kept of a decoded picture until it is answered: resized already, where that is not later."""
        ...

    def of_prepared(self, pictures: Sequence[Any]) -> np.ndarray:
        """Return the logits of pictures that `prepare` returned."""
        ...


class TorchNetwork:
    """The network of a bundle, folded for inference."""

    def __init__(self, bundle: Bundle, device: str = "auto", precision: str = "float32") -> None:
        self.spec = bundle.description.spec
        self.device, self.precision = devices.choose_device(device), precision
        self.model = placement.place(bundle.build(), self.device)
        self.layout = placement.memory_format(self.model, self.device)
        self.folded = fold(self.model)

    def logits(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return self.of_prepared([self.prepare(pixels) for pixels in pictures])

    def prepare(self, pixels: np.ndarray) -> Tensor:
        return fit(pixels, self.spec)

    def of_prepared(self, pictures: Sequence[Tensor]) -> np.ndarray:
        return self.of_inputs(torch.stack(list(pictures)))

    def features(self, pictures: Sequence[Tensor]) -> np.ndarray:
        """Return what the classifier, the last layer, is given of prepared pictures: float32 (pictures, dim)."""
        inputs = torch.stack(list(pictures)).to(self.device)
        seen: list[Tensor] = []
        classifier: Any = self.model.classifier
        watching = classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            with torch.inference_mode(), devices.autocast(self.device, self.precision):
                self.model(inputs.contiguous(memory_format=self.layout))
        finally:
            watching.remove()
        return seen[0].float().cpu().numpy()

    def of_inputs(self, inputs: Tensor) -> np.ndarray:
        """Return the logits of images as the network sees them, float32 (batch, channels, size, size) in [0, 1]."""
        with torch.inference_mode(), devices.autocast(self.device, self.precision):
            return self.folded(inputs.to(self.device).contiguous(memory_format=self.layout)).float().cpu().numpy()


class OnnxNetwork:
    """An exported ONNX file in ONNX Runtime, on the CPU; its graph resizes, so pictures of one size go together."""

    def __init__(self, session: Any, digest: str = "") -> None:
        self.session = session  # onnxruntime.InferenceSession
        self.digest = digest  # SHA-256 of the file's bytes; "": not asked for

    def logits(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Return logits as every network; raises RunError where the file does not compute them."""
        found: dict[int, np.ndarray] = {}
        for places in of_one_size(pictures):
            batch = np.stack([pictures[place] for place in places])
            [logits] = run_onnx(self.session, batch, ["logits"])
            found.update(zip(places, logits, strict=True))
        return np.stack([found[place] for place in range(len(pictures))])

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        return pixels

    def of_prepared(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return self.logits(pictures)


def in_batches(items: Iterable[Item], size: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Yield lists of at most so many items and MOST_BYTES, but of one item at least."""
    waiting: list[Item] = []
    held = 0
    for item in items:
        if waiting and held + size(item) > MOST_BYTES:
            yield waiting
            waiting, held = [], 0
        waiting.append(item)
        held += size(item)
        if len(waiting) == most:
            yield waiting
            waiting, held = [], 0
    if waiting:
        yield waiting


def of_one_size(pictures: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Yield the places of pictures that an exported file takes at once: of one size, and not too many."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for place, pixels in enumerate(pictures):
        by_shape.setdefault(pixels.shape, []).append(place)
    for places in by_shape.values():
        yield from in_batches(places, lambda place: pictures[place].nbytes, len(places))


def run_onnx(session: Any, pictures: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
    """Return outputs of an exported file for pictures of one size, uint8 (batch, height, width, channels).

    Raises:
        RunError: where it fails, or does not give one row for each picture.
    """
    try:
        found = session.run(list(outputs), {"pictures": pictures})
    except Exception as error:  # ONNX Runtime has a class of error for each of its codes, and no common base
        raise RunError(f"the ONNX file cannot classify {pictures.shape}: {first_line(error)}") from None
    if any(len(rows) != len(pictures) for rows in found):
        raise RunError(f"the ONNX file gives {[len(rows) for rows in found]} answers to {len(pictures)} pictures")
    return found


def open_onnx(path: Path, threads: int = 0, content: bytes | None = None) -> Any:
    """Return ONNX Runtime's session of a file.

    Args:
        threads: of one answer; 0: as many as there are cores.
        content: of the file, where it was read before.

    Raises:
        RunError: where the file cannot be read, or ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise RunError(f"{path} needs ONNX Runtime: pip install 'mixlab[export]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is said below
    content = read_onnx(path) if content is None else content
    try:  # from memory, where there is no folder beside it to read further files from
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as in `run_onnx`
        raise RunError(f"{path} is no ONNX file that ONNX Runtime can read: {first_line(error)}") from None


def read_onnx(path: Path) -> bytes:
    """Return a file's bytes; raises RunError."""
    try:
        return durable.read_bytes(path)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None


def check_signature(session: Any, spec: DataSpec, path: Path) -> None:
    """Refuse a file that does not take the pictures, or does not give the classes, of its own description.

    Raises:
        RunError: names the file.
    """
    inputs = [(each.name, each.type, list(each.shape)[3:]) for each in session.get_inputs()]
    outputs = {each.name: (each.type, list(each.shape)[1:]) for each in session.get_outputs()}
    if inputs != [("pictures", "tensor(uint8)", [spec.channels])]:
        raise RunError(f"{path} does not take pictures of {spec.channels} channels: mixlab did not export it like this")
    if outputs.get("logits") != ("tensor(float)", [spec.num_classes]):
        raise RunError(f"{path} does not give the logits of {spec.num_classes} classes that its description names")
