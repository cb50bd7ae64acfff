"""V12: the same picture gets the same answer everywhere: evaluate, predict, an exported file, a server."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import torch
from torch import nn

from mixlab.data.decode import decode
from mixlab.data.images import FileImages
from mixlab.evaluation import inference
from mixlab.evaluation.classifier import Classifier, read_classifier
from mixlab.evaluation.networks import TorchNetwork
from mixlab.exporting.onnx_file import export_onnx
from mixlab.models.catalogue import parse_model
from mixlab.run.bundle import Bundle, BundleDescription, read_bundle, write_bundle
from mixlab.spec import DataSpec, ResizeMode
from torture import served
from torture.check import Check
from torture.pictures import photograph

IMAGES, BATCH, LIMIT = 500, 32, 1e-4
MODELS = (
    {"name": "convmixer", "dim": 32, "depth": 3, "kernel_size": 5},
    {"name": "vit", "dim": 32, "depth": 2, "heads": 2, "patch_size": 4},
    {"name": "convmixer", "dim": 16, "depth": 2, "kernel_size": 4, "patch_size": 3, "patch_stride": 2},
    {"name": "mlp_mixer", "dim": 32, "depth": 2, "patch_size": 4},
    {"name": "resnet9", "width": 8},
    {"name": "resnet", "width": 8, "stages": (1, 1)},
)
MODES: tuple[ResizeMode, ...] = ("crop", "pad", "squash")


def case(number: int, root: Path) -> str:
    """Answer 500 files of many sizes with one network, alone and in batches."""
    bundle = _bundle(root / "bundle", number)
    spec = bundle.description.spec
    export_onnx(root / "model.onnx", bundle)
    names = _pictures(root / "pictures", np.random.default_rng(number))
    files = FileImages(root / "pictures", names, np.zeros(len(names), np.int64), spec)
    expected = inference.collect(inference.iterate(bundle.build(), files, spec, torch.device("cpu"))).logits
    pixels = [decode(files.source(index), spec.channels) for index in range(len(files))]
    ways = {
        "predict": partial(_logits, read_classifier(root / "bundle", "cpu"), pixels),
        "ONNX Runtime": partial(_logits, read_classifier(root / "model.onnx"), pixels),
    }
    return (
        _first_problem(expected, ways)
        or _over_http(root / "bundle", root, expected, files, bundle.description)
        or _over_http(root / "model.onnx", root, expected, files, bundle.description)
    )


def _first_problem(expected: np.ndarray, ways: dict[str, Callable[[int], np.ndarray]]) -> str:
    for what, logits in ways.items():
        for size in (1, BATCH):
            problem = _differs(expected, logits(size))
            if problem:
                return f"{what}, {size} at once: {problem}"
    return ""


def _over_http(model: Path, root: Path, expected: np.ndarray, files: FileImages, description: BundleDescription) -> str:
    server = served.serve(model, root)
    try:
        return _first_problem(
            expected - expected.mean(1, keepdims=True),
            {f"HTTP, {model.name}": partial(_asked, server.port, files, description)},
        )
    finally:
        server.process.end()


def _asked(port: int, files: FileImages, description: BundleDescription, size: int) -> np.ndarray:
    """Return what a server's probabilities say of the logits: all but their mean."""
    classes, rows = description.spec.classes, []
    contents = [(files.root / name).read_bytes() for name in files.names]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=served.SECONDS) as client:
        for start in range(0, len(contents), size):
            parts = [("file", ("picture", content)) for content in contents[start : start + size]]
            for answer in client.post(f"/predict?top={len(classes)}", files=parts).json()["answers"]:
                share = {each["class"]: each["probability"] for each in answer["top"]}
                rows.append([share[name] for name in classes])
    logits = np.log(np.array(rows)) * description.temperature
    return logits - logits.mean(1, keepdims=True)


def _logits(classifier: Classifier, pixels: list[np.ndarray], size: int) -> np.ndarray:
    parts = [classifier.network.logits(pixels[start : start + size]) for start in range(0, len(pixels), size)]
    return np.concatenate(parts)


def _differs(expected: np.ndarray, found: np.ndarray) -> str:
    best, other, rows = expected.argmax(1), found.argmax(1), np.arange(len(expected))
    misses = int((expected[rows, best] - expected[rows, other] >= LIMIT).sum())
    largest = float(np.abs(expected - found).max())
    if misses or not largest <= LIMIT:
        return f"{misses} of {len(expected)} get another class, logits differ by up to {largest:.1e}"
    return ""


def _bundle(folder: Path, number: int) -> Bundle:
    """Write a network with the answers of a trained one: spread over its classes, logits of about 10."""
    torch.default_generator.manual_seed(number)
    grey = number % 2 == 1
    spec = DataSpec(
        channels=1 if grey else 3,
        image_size=24,
        classes=tuple("abcde"),
        mean=(0.45,) if grey else (0.5, 0.45, 0.4),
        std=(0.2,) if grey else (0.2, 0.25, 0.3),
        resize_mode=MODES[number % 3],
    )
    config = parse_model(MODELS[number % len(MODELS)])
    network = config.build(spec)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias, std=0.3)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    bundle = Bundle(BundleDescription(mixlab="", model=config, spec=spec, temperature=1.5), network.state_dict())
    scale = 10 / max(_spread(TorchNetwork(bundle, "cpu"), spec), 1e-3)
    state = {name: tensor * scale if name.startswith("classifier") else tensor for name, tensor in bundle.state.items()}
    write_bundle(folder, Bundle(bundle.description, state), "")
    return read_bundle(folder)


def _spread(network: TorchNetwork, spec: DataSpec) -> float:
    pictures = np.random.default_rng(0).integers(0, 256, (8, 30, 30, spec.channels), dtype=np.uint8)
    return float(np.abs(network.logits(list(pictures))).max())


def _pictures(folder: Path, generator: np.random.Generator) -> tuple[str, ...]:
    """Write files of 20 sizes, from one pixel wide to four times the input."""
    folder.mkdir()
    sizes = [(1, 1), (1, 60), (60, 1), (24, 24), *generator.integers(2, 100, (16, 2)).tolist()]
    names = tuple(f"{index}.{'jpg' if index % 3 else 'png'}" for index in range(IMAGES))
    for index, name in enumerate(names):
        photograph(index, *sizes[index % len(sizes)]).save(folder / name)
    return names


CHECKS = [
    Check(
        name="V12",
        claim="500 pictures get the same class and logits within 1e-4 from evaluate, predict, ONNX Runtime and HTTP, "
        "alone and in batches",
        case=case,
        full=len(MODELS),
        sample=1,
    )
]
