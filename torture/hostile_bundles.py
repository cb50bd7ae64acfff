"""The hostile files of S1: each maker puts one into an empty folder and returns what a user would do with it."""

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from mixlab.data.cifar import read_cifar
from mixlab.data.labels_csv import read_labels
from mixlab.experiment import compose
from mixlab.models.catalogue import parse_model
from mixlab.run.bundle import Bundle, BundleDescription, read_bundle, write_bundle
from mixlab.run.checkpoint import load_newest
from mixlab.run.folder import Request, Run, find_run, open_run
from mixlab.run.importing import import_weights
from mixlab.spec import DataSpec
from mixlab.training.weights import load_weights

SPEC = DataSpec(image_size=16, classes=("a", "b"), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
MODEL = parse_model({"name": "convmixer", "dim": 8, "depth": 1})
DEEP = "[" * 200_000
Action = Callable[[], object]
Attack = Callable[[Path], tuple[Path, Action]]  # folder -> the hostile file, and what must refuse it


class Payload:
    """Something that a pickle runs: it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.canary}",)


def good_bundle(folder: Path, spec: DataSpec = SPEC) -> Path:
    torch.default_generator.manual_seed(0)
    described = BundleDescription(mixlab="", model=MODEL, spec=spec)
    write_bundle(folder, Bundle(described, MODEL.build(spec).state_dict()), "")
    return folder


def attacks() -> Iterator[tuple[str, Attack]]:
    for suffix in (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".safetensors"):
        yield f"a pickle as weights, {suffix}", _weights(suffix, lambda root: pickle.dumps(Payload(root / "canary")))
    yield "torch.save as weights", _weights(".safetensors", _saved_by_torch)
    yield "object arrays as weights", _weights(".npz", _object_arrays)
    yield "a header of a terabyte", _weights(".safetensors", lambda root: struct.pack("<Q", 2**40) + b"{}")
    for suffix in (".pt", ".pth", ".pth.tar"):
        yield f"torch.save of code, {suffix}", _weights(suffix, _saved_by_torch)
        yield f"code to be imported, {suffix}", _import(suffix, _saved_by_torch)
    yield "a checkpoint that unpacks without end", _import(".pt", _compressed)
    yield "tensors of more numbers than the file has", _import(".pt", _expanded)
    yield "a checkpoint of a whole module", _import(".pt", _module)
    yield "a kernel of a kilometre", _import(".safetensors", _wide_kernel)
    overlapping = {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}
    yield "a tensor that is not there", _weights(".safetensors", lambda root: _tensors(overlapping))
    yield "a pickle in a bundle", _bundle(weights=lambda root: pickle.dumps(Payload(root / "canary")))
    yield "weights of another model", _bundle(weights=lambda root: safetensors.torch.save({"x": torch.zeros(3)}))
    yield "weights that are no numbers", _bundle(weights=_spoilt)
    yield "a bundle that nests", _bundle(text=DEEP)
    yield "a bundle that is a list", _bundle(text="[1]")
    yield "a temperature that is no number", _bundle(temperature=float("nan"))
    yield "an infinite mean", _bundle(spec=SPEC.model_dump(mode="json") | {"mean": [float("inf"), 0, 0]})
    yield (
        "classes by the million",
        _bundle(spec=SPEC.model_dump(mode="json") | {"classes": list(map(str, range(10**5)))}),
    )
    yield "an image of a kilometre", _bundle(spec=SPEC.model_dump(mode="json") | {"image_size": 10**9})
    for fields in (
        {"name": "os.system"},
        {"__class__": "os.system"},
        {"py/object": "posix.system"},
        {"_target_": "os.system"},
        {"dim": 10**9},
        {"dim": 65_536},
        {"depth": 10**9},
        {"depth": 256},
    ):
        yield f"a model with {fields}", _bundle(model=MODEL.model_dump(mode="json") | fields)
    for name in ("bundle.json", "model.safetensors"):
        yield f"{name} is a pipe", _odd_file(name, lambda path: os.mkfifo(path))
        yield f"{name} links to a device", _odd_file(name, lambda path: path.symlink_to("/dev/zero"))
        yield f"{name} links to another file", _odd_file(name, lambda path: path.symlink_to("/etc/passwd"))
    for text in ('_target_ = "os.system"', '[model]\n__class__ = "os.system"', '[optimizer]\nname = "!!python/object"'):
        yield f"a recipe with {text!r}", _recipe(text)
    yield "a recipe that nests", _recipe("a = " + DEEP)
    yield "a recipe of one long key", _recipe(".".join("a" * 3000) + " = 1")
    for name in ("../out", "a/b", "..", "a\0b", "/out"):
        yield f"a run called {name!r}", _run_name(name)
    yield "an experiment that nests", _experiment(DEEP)
    yield "a manifest that leads out", _checkpoint
    yield "CIFAR with a payload", _cifar
    for name in ("../out.png", "/etc/passwd"):
        yield f"labels of {name}", _labels(name)


def _weights(suffix: str, content: Callable[[Path], bytes]) -> Attack:
    def attack(root: Path) -> tuple[Path, Action]:
        path = root / f"weights{suffix}"
        path.write_bytes(content(root))
        return path, lambda: load_weights(MODEL.build(SPEC), str(path), SPEC, frozen=False)

    return attack


def _import(suffix: str, content: Callable[[Path], bytes]) -> Attack:
    def attack(root: Path) -> tuple[Path, Action]:
        path = root / f"weights{suffix}"
        path.write_bytes(content(root))
        return path, lambda: import_weights(path, root / "imported")

    return attack


def _bundle(weights: Callable[[Path], bytes] | None = None, text: str = "", **changes: Any) -> Attack:
    """Return the attack of a bundle with other weights, another text or other fields, whose SHA-256 is right."""

    def attack(root: Path) -> tuple[Path, Action]:
        folder = good_bundle(root / "bundle")
        described = json.loads((folder / "bundle.json").read_text()) | changes
        if weights:
            (folder / "model.safetensors").write_bytes(weights(root))
            described["weights_sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        (folder / "bundle.json").write_text(text or json.dumps(described))
        return folder, lambda: read_bundle(folder).build()

    return attack


def _odd_file(name: str, make: Callable[[Path], None]) -> Attack:
    def attack(root: Path) -> tuple[Path, Action]:
        folder = good_bundle(root / "bundle")
        (folder / name).unlink()
        make(folder / name)
        return folder, lambda: read_bundle(folder)

    return attack


def _recipe(text: str) -> Attack:
    def attack(root: Path) -> tuple[Path, Action]:
        path = root / "recipe.toml"
        path.write_text(text)
        return path, lambda: compose(path, {}, [])

    return attack


def _run_name(name: str) -> Attack:
    request = Request(experiment=compose("", {}, []))
    return lambda root: (Path(name), lambda: open_run(request, name, root / "runs", new=False))


def _experiment(text: str) -> Attack:
    def attack(root: Path) -> tuple[Path, Action]:
        (root / "run").mkdir()
        (root / "run" / "experiment.json").write_text(text)
        return root / "run", lambda: find_run(root / "run").experiment

    return attack


def _checkpoint(root: Path) -> tuple[Path, Action]:
    """A checkpoint whose manifest vouches for a file outside and for none of its own."""
    folder = root / "run" / "checkpoints" / "00000001-0001"
    folder.mkdir(parents=True)
    (root / "run" / "outside").write_bytes(b"x")
    manifest = {"../../outside": hashlib.sha256(b"x").hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))

    def load() -> None:
        found, problems = load_newest(Run(root / "run"))
        if found is None and problems:
            raise read_refusal(problems[0])

    return folder, load


def read_refusal(text: str) -> Exception:
    from mixlab.errors import RunError

    return RunError(text)


def _cifar(root: Path) -> tuple[Path, Action]:
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (root / name).write_bytes(pickle.dumps({"data": Payload(root / "canary"), "labels": [0]}, protocol=2))
    return root / "data_batch_1", lambda: read_cifar(root, "cifar10")


def _labels(name: str) -> Attack:
    def attack(root: Path) -> tuple[Path, Action]:
        (root / "labels.csv").write_text(f"file,class\n{name},a\n")
        return root / "labels.csv", lambda: read_labels(root, "labels.csv")

    return attack


def _saved_by_torch(root: Path) -> bytes:
    torch.save({"a": Payload(root / "canary")}, root / "saved")
    return (root / "saved").read_bytes()


def _saved(value: object) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def _compressed(root: Path) -> bytes:
    content = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(_saved({"stem.0.weight": torch.zeros(1_000_000)}))) as plain,
        zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for part in plain.infolist():
            bomb.writestr(part.filename, plain.read(part))
    return content.getvalue()


def _expanded(root: Path) -> bytes:
    return _saved({"stem.0.weight": torch.zeros(1).expand(2**40)})


def _module(root: Path) -> bytes:
    return _saved(torch.nn.Linear(2, 2))


def _wide_kernel(root: Path) -> bytes:
    state = {"stem.0.weight": torch.zeros(4, 3, 1, 70_000), "blocks.0.depthwise.0.weight": torch.zeros(4, 1, 1, 70_000)}
    return safetensors.torch.save({**state, "classifier.weight": torch.zeros(2, 4)})


def _object_arrays(root: Path) -> bytes:
    np.savez(root / "arrays.npz", a=np.array([Payload(root / "canary")], dtype=object))
    return (root / "arrays.npz").read_bytes()


def _tensors(header: dict) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


def _spoilt(root: Path) -> bytes:
    state = safetensors.torch.load((root / "bundle" / "model.safetensors").read_bytes())
    return safetensors.torch.save(
        {name: tensor * float("nan") if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    )
