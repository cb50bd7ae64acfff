"""The hostile ONNX files of S1: each maker puts one into an empty folder and returns what a user would do with it."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mixlab import api
from mixlab.run.bundle import METADATA, BundleDescription, as_text
from torture.hostile_bundles import DEEP, MODEL, SPEC, Action, Attack

TEXT = as_text(BundleDescription(mixlab="", model=MODEL, spec=SPEC))
PICTURE = np.zeros((5, 5, 3), np.uint8)


def attacks() -> Iterator[tuple[str, Attack]]:
    yield "an ONNX file of nothing", _file(lambda root: b"")
    yield "an ONNX file of noise", _file(lambda root: bytes(range(256)) * 40)
    yield "an ONNX file cut short", _file(lambda root: model().SerializeToString()[:-200])
    yield "a page instead of an ONNX file", _file(lambda root: b"<html>404</html>")
    yield "an ONNX file of somebody else", _file(lambda root: model(text="").SerializeToString())
    for place in ("../outside", "{root}/outside", "../below/../outside", "inside"):
        yield f"weights of ONNX in {place}", _outside(place)
    yield "an operation from elsewhere", _file(lambda root: model(operation="System").SerializeToString())
    yield "a description that nests", _file(lambda root: model(text=DEEP).SerializeToString())
    for name, change in {
        "of an unknown model": {"model": {"name": "os.system"}},
        "of an unknown key": {"py/object": "posix.system"},
        "of a temperature of 0": {"temperature": 0},
        "of more classes": {"spec": SPEC.model_dump(mode="json") | {"classes": ["a", "b", "c"]}},
        "of fewer channels": {"spec": SPEC.model_dump(mode="json") | {"channels": 1, "mean": [0], "std": [1]}},
    }.items():
        yield f"a description {name}", _file(lambda root, change=change: _described(change))
    yield "another input", _file(lambda root: model(pictures="x").SerializeToString())
    yield "floats as input", _file(lambda root: model(kind=TensorProto.FLOAT).SerializeToString())
    yield "another output", _file(lambda root: model(logits="y").SerializeToString())
    yield "model.onnx is a folder", _odd(lambda path: path.mkdir())
    yield "model.onnx is a pipe", _odd(lambda path: os.mkfifo(path))
    yield "model.onnx links to a device", _odd(lambda path: path.symlink_to("/dev/zero"))


def model(
    text: str = TEXT,
    pictures: str = "pictures",
    kind: int = TensorProto.UINT8,
    logits: str = "logits",
    operation: str = "ReduceMean",
) -> Any:
    """Return an ONNX file with the signature of an exported one, or nearly so."""
    options: dict[str, Any]
    domain, options = ("", {"keepdims": 0}) if operation == "ReduceMean" else ("elsewhere", {})
    nodes = [
        helper.make_node("Cast", [pictures], ["floats"], to=TensorProto.FLOAT),
        helper.make_node(operation, ["floats", "axes"], ["means"], domain=domain, **options),
        helper.make_node("MatMul", ["means", "weights"], [logits]),
    ]
    weights = np.ones((3, 2), np.float32)
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(pictures, kind, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.array([1, 2]), "axes"), numpy_helper.from_array(weights, "weights")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("elsewhere", 1)])
    made.ir_version = 9
    if text:
        made.metadata_props.add(key=METADATA, value=text)
    return made


def _described(change: dict[str, Any]) -> bytes:
    return model(text=json.dumps(json.loads(TEXT) | change)).SerializeToString()


def _file(content: Callable[[Path], bytes]) -> Attack:
    def attack(root: Path) -> tuple[Path, Action]:
        path = root / "model.onnx"
        path.write_bytes(content(root))
        return path, lambda: api.load(path)(PICTURE)

    return attack


def _outside(place: str) -> Attack:
    """A file whose weights are said to lie in another one, which is there, seen from where the command runs."""

    def attack(root: Path) -> tuple[Path, Action]:
        below = root / "below"
        below.mkdir()
        for path in (root / "outside", below / "inside"):
            path.write_bytes(np.ones((3, 2), np.float32).tobytes())
        made = model()
        tensor = made.graph.initializer[1]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place.format(root=root))
        (below / "model.onnx").write_bytes(made.SerializeToString())

        def load() -> None:
            with contextlib.chdir(below):
                api.load(below / "model.onnx")(PICTURE)

        return below / "model.onnx", load

    return attack


def _odd(make: Callable[[Path], None]) -> Attack:
    def attack(root: Path) -> tuple[Path, Action]:
        make(root / "model.onnx")
        return root / "model.onnx", lambda: api.load(root / "model.onnx")(PICTURE)

    return attack
