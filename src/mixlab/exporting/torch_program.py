"""A program of torch.export (.pt2): the same graph, which runs where PyTorch is and mixlab is not."""

import io
from pathlib import Path

import numpy as np
import torch

from mixlab import durable
from mixlab.exporting.graph import trace
from mixlab.run.bundle import METADATA, Bundle, as_text


def export_torch(path: Path, bundle: Bundle) -> None:
    """Write the program of a bundle, with its description as the extra file `mixlab`.

    `torch.export.load(path).module()` takes pictures, uint8 (batch, height, width, channels), and returns probabilities
    and logits, float32 (batch, classes).

    Raises:
        RunError: where the file cannot be written.
    """
    program, content = trace(bundle), io.BytesIO()
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    torch.export.save(program, content, extra_files={METADATA: as_text(bundle.description)})
    durable.write_bytes(path, content.getvalue())


class TorchProgram:
    """A program read back from its file."""

    def __init__(self, path: Path) -> None:
        self._module = torch.export.load(path).module()

    def answer(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            probabilities, logits = self._module(torch.from_numpy(pictures))
        return probabilities.numpy(), logits.numpy()
