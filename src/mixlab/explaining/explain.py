"""Pictures of what the network of a finished run sees, written into its folder."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mixlab import durable
from mixlab.data.images import read_exact
from mixlab.errors import DataError, UnreadableImage
from mixlab.evaluation import explanation, inference
from mixlab.evaluation import explanation_pictures as pictures
from mixlab.evaluation.classifier import Classifier
from mixlab.evaluation.networks import TorchNetwork
from mixlab.run import own_data
from mixlab.run.bundle import read_bundle
from mixlab.run.folder import Run
from mixlab.spec import DataSpec

EXAMPLES = 8  # validation images shown where no pictures are given
TOP = 3  # classes named for each picture
LONGEST_NAME = 150  # bytes of a picture's name in the names of files, of 255 that there may be


@dataclass(frozen=True)
class Explanation:
    """What was drawn, and the folder that holds it."""

    folder: Path
    files: dict[str, str] = field(default_factory=dict)  # name in the folder -> what it shows
    skipped: dict[str, str] = field(default_factory=dict)  # name -> why there is no such file
    pictures: list[dict[str, Any]] = field(default_factory=list)  # what the network says of each picture
    unreadable: dict[str, str] = field(default_factory=dict)  # picture -> reason

    def as_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "files": self.files,
            "skipped": self.skipped,
            "pictures": self.pictures,
            "unreadable": self.unreadable,
        }


@dataclass(frozen=True, eq=False)
class Picture:
    """One image as the network sees it."""

    name: str
    image: Tensor  # (channels, side, side), float32 in [0, 1]
    true_class: str = ""  # "": not known


def explain(run: Run, sources: Sequence[tuple[str, Path | bytes]] = (), device: str = "auto") -> Explanation:
    """Draw the weights of a finished run, and where and how it sees pictures; explain.json lists the files.

    Args:
        sources: names of pictures, and their files or bytes; none: 8 validation images, spread over the classes.

    Raises:
        RunError: where the run is not finished or damaged.
        DataError: where the data cannot be read, or kept no validation images.
    """
    bundle = read_bundle(run)
    network = TorchNetwork(bundle, device)
    classifier = Classifier(bundle.description, network)
    spec, unreadable = classifier.spec, dict[str, str]()
    shown = _given(sources, spec, unreadable) if sources else _examples(run, spec, unreadable)
    found = Explanation(run.explanation, unreadable=unreadable)
    _draw_weights(found, network.model)
    taken: set[str] = set()
    for picture in shown:
        _draw_picture(found, classifier, network, picture, file_name(picture.name, taken))
    durable.write_json(found.folder / "explain.json", found.as_json())
    return found


def spread(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the places of at most `count` images: the first of each class, then the second of each, and so on.

    Where there are more classes than that, they are spread evenly over the classes.
    """
    ordered = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[ordered], labels[ordered])
    turn = np.arange(len(labels)) - starts  # 0 for the first image of a class, 1 for its second, ...
    firsts = ordered[turn == 0]
    if len(firsts) > count:
        return firsts[np.linspace(0, len(firsts) - 1, count).round().astype(np.int64)]
    return ordered[np.argsort(turn, kind="stable")][:count]


def file_name(name: str, taken: set[str]) -> str:
    """Return a picture's name as part of a file's name, unlike all in `taken`, where it is noted."""
    words = re.sub(r"[^\w.-]+", "-", Path(name).stem).strip("-.")
    stem = words.encode("utf-8", "ignore")[-LONGEST_NAME:].decode("utf-8", "ignore") or "picture"
    number, unique = 1, stem
    while unique.lower() in taken:  # some file systems take upper and lower case for the same
        number += 1
        unique = f"{stem}-{number}"
    taken.add(unique.lower())
    return unique


def _given(
    sources: Iterable[tuple[str, Path | bytes]], spec: DataSpec, unreadable: dict[str, str]
) -> Iterator[Picture]:
    for name, source in sources:
        try:
            yield Picture(name, read_exact(source, spec))
        except UnreadableImage as error:
            unreadable[name] = str(error)


def _examples(run: Run, spec: DataSpec, unreadable: dict[str, str]) -> Iterator[Picture]:
    data = own_data.load(run)
    if len(data.validation) == 0:
        raise DataError("this run kept no validation images; name pictures: mixlab explain RUN PICTURES")
    batch = data.validation.batch(spread(data.validation.labels, EXAMPLES))
    unreadable.update(data.validation.unreadable)
    names = [data.validation.names[index] for index in batch.indices]
    labels = [data.spec.classes[label] for label in batch.labels.tolist()]
    images = inference.as_input(batch.images, spec)
    return map(Picture, names, images, labels)


def _draw_weights(found: Explanation, model: nn.Module) -> None:
    filters = explanation.patch_filters(model)
    if filters is None:
        found.skipped["patch_filters.png"] = "the first layer reads single pixels"
    else:
        pictures.patch_filters(found.folder / "patch_filters.png", filters)
        found.files["patch_filters.png"] = "the weights that read pixels first"
    kernels = explanation.depthwise_kernels(model)
    if not kernels:
        found.skipped["depthwise_kernels.png"] = "this model has no depthwise convolution"
        return
    pictures.depthwise_kernels(found.folder / "depthwise_kernels.png", kernels)
    found.files["depthwise_kernels.png"] = "kernels of each depthwise convolution, the first layer on top"


def _draw_picture(
    found: Explanation, classifier: Classifier, network: TorchNetwork, picture: Picture, name: str
) -> None:
    model, shown = network.model, inference.as_pixels(picture.image[None])[0]
    [answer] = classifier.answers(network.of_inputs(picture.image[None]))
    predicted = int(answer.probabilities.argmax())
    kind = explanation.heat_map_kind(model)
    heat = explanation.heat_maps(model, picture.image[None], [predicted])[0]
    title = f"{picture.name} (true class: {picture.true_class})" if picture.true_class else picture.name
    files = {"heat": f"heat_{name}.png", "feature_maps": f"feature_maps_{name}.png"}
    pictures.heat_map(found.folder / files["heat"], shown, heat, answer.top(TOP), kind, title)
    maps = explanation.feature_maps(model, picture.image)
    pictures.feature_maps(found.folder / files["feature_maps"], shown, maps, picture.name)
    found.files[files["heat"]] = f"{kind} on {picture.name}"
    found.files[files["feature_maps"]] = f"stem and blocks on {picture.name}"
    top = [{"class": label, "probability": share} for label, share in answer.top(TOP)]
    known = {"class": picture.true_class} if picture.true_class else {}
    found.pictures.append({"picture": picture.name, **known, "top": top, **files})
