"""Sets of labelled images that answer a list of indices with a whole batch."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mixlab.data.decode import decode, open_decoded
from mixlab.data.pack import Identity, PackedPixels
from mixlab.data.resample import resize, resize_in_bands, square_region
from mixlab.data.slices import Slices
from mixlab.errors import UnreadableImage
from mixlab.spec import DataSpec

LARGE = 4_000_000  # pixels; a larger image is resized in parts, for as floats it is 12 bytes a pixel, several times


@dataclass(frozen=True, eq=False)
class Batch:
    """Images as they are stored (uint8, any square size) or as the network sees them (float32 in [0, 1])."""

    images: Tensor  # (batch, channels, height, width)
    labels: Tensor  # (batch,), int64
    indices: np.ndarray  # (batch,), of the images in their set; unreadable ones are left out
    whole: np.ndarray  # indices that were asked for; where ranks share a batch, by all of them
    places: np.ndarray  # (batch,), of the images in `whole`

    def to(self, device: torch.device) -> "Batch":
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def without_pixels(self) -> "Batch":
        return replace(self, images=self.images[:0].cpu().clone())

    def part_of(self, whole: np.ndarray, places: np.ndarray) -> "Batch":
        """Return it as a part of a larger batch.

        Args:
            places: of what was asked for, in the larger batch.
        """
        return replace(self, whole=whole, places=places[self.places])


@dataclass(frozen=True, eq=False)
class MemoryImages:
    """Images in one tensor, on any device."""

    images: Tensor  # (images, channels, height, width), uint8, or float32 in [0, 1]
    labels: np.ndarray  # (images,), int64
    names: tuple[str, ...]
    unreadable: dict[str, str] = field(default_factory=dict)  # name -> reason
    readable: np.ndarray | None = None  # (images,), bool; None: all are

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray) -> Batch:
        places = np.arange(len(indices)) if self.readable is None else np.flatnonzero(self.readable[indices])
        kept = indices[places]
        chosen = torch.from_numpy(kept).to(self.images.device)
        return Batch(self.images[chosen], torch.from_numpy(self.labels[kept]), kept, indices, places)

    def select(self, indices: np.ndarray) -> "MemoryImages":
        """Return the set of only these images, in this order."""
        names = tuple(self.names[index] for index in indices)
        return MemoryImages(self.images[torch.from_numpy(indices)], self.labels[indices], names)

    def to(self, device: torch.device) -> "MemoryImages":
        return MemoryImages(self.images.to(device), self.labels, self.names, self.unreadable, self.readable)


@dataclass(frozen=True, eq=False)
class FileImages:
    """Image files, each its own or inside shards, that are decoded when they are asked for."""

    root: Path
    names: tuple[str, ...]  # paths relative to root
    labels: np.ndarray  # (images,), int64
    spec: DataSpec
    canvas_size: int = 0  # side, in pixels, that uint8 images for training are stored at; 0: float32 as evaluated
    unreadable: dict[str, str] = field(default_factory=dict)  # name -> reason, as met so far in this process
    packed: PackedPixels | None = None  # decoded before; None: nothing is
    slices: Slices | None = None  # where the images lie in shards; None: each is a file of its own

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        size = self.canvas_size or self.spec.image_size
        return self.spec.channels, size, size

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8 if self.canvas_size else torch.float32

    @property
    def image_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def batch(self, indices: np.ndarray) -> Batch:
        images, kept = [], []
        for place, index in enumerate(indices.tolist()):
            try:
                images.append(self.read(index))
                kept.append(place)
            except UnreadableImage as error:
                self.unreadable[self.names[index]] = str(error)
        places = np.array(kept, dtype=np.int64)
        chosen = indices[places]
        pixels = torch.stack(images) if images else torch.zeros(0, *self.shape, dtype=self.dtype)
        return Batch(pixels, torch.from_numpy(self.labels[chosen]), chosen, indices, places)

    def select(self, indices: np.ndarray) -> "FileImages":
        """Return the set of only these images, in this order."""
        names = tuple(self.names[index] for index in indices)
        slices = None if self.slices is None else self.slices.select(indices)
        return FileImages(self.root, names, self.labels[indices], self.spec, self.canvas_size, slices=slices)

    def source(self, index: int) -> Path | bytes:
        """Return what an image is decoded from: its file, or its bytes in a shard; raises UnreadableImage."""
        return self.root / self.names[index] if self.slices is None else self.slices.read(index)

    def identity(self, index: int) -> Identity:
        """Return what changes when the file of an image does."""
        name = self.names[index]
        if self.slices is not None:
            return self.slices.identity(name, index)
        try:
            status = (self.root / name).stat()
        except OSError:
            return Identity(name, -1, 0, 0)
        return Identity(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def read(self, index: int) -> Tensor:
        """Return one image, as it is in a batch; raises UnreadableImage."""
        pixels = None if self.packed is None else self.packed.read(index)
        if pixels is not None:
            return torch.from_numpy(pixels)
        source = self.source(index)
        if self.canvas_size:
            return read_canvas(source, self.spec, self.canvas_size)
        return read_exact(source, self.spec)


Images = MemoryImages | FileImages


def read_exact(source: Path | bytes, spec: DataSpec) -> Tensor:
    """Decode one image to what the network sees, (channels, size, size), float32 in [0, 1].

    Raises:
        UnreadableImage: with the reason.
    """
    return fit(decode(source, spec.channels), spec)


def fit(pixels: np.ndarray, spec: DataSpec) -> Tensor:
    """Resize decoded pixels, uint8 (height, width, channels), to the network's input."""
    if pixels.shape[0] * pixels.shape[1] > LARGE:
        return resize_in_bands(torch.from_numpy(pixels), spec.image_size, spec.resize_mode, torch.tensor(spec.mean))
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    return resize(image, spec.image_size, spec.resize_mode, torch.tensor(spec.mean))[0]


def read_canvas(source: Path | bytes, spec: DataSpec, size: int) -> Tensor:
    """Decode one image for training, quickly, to (channels, size, size), uint8."""
    image = open_decoded(source, spec.channels, draft_size=size)
    resized = _padded(image, size, spec) if spec.resize_mode == "pad" else _cut(image, size, spec)
    return torch.from_numpy(np.array(resized).reshape(size, size, spec.channels)).permute(2, 0, 1)


def _cut(image: Image.Image, size: int, spec: DataSpec) -> Image.Image:
    top, left, height, width = square_region(image.height, image.width, spec.resize_mode)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))


def _padded(image: Image.Image, size: int, spec: DataSpec) -> Image.Image:
    """Resize a square of the longer side, filled with the mean, that has the image in its middle.

    The square itself would take memory for the longer side squared: that side, where nothing is added, shrinks first.
    """
    side = max(image.size)
    is_wide = image.width == side
    narrow = image.resize((size, image.height) if is_wide else (image.width, size), Image.Resampling.BILINEAR)
    fill = tuple(round(255 * value) for value in spec.mean)
    strip = Image.new(image.mode, (size, side) if is_wide else (side, size), fill if spec.channels == 3 else fill[0])
    strip.paste(narrow, (round((strip.width - narrow.width) / 2), round((strip.height - narrow.height) / 2)))
    return strip.resize((size, size), Image.Resampling.BILINEAR)
