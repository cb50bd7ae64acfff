"""A folder that any static host can serve: the page, the network as ONNX, and the runtime that answers."""

import json
from pathlib import Path
from typing import Any

from mixlab import page
from mixlab.exporting.graph import has_heat
from mixlab.exporting.onnx_file import check_installed, export_onnx
from mixlab.exporting.web_runtime import web_runtime
from mixlab.models.catalogue import published_name
from mixlab.run.bundle import Bundle, BundleDescription


def check_ready() -> None:
    """Raise RunError where a package or the runtime for browsers is missing."""
    check_installed()
    web_runtime()


def export_web(path: Path, bundle: Bundle) -> None:
    """Write the ONNX file of a bundle, with a heat map where the network has one, and all that a page needs beside it.

    Raises:
        RunError: where a file cannot be written, or the runtime for browsers is missing.
    """
    heat = has_heat(bundle.build())
    export_onnx(path, bundle, heat)
    model = _model(bundle.description, heat) | {"onnx": path.name}
    text = json.dumps(model, indent=2, ensure_ascii=False) + "\n"
    for name, content in (page.files() | web_runtime() | {"model.json": text.encode()}).items():
        (path.parent / name).write_bytes(content)


def _model(description: BundleDescription, heat: bool) -> dict[str, Any]:
    spec = description.spec
    return {
        "engine": "browser",
        "name": " on ".join(filter(None, [published_name(description.model), Path(description.data).name])),
        "classes": list(spec.classes),
        "image_size": spec.image_size,
        "channels": spec.channels,
        "resize_mode": spec.resize_mode,
        "mean": list(spec.mean),  # what lies around a picture that is padded
        "temperature": description.temperature,
        "reject_below": description.reject_below,
        "has_heat": heat,
    }
