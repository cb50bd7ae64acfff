"""A folder that any static host can serve: the page, the network as ONNX, and the runtime that answers."""

import json
from pathlib import Path

from mixlab import page
from mixlab.exporting.graph import has_heat
from mixlab.exporting.onnx_file import check_installed, export_onnx
from mixlab.exporting.web_runtime import web_runtime
from mixlab.run.bundle import Bundle, for_page


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
    model = for_page(bundle.description, "browser", heat) | {"onnx": path.name}
    text = json.dumps(model, indent=2, ensure_ascii=False) + "\n"
    for name, content in (page.files() | web_runtime() | {"model.json": text.encode()}).items():
        (path.parent / name).write_bytes(content)
