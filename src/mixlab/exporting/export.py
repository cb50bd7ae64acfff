"""`export`: write a file from a bundle, read it back, compare it with the network, and only then give it its name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mixlab import durable
from mixlab.data.catalogue import DataConfig
from mixlab.errors import CheckFailed, UsageError, did_you_mean
from mixlab.evaluation.networks import TorchNetwork, check_signature, open_onnx, run_onnx
from mixlab.evaluation.rejection import with_rejection
from mixlab.exporting import int8, onnx_file, openvino_files, parity, torch_program, web
from mixlab.exporting.aside import files_aside
from mixlab.exporting.graph import OUTPUTS
from mixlab.exporting.judges import Judges, find_judges
from mixlab.exporting.parity import Answer, Measured, Parity
from mixlab.run.bundle import Bundle, read_bundle
from mixlab.run.folder import Run

IMAGES = 512  # pictures that judge, unless said otherwise
REPORT = "parity.json"
FLOATS = "float32"  # folder of the file that one of 8 bits is made from, until both are compared
IN_PYTORCH = "mixlab, PyTorch"


@dataclass(frozen=True)
class Exported:
    """A file that says what the network says, and what was measured of it."""

    path: Path
    parity: Parity


class Format(NamedTuple):
    """One kind of file."""

    file: str  # what is opened
    runtime: str  # what runs it, for people
    check: Callable[[], object]  # raises RunError where a package is missing
    write: Callable[[Path, Bundle, Judges], None]
    open: Callable[[Path, Bundle], Answer]
    beside: str = ""  # a second file of the network, without which the first cannot be opened


def export(
    place: Run | Path,
    kind: str = "onnx",
    out: Path | None = None,
    data: DataConfig | None = None,
    images: int = IMAGES,
    reject_below: str = "",
    say: Callable[[str], object] = lambda line: None,
) -> Exported:
    """Write the exported file of a finished run or a bundle folder, after comparing it with the network.

    Args:
        kind: of FORMATS.
        out: folder for the file and parity.json; None: `export/<kind>` beside the bundle.
        data: pictures that judge, instead of the run's validation pictures.
        images: how many judge; 0: all.
        reject_below: as in `with_rejection`.
        say: takes a line of progress.

    Raises:
        CheckFailed: where it does not say what the network says; then there is no new file.
        RunError: where the run is not finished, a package is missing or the file cannot be written.
        DataError: where there are no pictures to judge by.
        UsageError: for another kind, or a file's name as folder.
    """
    chosen = _format(kind)
    chosen.check()
    bundle = _read(place, reject_below)
    folder = _folder(out or default_folder(place, kind), chosen)
    run = place if isinstance(place, Run) else None
    with files_aside(folder) as aside:
        judges = find_judges(run, data, bundle.description, images, calibrate=kind == "int8")
        say(f"writing  {folder / chosen.file}")
        chosen.write(aside / chosen.file, bundle, judges)
        say(f"checking it on {len(judges.images):,} {judges.what} pictures, as PyTorch answers them")
        found = _compare(kind, aside, bundle, judges)
        if found.problem:
            raise CheckFailed(_refusal(found))
        _put_in_place(aside, folder, chosen, found)
    return Exported(folder / chosen.file, found)


def default_folder(place: Run | Path, kind: str) -> Path:
    """Return `export/<kind>` in the folder that holds the bundle."""
    return (place.folder if isinstance(place, Run) else place.absolute().parent) / "export" / kind


def _format(kind: str) -> Format:
    if kind not in FORMATS:
        way_out = did_you_mean(kind, FORMATS) or f"; known: {', '.join(FORMATS)}"
        raise UsageError(f"unknown kind of file {kind!r}{way_out}")
    return FORMATS[kind]


def _read(place: Run | Path, reject_below: str) -> Bundle:
    bundle = read_bundle(place)
    return replace(bundle, description=with_rejection(bundle.description, reject_below))


def _folder(folder: Path, chosen: Format) -> Path:
    if folder.suffix in {Path(each.file).suffix for each in FORMATS.values()} or folder.is_file():
        raise UsageError(f"--out {folder}: expected a folder; the file in it will be called {chosen.file}")
    return folder


def _put_in_place(aside: Path, folder: Path, chosen: Format, found: Parity) -> None:
    durable.write_json(aside / REPORT, found.as_json())
    ready = [path for path in aside.iterdir() if path.is_file()]
    durable.put_files(sorted(ready, key=lambda path: path.name == chosen.file), folder)


def _compare(kind: str, aside: Path, bundle: Bundle, judges: Judges) -> Parity:
    network, temperature = TorchNetwork(bundle, "cpu"), bundle.description.temperature
    ways: dict[str, Answer] = {
        IN_PYTORCH: lambda pictures: parity.calibrated(network.logits(list(pictures)), temperature)
    }
    sizes = [sum(tensor.nbytes for tensor in bundle.state.values())]
    files = {"onnx": aside / FLOATS, "int8": aside} if kind == "int8" else {kind: aside}
    for name, folder in files.items():
        each = FORMATS[name]
        ways[each.runtime] = each.open(folder / each.file, bundle)
        sizes.append(sum((folder / file).stat().st_size for file in (each.file, each.beside) if file))
    said, labels, picture = parity.ask(ways, judges.batches())
    times = parity.time_them(ways, picture)
    measured = tuple(
        Measured(name, said[name].top1(labels), size, times[name]) for name, size in zip(ways, sizes, strict=True)
    )
    network_said, *files_said = said.values()
    differences = [parity.compare(network_said, each) for each in files_said]
    problems = [
        f"{problem} ({way.name})"
        for name, found, way in zip(files, differences, measured[1:], strict=True)
        if (problem := parity.verdict(name, found, measured[0].top1, way.top1))
    ]
    found, shape = differences[-1], picture.shape[:2]
    return Parity(kind, judges.what, len(labels), shape, found, measured, judges.unreadable, "".join(problems[:1]))


def _refusal(found: Parity) -> str:
    what = f"{found.pictures:,} {found.what} pictures"
    more = "; more pictures judge more finely (--images all, --data)" if found.kind == "int8" else ""
    return f"the exported file is not as good as the network, so none was left: on {what} {found.problem}{more}"


def _open_onnx(path: Path, bundle: Bundle) -> Answer:
    session = open_onnx(path, threads=torch.get_num_threads())
    check_signature(session, bundle.description.spec, path)

    def answer(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probabilities, logits = run_onnx(session, pictures, OUTPUTS)
        return probabilities, logits

    return answer


def _write_int8(path: Path, bundle: Bundle, judges: Judges) -> None:
    float_file = path.parent / FLOATS / FORMATS["onnx"].file
    durable.make_folder(float_file.parent)
    onnx_file.export_onnx(float_file, bundle)
    int8.quantize(float_file, path, judges.calibrating())


FORMATS = {
    "onnx": Format(
        "model.onnx",
        "ONNX Runtime",
        onnx_file.check_installed,
        lambda path, bundle, _: onnx_file.export_onnx(path, bundle),
        _open_onnx,
    ),
    "torch": Format(
        "model.pt2",
        "torch.export",
        lambda: None,
        lambda path, bundle, _: torch_program.export_torch(path, bundle),
        lambda path, _: torch_program.TorchProgram(path).answer,
    ),
    "openvino": Format(
        "model.xml",
        "OpenVINO",
        openvino_files.imported,
        lambda path, bundle, _: openvino_files.export_openvino(path, bundle),
        lambda path, _: openvino_files.OpenvinoModel(path).answer,
        "model.bin",
    ),
    "web": Format(
        "model.onnx",
        "ONNX Runtime",
        web.check_ready,
        lambda path, bundle, _: web.export_web(path, bundle),
        _open_onnx,
    ),
    "int8": Format("model_int8.onnx", "ONNX Runtime, int8", onnx_file.check_installed, _write_int8, _open_onnx),
}
