"""What can happen to a training image, and how strongly."""

from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, model_validator

from mixlab.config import Config
from mixlab.data.rand_augment import RandAugmentConfig

Probability = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the first number must not be above the second, got {pair[0]} and {pair[1]}")
    return pair


Range = Annotated[Pair, AfterValidator(_ascending)]
Area = Annotated[tuple[Probability, Probability], AfterValidator(_ascending)]


class ResizedCropConfig(Config):
    """A region of random area and shape, resized to the input (Szegedy et al., 2015)."""

    scale: Area = (1.0, 1.0)  # area of the region, as a share of the image
    ratio: Range = (1.0, 1.0)  # width over height; drawn uniformly in its logarithm


class PadCropConfig(Config):
    """A shift by whole pixels in each direction: padding, then a random crop of the old size."""

    padding: NonNegativeInt = 0  # pixels of the input


class FlipConfig(Config):
    probability: Probability = 0.0
    alternating: bool = False  # an image flipped in one epoch is not in the next (Jordan, 2024); the first is drawn

    @model_validator(mode="after")
    def _some_first(self) -> "FlipConfig":
        if self.alternating and not 0 < self.probability < 1:
            raise ValueError(f"alternating needs a probability between 0 and 1, such as 0.5, not {self.probability:g}")
        return self


class ZoomConfig(Config):
    """Height and width of what is read, scaled about its middle by factors of their own from [1 - x, 1 + x]."""

    amount: Probability = 0.0


class RotationConfig(Config):
    """A turn about the centre, either way."""

    turns: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # largest angle, in whole turns


class ColorJitterConfig(Config):
    """Brightness, then contrast, then saturation, each scaled by a factor from [1 - x, 1 + x]."""

    brightness: Probability = 0.0
    contrast: Probability = 0.0
    saturation: Probability = 0.0


class GrayscaleConfig(Config):
    """The luma in every channel."""

    probability: Probability = 0.0


class RandomErasingConfig(Config):
    """A random rectangle filled with the mean (Zhong et al., 2020)."""

    probability: Probability = 0.0
    scale: Area = (0.02, 0.33)  # area of the rectangle, as a share of the image
    ratio: Range = (0.3, 3.3)  # width over height


class CoarseDropoutConfig(Config):
    """One square hole in every image, filled with the mean (DeVries and Taylor, 2017, who let it cross the border)."""

    size: Probability = 0.0  # side of the hole, as a share of the image's side


class MixConfig(Config):
    """Mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019); with both on, a coin decides for each image.

    The partner of an image is the one before it in its batch.
    """

    mixup: NonNegativeFloat = 0.0  # alpha of the Beta distribution of the image's own share; 0: off
    cutmix: NonNegativeFloat = 0.0  # alpha of the Beta distribution of the share that is kept; 0: off
    probability: Probability = 1.0  # of mixing an image at all

    @property
    def is_on(self) -> bool:
        return bool(self.mixup or self.cutmix)


class AugmentationConfig(Config):
    """Everything that happens to a training image, in the order in which it happens; all off by default."""

    resized_crop: ResizedCropConfig = ResizedCropConfig()
    pad_crop: PadCropConfig = PadCropConfig()
    horizontal_flip: FlipConfig = FlipConfig()
    vertical_flip: FlipConfig = FlipConfig()
    zoom: ZoomConfig = ZoomConfig()
    rotation: RotationConfig = RotationConfig()
    rand_augment: RandAugmentConfig = RandAugmentConfig()
    color_jitter: ColorJitterConfig = ColorJitterConfig()
    random_grayscale: GrayscaleConfig = GrayscaleConfig()
    random_erasing: RandomErasingConfig = RandomErasingConfig()
    coarse_dropout: CoarseDropoutConfig = CoarseDropoutConfig()
    mix: MixConfig = MixConfig()
