"""The union of all data sets, and how they are split.

Splits are train, validation and test. The test images are the data set's own second part, or carved once for all
seeds; validation is carved from the training images by seed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from mixlab import randomness
from mixlab.config import Config
from mixlab.data import cifar, folder
from mixlab.data.data_set import DataSet
from mixlab.data.downloads import IMAGENETTE_CLASSES, place
from mixlab.data.images import FileImages, Images, MemoryImages
from mixlab.data.names import expand
from mixlab.data.shard_places import root_of
from mixlab.data.shards import list_shards
from mixlab.data.splits import carve
from mixlab.errors import DataError, UsageError, did_you_mean
from mixlab.places import expand_user
from mixlab.spec import DataSpec, ResizeMode

ImageSize = Annotated[int, Field(ge=1, le=4096)]
Share = Annotated[float, Field(gt=0, lt=1)]
Statistics = tuple[float, ...]

STATISTICS: dict[str, tuple[Statistics, Statistics]] = {
    "digits": ((0.3053,), (0.3764,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "pictures": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # of ImageNet
    "grayscale pictures": ((0.449,), (0.226,)),
}
TEST_SEED = 0  # of carved test sets, which stay the same for every seed of an experiment


class DigitsConfig(Config):
    """1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998), from scikit-learn."""

    channels: ClassVar[int] = 1
    name: Literal["digits"] = "digits"
    image_size: ImageSize = 8  # pixels; 8 is the size they are stored in
    validation_fraction: Share = 0.1  # of the training images
    mean: Statistics = ()  # of pixels in [0, 1]; empty: the known numbers
    std: Statistics = ()

    @property
    def label(self) -> str:
        """What runs and cards call the data."""
        return self.name

    def load(self, seed: int, carve_validation: bool) -> DataSet:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise DataError("digits come with scikit-learn: pip install 'mixlab[digits]'") from None
        found: Any = load_digits()
        pixels = torch.from_numpy((found.images * (255 / 16)).round().astype(np.uint8))[:, None]
        labels = found.target.astype(np.int64)
        everything = MemoryImages(pixels, labels, tuple(f"digit-{index:04d}" for index in range(len(labels))))
        test, rest = carve(labels, [0.2], randomness.generator(TEST_SEED, "test"))
        spec = _spec(self, tuple(str(name) for name in found.target_names))
        return _split(spec, everything.select(rest), everything.select(test), self, seed, carve_validation)


class CifarConfig(Config):
    """CIFAR-10 or CIFAR-100 (Krizhevsky, 2009): 50,000 + 10,000 photographs of 32 x 32 pixels."""

    channels: ClassVar[int] = 3
    name: Literal["cifar10", "cifar100"] = "cifar10"
    path: str = ""  # folder that holds the official binary or pickled layout; "": the data home
    image_size: ImageSize = 32  # pixels; 32 is the size they are stored in
    validation_fraction: Share = 0.1  # of the training images
    mean: Statistics = ()  # per channel, of pixels in [0, 1]; empty: the published numbers
    std: Statistics = ()

    @property
    def label(self) -> str:
        """What runs and cards call the data."""
        return self.name

    def load(self, seed: int, carve_validation: bool) -> DataSet:
        home = place(self.name, self.path)
        found = cifar.read_cifar(home, self.name)
        train = MemoryImages(torch.from_numpy(found.train_images), found.train_labels, found.train_names)
        test = MemoryImages(torch.from_numpy(found.test_images), found.test_labels, found.test_names)
        return _split(_spec(self, found.classes), train, test, self, seed, carve_validation)


@dataclass(frozen=True, eq=False)
class Parts:
    """Picture files in the splits that they came in, as evaluation takes them; nothing is carved yet."""

    spec: DataSpec
    train: FileImages
    validation: FileImages
    test: FileImages
    ignored: int
    empty_classes: tuple[str, ...]
    hidden: tuple[str, ...] = ()


class PicturesConfig(Config):
    """What folders of picture files and shards of them share; each says in `parts` what lies there."""

    path: str = "."
    image_size: ImageSize = 64  # side of the network's square input, pixels
    resize_mode: ResizeMode = "crop"  # how an image that is not square becomes square
    canvas_scale: Annotated[float, Field(ge=1)] = 1.0  # training images are stored this much larger than image_size
    validation_fraction: Share = 0.15  # of the training images, or of all where the test images are carved too
    test_fraction: Share = 0.15  # of all images, where the data has no second part
    rename: dict[str, str] = {}  # name of a class's folder -> name of the class; Imagenette's are known
    ignore_unknown_classes: bool = False  # leave out images of classes that the training images do not have
    grayscale: bool = False
    mean: Statistics = ()  # per channel, of pixels in [0, 1]; empty: those of ImageNet
    std: Statistics = ()

    @property
    def label(self) -> str:
        """What runs and cards call the data."""
        name = root_of(expand_user(self.path).resolve()).name
        return os.fsencode(name).decode("utf-8", "backslashreplace")

    @property
    def channels(self) -> int:
        return 1 if self.grayscale else 3

    def parts(self) -> Parts:
        """Return what is there; raises DataError."""
        raise NotImplementedError

    def load_whole(self) -> DataSet:
        """Load data without parts as one test set; one with parts as it is."""
        found = self.parts()
        if len(found.test):
            return self._carved(found, seed=0, carve_validation=False)
        nothing = found.train.select(np.arange(0))
        return DataSet(found.spec, nothing, nothing, found.train, found.ignored, found.empty_classes, found.hidden)

    def load(self, seed: int, carve_validation: bool) -> DataSet:
        return self._carved(self.parts(), seed, carve_validation)

    def _carved(self, found: Parts, seed: int, carve_validation: bool) -> DataSet:
        data = self._split(found, seed, carve_validation)
        return replace(data, ignored=found.ignored, empty_classes=found.empty_classes, hidden=found.hidden)

    def _split(self, found: Parts, seed: int, carve_validation: bool) -> DataSet:
        spec, canvas = found.spec, round(found.spec.image_size * self.canvas_scale)
        train = replace(found.train, canvas_size=canvas)
        if len(found.validation):
            validation = found.validation if carve_validation else found.validation.select(np.arange(0))
            return DataSet(spec, train, validation, found.test)
        if len(found.test):
            return _split(spec, train, found.test, self, seed, carve_validation)
        carved, rest = carve(train.labels, [self.test_fraction], randomness.generator(TEST_SEED, "test"))
        test = _select_files(train, carved, 0)
        share = min(self.validation_fraction / (1 - self.test_fraction), 0.5)
        config = self.model_copy(update={"validation_fraction": share})
        return _split(spec, _select_files(train, rest, canvas), test, config, seed, carve_validation)

    def _spec_of(self, classes: Sequence[str]) -> DataSpec:
        unknown = [name for name in self.rename if name not in classes]
        if unknown:
            raise UsageError(f"data.rename: there is no class {unknown[0]!r}{did_you_mean(unknown[0], classes)}")
        known = IMAGENETTE_CLASSES if set(classes) <= set(IMAGENETTE_CLASSES) else {}
        names = known | self.rename
        return _spec(self, tuple(names.get(name, name) for name in classes))


class FolderConfig(PicturesConfig):
    """Image files, in one folder per class, with or without train, validation and test folders, or listed in a CSV."""

    name: Literal["folder"] = "folder"
    labels_csv: str = ""  # file with the columns file, class (and split), instead of folders of classes

    def listing(self) -> tuple[Path, folder.FolderListing]:
        """Return the folder and what is in it; raises DataError."""
        root = place("folder", self.path)
        return root, folder.scan(root, self.labels_csv, self.ignore_unknown_classes)

    def parts(self) -> Parts:
        root, listing = self.listing()
        spec = self._spec_of(listing.classes)
        train, validation, test = (_files(root, listed, spec) for listed in listing.splits.values())
        return Parts(spec, train, validation, test, listing.ignored, listing.empty_classes, listing.hidden)


class ShardsConfig(PicturesConfig):
    """Picture files in tar shards as WebDataset lays them out: a folder of them, one, or a list like {00..63}.tar."""

    name: Literal["shards"] = "shards"

    def parts(self) -> Parts:
        home = expand_user(self.path)
        listing = list_shards(home, self.ignore_unknown_classes)
        spec, root = self._spec_of(listing.classes), root_of(home)
        found = {
            split: FileImages(root, part.names, part.labels, spec, slices=part.slices)
            for split, part in listing.parts.items()
        }
        nothing = found["train"].select(np.arange(0))
        validation, test = found.get("validation", nothing), found.get("test", nothing)
        return Parts(spec, found["train"], validation, test, listing.ignored, listing.empty_classes)


DataConfig = Annotated[DigitsConfig | CifarConfig | FolderConfig | ShardsConfig, Field(discriminator="name")]


def foreign(config: DataConfig) -> DataSet:
    """Load data that nothing was trained on: what would be carved for training and validation is test data too."""
    if isinstance(config, PicturesConfig):
        return config.load_whole()
    return config.load(seed=0, carve_validation=False)


def check_outside(config: DataConfig, results: Path) -> None:
    """Raise UsageError where results would be written among pictures, and be pictures of the next training."""
    if not isinstance(config, PicturesConfig):
        return
    place = expand_user(config.path)
    root = (root_of(place) if isinstance(config, ShardsConfig) else place).resolve()
    if root.is_dir() and results.resolve().is_relative_to(root):
        raise UsageError(
            f"{results} lies in the data's folder {root}, where nothing is written; choose another with --out"
        )


def parse_data(data: Any) -> DataConfig:
    """Return the config of a data set's name, a folder's path, or a table; raises DataError or UsageError."""
    fields = expand(data)
    kinds: dict[str, type[DataConfig]] = {
        "digits": DigitsConfig,
        "cifar10": CifarConfig,
        "cifar100": CifarConfig,
        "folder": FolderConfig,
        "shards": ShardsConfig,
    }
    return kinds[fields["name"]].parse(fields)


def _spec(config: DigitsConfig | CifarConfig | PicturesConfig, classes: tuple[str, ...]) -> DataSpec:
    pictures = isinstance(config, PicturesConfig)
    channels = config.channels
    usual = ("grayscale pictures" if channels == 1 else "pictures") if pictures else config.name
    mean, std = STATISTICS[usual]
    values = {
        "channels": channels,
        "image_size": config.image_size,
        "classes": classes,
        "mean": config.mean or mean,
        "std": config.std or std,
        "resize_mode": config.resize_mode if pictures else "crop",
    }
    return DataSpec.parse(values)


def _split(
    spec: DataSpec,
    train: Images,
    test: Images,
    config: DigitsConfig | CifarConfig | PicturesConfig,
    seed: int,
    carve_validation: bool,
) -> DataSet:
    carved, rest = np.arange(0), np.arange(len(train))
    if carve_validation:
        generator = randomness.generator(seed, "validation")
        carved, rest = carve(train.labels, [config.validation_fraction], generator)
    if isinstance(train, MemoryImages):
        return DataSet(spec, train.select(rest), train.select(carved), test)
    return DataSet(spec, _select_files(train, rest, train.canvas_size), _select_files(train, carved, 0), test)


def _files(root: Path, listed: Sequence[tuple[str, int]], spec: DataSpec) -> FileImages:
    labels = np.array([label for _, label in listed], dtype=np.int64)
    return FileImages(root, tuple(name for name, _ in listed), labels, spec)


def _select_files(images: FileImages, indices: np.ndarray, canvas_size: int) -> FileImages:
    return replace(images.select(indices), canvas_size=canvas_size)
