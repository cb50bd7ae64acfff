"""The ONNX file: one file with weights, resize and description inside."""

from pathlib import Path
from typing import Any

import torch

from mixlab import durable
from mixlab.errors import RunError
from mixlab.exporting.graph import HEAT, INPUT, OUTPUTS, SHAPE, trace
from mixlab.quiet import quiet
from mixlab.run.bundle import METADATA, Bundle, as_text

OPSET = 20  # the first with GELU as one operation, which ONNX Runtime computes in less time
LARGEST = 2**31 - 2**20  # bytes of weights: a file is one message of protobuf


def export_onnx(path: Path, bundle: Bundle, heat: bool = False) -> None:
    """Write the ONNX file of a bundle.

    Input `pictures`: uint8 (batch, height, width, channels), the first three of any size. Outputs `probabilities` and
    `logits`, float32 (batch, classes). Metadata `mixlab`: the text of bundle.json.

    Args:
        heat: with a third output `heat`, float32 (batch, classes, rows, columns): what each place adds to each logit.

    Raises:
        RunError: where the file cannot be written, or a package for it is missing.
        UsageError: for heat of a network that has none.
    """
    durable.write_bytes(path, as_onnx(bundle, heat))


def as_onnx(bundle: Bundle, heat: bool = False) -> bytes:
    """Return the content of the ONNX file; raises as `export_onnx`."""
    check_installed()
    if sum(tensor.nbytes for tensor in bundle.state.values()) > LARGEST:
        raise RunError("the weights are more than the 2 GiB that one ONNX file holds; export with --to torch")
    program = trace(bundle, heat)
    with quiet("torch.onnx"):  # it warns of packages that are not needed
        made: Any = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[*OUTPUTS, *([HEAT] if heat else [])],
            dynamic_shapes=(SHAPE,),
        )
    model = made.model_proto
    _forget_this_machine(model)
    model.metadata_props.add(key=METADATA, value=as_text(bundle.description))
    return model.SerializeToString()


def check_installed() -> None:
    """Raise RunError where a package is missing that ONNX files are written and checked with."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RunError(f"an ONNX file needs {error.name}: pip install 'mixlab[export]'") from None


def _forget_this_machine(model: Any) -> None:
    """Take out the traces of the source code, with paths of this machine, that PyTorch notes at each operation."""
    del model.metadata_props[:]
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        del graph.metadata_props[:]
        for each in (*graph.node, *graph.value_info):
            del each.metadata_props[:]
    for each in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del each.metadata_props[:]
