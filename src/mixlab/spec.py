"""What data tells models: channels, size, classes and normalisation."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixlab.config import Config

ResizeMode = Literal["crop", "pad", "squash"]


class DataSpec(Config):
    """All that a model, an export or a server needs to know of the data it was trained on."""

    channels: Literal[1, 3] = 3
    image_size: Annotated[int, Field(ge=1, le=4096)]  # side of the square input, pixels
    classes: Annotated[tuple[str, ...], Field(min_length=1)]  # names, in the order of the logits
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]  # per channel, of pixels in [0, 1]
    resize_mode: ResizeMode = "crop"  # how an image that is not square becomes square

    @model_validator(mode="after")
    def _one_number_per_channel(self) -> "DataSpec":
        if not len(self.mean) == len(self.std) == self.channels:
            given = f"{len(self.mean)} means and {len(self.std)} stds"
            raise ValueError(f"{self.channels} channels need one mean and one std each, not {given}")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have the same name")
        if min(self.std) <= 0:
            raise ValueError("every std must be above 0")
        if not all(0 <= mean <= 1 for mean in self.mean):
            raise ValueError("means are those of pixels in [0, 1]; divide by 255")
        return self

    @property
    def num_classes(self) -> int:
        return len(self.classes)
