"""Eight bits: what their making leaves behind, and what they cannot be made from."""

import logging
from pathlib import Path

import numpy as np
import pytest

from mixlab.errors import DataError
from mixlab.exporting import int8


def test_the_loggers_of_the_caller_stay_as_they_were_and_no_picture_is_one_line(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    weights = [onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [2, 2], [1, 0, 0, 1]) for name in "abc"]
    places = ["float", "first", "second", "logits"]
    nodes = [
        onnx.helper.make_node("MatMul", [given, name], [made], name=name)
        for name, given, made in zip("abc", places, places[1:], strict=False)
    ]
    nodes.insert(0, onnx.helper.make_node("Cast", ["pictures"], ["float"], to=onnx.TensorProto.FLOAT))
    graph = onnx.helper.make_graph(
        nodes,
        "",
        [onnx.helper.make_tensor_value_info("pictures", onnx.TensorProto.UINT8, [None, 2])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [None, 2])],
        weights,
    )
    file = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9), file)
    levels = [logging.getLogger(name).level for name in ("", "torch.onnx")]
    int8.quantize(file, tmp_path / "model_int8.onnx", iter([np.full((1, 2), 7, np.uint8)]))
    assert (tmp_path / "model_int8.onnx").exists()
    assert [logging.getLogger(name).level for name in ("", "torch.onnx")] == levels
    with pytest.raises(DataError, match="no picture is left"):
        int8.quantize(file, tmp_path / "none.onnx", iter([]))
    assert not (tmp_path / "none.onnx").exists()
