"""A folder that any static host can serve: the page, the network as ONNX, and the runtime that answers."""

import json
from typing import Any

from mixlab import page
from mixlab.run.bundle import BundleDescription


def web_folder(
    onnx: bytes, has_heat: bool, description: BundleDescription, name: str, runtime: dict[str, bytes]
) -> dict[str, bytes]:
    """Return the files of the folder by name.

    Args:
        onnx: the exported file, with the output `heat` where `has_heat` says so.
        name: what the page calls the network.
        runtime: of `web_runtime`.
    """
    model = json.dumps(_model(description, name, has_heat), indent=2, ensure_ascii=False)
    return page.files() | runtime | {"model.onnx": onnx, "model.json": f"{model}\n".encode()}


def _model(description: BundleDescription, name: str, has_heat: bool) -> dict[str, Any]:
    spec = description.spec
    return {
        "engine": "browser",
        "name": name,
        "classes": list(spec.classes),
        "image_size": spec.image_size,
        "channels": spec.channels,
        "resize_mode": spec.resize_mode,
        "mean": list(spec.mean),  # what lies around a picture that is padded
        "temperature": description.temperature,
        "reject_below": description.reject_below,
        "has_heat": has_heat,
        "onnx": "model.onnx",
    }
