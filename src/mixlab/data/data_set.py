"""A data set: its three splits, and what tells it from any other."""

import hashlib
from dataclasses import dataclass

from mixlab.data.images import FileImages, Images, MemoryImages
from mixlab.errors import DataError, UsageError, did_you_mean
from mixlab.spec import DataSpec


@dataclass(frozen=True)
class DataSet:
    """The three splits of a data set."""

    spec: DataSpec
    train: Images
    validation: Images  # empty where nothing was carved
    test: Images
    ignored: int = 0  # files that are by their names no images, or of no training class
    empty_classes: tuple[str, ...] = ()  # folders of training classes without images, which are left out
    hidden: tuple[str, ...] = ()  # folders with images that are left out because their names begin with a dot

    @property
    def splits(self) -> dict[str, Images]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def notes(self) -> list[str]:
        """What the reader should know."""
        said = {
            f"classes without images are left out: {', '.join(self.empty_classes)}": self.empty_classes,
            f"hidden folders are left out, though they hold images: {', '.join(self.hidden)}": self.hidden,
            f"{self.ignored} files are left out: by their names no images, or of no training class": self.ignored,
        }
        return [note for note, is_so in said.items() if is_so]

    def split(self, name: str) -> Images:
        """Return one split by name.

        Raises:
            UsageError: for a name that is no split.
            DataError: for a split without images.
        """
        if name not in self.splits:
            known = did_you_mean(name, self.splits) or "; splits are train, validation, test"
            raise UsageError(f"unknown split {name!r}{known}")
        if len(self.splits[name]) == 0:
            raise DataError(f"this data set has no {name} images; choose another split")
        return self.splits[name]

    def fingerprint(self) -> str:
        """Return a SHA-256 over name, label and pixels (in memory) or size (of a file) of every image.

        Validation images count as training images, so it is the same for every seed.
        """
        digest = hashlib.sha256()
        for part in ((self.train, self.validation), (self.test,)):
            rows = sorted(row for images in part for row in _rows(images))
            digest.update(b"\n".join(rows) + b"\n\n")
        return digest.hexdigest()

    def files(self) -> dict[str, list[str | int]]:
        """Return class, size and both times (see `Identity`) of each file; nothing of images that are in memory."""
        return {
            name: [self.spec.classes[label], *images.identity(index)[1:]]
            for images in self.splits.values()
            if isinstance(images, FileImages)
            for index, (name, label) in enumerate(zip(images.names, images.labels, strict=True))
        }


def _rows(images: Images) -> list[bytes]:
    """Return one line for each image, from which any change of it can be seen."""
    if isinstance(images, MemoryImages):
        contents = [hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in images.images.cpu().numpy()]
    else:
        contents = [images.identity(index).size for index in range(len(images))]
    lines = zip(images.names, images.labels.tolist(), contents, strict=True)
    return [f"{name}\t{label}\t{content}".encode("utf-8", "surrogateescape") for name, label, content in lines]
