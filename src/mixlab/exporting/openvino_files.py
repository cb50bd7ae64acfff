"""OpenVINO's two files: the graph (.xml) and its weights (.bin)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixlab.errors import RunError
from mixlab.exporting.onnx_file import as_onnx
from mixlab.run.bundle import METADATA, Bundle, as_text


def export_openvino(path: Path, bundle: Bundle) -> None:
    """Write both files of a bundle; the description is the model's runtime information `mixlab`.

    The signature is that of the ONNX file.

    Raises:
        RunError: where a file cannot be written, or a package for it is missing.
    """
    openvino = imported()
    try:
        model = openvino.Core().read_model(as_onnx(bundle))
        model.set_rt_info(as_text(bundle.description), METADATA)
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise RunError(f"OpenVINO cannot write {path}: {str(error).strip().splitlines()[-1]}") from None


def imported() -> Any:
    """Return the module `openvino`; raises RunError where it is missing."""
    try:
        import openvino  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise RunError("--to openvino needs OpenVINO: pip install 'mixlab[export,openvino]'") from None
    return openvino


class OpenvinoModel:
    """The two files read back, compiled for the CPU."""

    def __init__(self, path: Path) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16, where the CPU has it
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._compiled = imported().Core().compile_model(str(path), "CPU", settings)

    def answer(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = self._compiled(pictures)
        return np.array(found["probabilities"]), np.array(found["logits"])
