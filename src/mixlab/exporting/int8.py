"""The ONNX file with its matrix products in 8 bits (Jacob et al., 2018), by ONNX Runtime's static quantisation.

Dense convolutions and products with learned weights are quantised, but for the layer that reads pixels and the
classifier, which cost next to nothing and lose most. Depthwise convolutions, normalisations, attention's own products
and the resize stay in float32.
"""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mixlab import durable
from mixlab.errors import DataError, RunError
from mixlab.exporting.graph import INPUT
from mixlab.quiet import quiet

PRODUCTS = ("Conv", "Gemm", "MatMul")


def quantize(float_file: Path, path: Path, calibration: Iterator[np.ndarray]) -> None:
    """Write the quantised form of an exported ONNX file.

    Args:
        calibration: pictures whose activations set the ranges; uint8 (batch, height, width, channels).

    Raises:
        RunError: where the file cannot be written, or there is nothing to quantise.
        DataError: where there is no picture.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load(float_file)
    names = products(model)
    if not names:
        raise RunError("this network has no layer between its first and its classifier that 8 bits would make smaller")
    first = next(calibration, None)
    if first is None:
        raise DataError("no picture is left that could set the ranges of 8 bits; name more with --data")
    with tempfile.TemporaryDirectory() as folder, quiet():  # it advises to prepare the file, which changes nothing here
        quantised = Path(folder) / "model.onnx"
        quantize_static(
            model,
            quantised,
            _Reader(itertools.chain([first], calibration)),  # pyright: ignore[reportArgumentType]
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,  # 7 bits of weights: with 8 a CPU without VNNI overflows
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=names,
        )
        durable.write_bytes(path, quantised.read_bytes())


def products(model: Any) -> list[str]:
    """Return the names of the nodes that are quantised."""
    weights = {each.name for each in model.graph.initializer}
    learned = [
        node
        for node in model.graph.node
        if node.op_type in PRODUCTS and node.input[1] in weights and not _is_depthwise(node)
    ]
    return [node.name for node in learned[1:-1]]


def _is_depthwise(node: Any) -> bool:
    return any(each.name == "group" and each.i > 1 for each in node.attribute)


class _Reader:
    """What ONNX Runtime asks for pictures."""

    def __init__(self, pictures: Iterator[np.ndarray]) -> None:
        self._pictures = pictures

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._pictures, None)
        return None if batch is None else {INPUT: batch}
