"""What turns decoded pictures into logits: a trained network in PyTorch, or a file that was exported from one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mixlab import devices
from mixlab.data.images import fit
from mixlab.errors import RunError
from mixlab.kernels import placement
from mixlab.models.folding import fold
from mixlab.run.bundle import Bundle


class Network(Protocol):
    """Logits of pictures of any size, resized as in evaluation."""

    def logits(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 logits (pictures, classes) of decoded pixels, uint8 (height, width, channels) each."""
        ...


class TorchNetwork:
    """The network of a bundle, folded for inference."""

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.spec = bundle.description.spec
        self.device = devices.choose_device(device)
        self.model = placement.place(bundle.build(), self.device)
        self.layout = placement.memory_format(self.model, self.device)
        self.folded = fold(self.model)

    def logits(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return self.of_inputs(torch.stack([fit(pixels, self.spec) for pixels in pictures]))

    def features(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Return what the classifier, the last layer, is given: float32 (pictures, dim)."""
        inputs = torch.stack([fit(pixels, self.spec) for pixels in pictures]).to(self.device)
        seen: list[Tensor] = []
        classifier: Any = self.model.classifier
        watching = classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            with torch.inference_mode():
                self.model(inputs.contiguous(memory_format=self.layout))
        finally:
            watching.remove()
        return seen[0].float().cpu().numpy()

    def of_inputs(self, inputs: Tensor) -> np.ndarray:
        """Return the logits of images as the network sees them, float32 (batch, channels, size, size) in [0, 1]."""
        with torch.inference_mode():
            return self.folded(inputs.to(self.device).contiguous(memory_format=self.layout)).float().cpu().numpy()


class OnnxNetwork:
    """An exported ONNX file in ONNX Runtime, on the CPU; its graph resizes, so pictures of one size go together."""

    def __init__(self, session: Any) -> None:
        self._session = session  # onnxruntime.InferenceSession

    def logits(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for place, pixels in enumerate(pictures):
            by_shape.setdefault(pixels.shape, []).append(place)
        found = {}
        for places in by_shape.values():
            batch = np.stack([pictures[place] for place in places])
            [logits] = self._session.run(["logits"], {"pictures": batch})
            found.update(zip(places, logits, strict=True))
        return np.stack([found[place] for place in range(len(pictures))])


def open_onnx(path: Path, threads: int = 0) -> Any:
    """Return ONNX Runtime's session of a file.

    Args:
        threads: of one answer; 0: as many as there are cores.

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
    try:
        return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except FileNotFoundError:
        raise RunError(f"{path} does not exist") from None
    except Exception as error:  # ONNX Runtime has a class of error for each of its codes, and no common base
        raise RunError(f"{path} is no ONNX file that ONNX Runtime can read: {str(error).splitlines()[0]}") from None
