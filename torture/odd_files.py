"""D1: odd files get the same verdict and the same pixels wherever mixlab reads them.

The table of `odd_pictures` says what each file is: pixels, or a reason. Asked are the one decode, training's reading
(whole batches, for a canvas), evaluation's (exact), predict's (a classifier, over the files that the command line
finds), and the server's of what can be sent to it.
"""

import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mixlab.cli.predict import find_pictures
from mixlab.data.decode import decode, inspect
from mixlab.data.images import FileImages, fit
from mixlab.errors import UnreadableImage
from mixlab.evaluation.classifier import Classifier
from mixlab.evaluation.networks import TorchNetwork
from mixlab.models.catalogue import parse_model
from mixlab.run.bundle import Bundle, BundleDescription
from mixlab.serving.model import ServedModel
from mixlab.spec import DataSpec
from torture.check import Check
from torture.odd_pictures import Odd, put, table

SIDE = 16
SPEC = DataSpec(image_size=SIDE, classes=("a", "b"), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), resize_mode="squash")
FILES = 79


def case(number: int, root: Path) -> str:
    """Ask every reader about one file."""
    if len(table()) != FILES:
        return f"the table has {len(table())} files, not {FILES}"
    odd, path = table()[number], root / "odd.jpg"
    put(odd, path)
    verdicts = {
        "decode": _decoded(path),
        "train": _batched(root, canvas_size=SIDE),
        "evaluate": _batched(root, canvas_size=0),
        "predict": _predicted(root),
    }
    if odd.data is not None:
        verdicts["serve"] = _served(odd.data)
    for reader, verdict in verdicts.items():
        problem = _judge(odd, verdict) if reader == "decode" else _same(verdicts["decode"], verdict)
        if problem:
            return f"{odd.name}: {reader} {problem}"
    if odd.pixels is None:
        return ""
    return _compare_pixels(path, odd.pixels)


def _decoded(path: Path) -> str:
    try:
        decode(path)
    except UnreadableImage as error:
        return str(error)
    return ""


def _batched(root: Path, canvas_size: int) -> str:
    images = FileImages(root, ("odd.jpg",), np.zeros(1, np.int64), SPEC, canvas_size)
    batch = images.batch(np.arange(1))
    return "" if len(batch.indices) else images.unreadable.get("odd.jpg", "left out without a reason")


def _predicted(root: Path) -> str:
    pictures = [picture for _, picture in find_pictures([str(root)])[0]]
    answers = [answer for _, answer in _classifier().stream(pictures)]
    if len(answers) != 1:
        return f"{len(answers)} answers"
    return str(answers[0]) if isinstance(answers[0], UnreadableImage) else ""


def _served(data: bytes) -> str:
    try:
        ServedModel(_classifier(), "").prepare(data)
    except UnreadableImage as error:
        return str(error)
    return ""


@functools.cache
def _classifier() -> Classifier:
    torch.default_generator.manual_seed(0)
    model = parse_model({"name": "convmixer", "dim": 8, "depth": 1})
    described = BundleDescription(mixlab="", model=model, spec=SPEC)
    return Classifier(described, TorchNetwork(Bundle(described, model.build(SPEC).state_dict()), "cpu"))


def _judge(odd: Odd, verdict: str) -> str:
    if odd.pixels is not None:
        return f"refuses it: {verdict}" if verdict else ""
    if not verdict or "\n" in verdict or odd.reason not in verdict:
        return f"says {verdict!r}, not {odd.reason!r}"
    return ""


def _same(expected: str, verdict: str) -> str:
    return "" if verdict == expected else f"says {verdict!r}, decode {expected!r}"


def _compare_pixels(path: Path, reference: np.ndarray) -> str:
    """Compare the pixels of every reader with the reference; resized ones with the reference resized."""
    height, width = reference.shape[:2]
    if inspect(path) != (width, height):
        return f"inspect says {inspect(path)}, not {(width, height)}"
    root, whole = path.parent, reference.round().astype(np.uint8)
    canvas = FileImages(root, (path.name,), np.zeros(1, np.int64), SPEC, SIDE).batch(np.arange(1)).images[0]
    served = ServedModel(_classifier(), "").prepare(path.read_bytes()).values
    exact = FileImages(root, (path.name,), np.zeros(1, np.int64), SPEC).batch(np.arange(1)).images[0]
    resized = np.asarray(Image.fromarray(whole).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    luma = reference @ [0.299, 0.587, 0.114]
    for reader, found, expected in (
        ("decode", decode(path), reference),
        ("grey", decode(path, channels=1)[:, :, 0], luma),
        ("train", canvas.permute(1, 2, 0).numpy(), resized),
        ("evaluate", exact.numpy() * 255, fit(whole, SPEC).numpy() * 255),
        ("serve", served.numpy() * 255, fit(whole, SPEC).numpy() * 255),
    ):
        if found.shape != expected.shape or np.abs(found.astype(float) - expected).max() > 2.001:
            return f"{reader} has other pixels"
    return ""


CHECKS = [
    Check(
        name="D1",
        claim="an odd file has the table's pixels, within 2, or its refusal; so in train, evaluate, predict and serve",
        case=case,
        full=FILES,
        sample=FILES,
        quick=FILES,
    )
]
