"""The union of all architectures, and the published sizes by the field's names."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from torch import nn

from mixlab.errors import UsageError, did_you_mean
from mixlab.models.convmixer import ConvMixerConfig
from mixlab.spec import DataSpec

ModelConfig = Annotated[ConvMixerConfig, Field()]
ARCHITECTURES: tuple[type[ConvMixerConfig], ...] = (ConvMixerConfig,)


class Published(NamedTuple):
    image_size: int  # side of the images it is made for, pixels
    config: ModelConfig


PUBLISHED: dict[str, Published] = {
    # digits: every pixel a patch
    "convmixer_64_4": Published(8, ConvMixerConfig(dim=64, depth=4, kernel_size=3, patch_size=1)),
    # CIFAR: the authors' script (256/8) and smaller and larger relatives of it
    "convmixer_128_4": Published(32, ConvMixerConfig(dim=128, depth=4)),
    "convmixer_128_8": Published(32, ConvMixerConfig(dim=128, depth=8)),
    "convmixer_256_8": Published(32, ConvMixerConfig(dim=256, depth=8)),
    "convmixer_256_10": Published(32, ConvMixerConfig(dim=256, depth=10)),
    "convmixer_256_16": Published(32, ConvMixerConfig(dim=256, depth=16, kernel_size=8, patch_size=1)),
    # one pixel between patches, gammas from 0 (the origin's comparison with ViT)
    "convmixer_256_12_gamma": Published(
        32,
        ConvMixerConfig(
            depth=12, kernel_size=7, patch_stride=1, residual="gamma", dropout=0.3, initialisation="kaiming"
        ),
    ),
    # ImageNet (the paper's Table 1)
    "convmixer_512_16": Published(224, ConvMixerConfig(dim=512, depth=16, kernel_size=8, patch_size=7)),
    "convmixer_768_32": Published(
        224, ConvMixerConfig(dim=768, depth=32, kernel_size=7, patch_size=7, activation="relu")
    ),
    "convmixer_1024_20_ks9_p14": Published(224, ConvMixerConfig(dim=1024, depth=20, kernel_size=9, patch_size=14)),
    "convmixer_1536_20": Published(224, ConvMixerConfig(dim=1536, depth=20, kernel_size=9, patch_size=7)),
}


def expand(model: Any) -> dict[str, Any]:
    """Spell out a published size: "convmixer_256_8", or {"name": "convmixer_256_8", "kernel_size": 9}.

    Raises:
        UsageError: for a name that is neither a published size nor an architecture.
    """
    if not isinstance(model, str | Mapping):
        raise UsageError(f"model={model!r}: expected a name such as convmixer_256_8, or a table with one")
    fields = {"name": model} if isinstance(model, str) else dict(model)
    name = str(fields.setdefault("name", ARCHITECTURES[0]().name))
    if name in PUBLISHED:
        return PUBLISHED[name].config.model_dump() | fields | {"name": PUBLISHED[name].config.name}
    architectures = [architecture().name for architecture in ARCHITECTURES]
    if name not in architectures:
        known = [*architectures, *PUBLISHED]
        raise UsageError(f"unknown model {name!r}{did_you_mean(name, known) or '; known: ' + ', '.join(known)}")
    return fields


def published_name(config: ModelConfig) -> str:
    """Return the published size that a config is, or its architecture with "custom"."""
    names = [name for name, published in PUBLISHED.items() if published.config == config]
    return names[0] if names else f"{config.name}_custom"


def usual_image_size(name: str) -> int:
    """Return the side, in pixels, of the images that a published size is made for; 32 for a bare architecture."""
    return PUBLISHED[name].image_size if name in PUBLISHED else 32


def create_model(
    name: str, *, num_classes: int = 1000, channels: int = 3, image_size: int = 0, **fields: Any
) -> nn.Module:
    """Return a published size, or an architecture, as a plain module with freshly drawn weights.

    The model takes images with values in [0, 1] and normalises them itself, with ImageNet's numbers for 3 channels.

    Args:
        name: such as "convmixer_768_32".
        image_size: side of the input, pixels; 0: the size that it is made for.
        fields: fields of the model's config that replace those of the published size.

    Raises:
        UsageError: for an unknown name or field, or a value out of range.
    """
    spec = DataSpec.parse(
        {
            "channels": channels,
            "image_size": image_size or usual_image_size(name),
            "classes": tuple(str(index) for index in range(num_classes)),
            "mean": (0.485, 0.456, 0.406) if channels == 3 else (0.5,) * channels,
            "std": (0.229, 0.224, 0.225) if channels == 3 else (0.5,) * channels,
        }
    )
    return parse_model({"name": name, **fields}).build(spec)


def parse_model(model: Any) -> ModelConfig:
    """Return the config of a published size or architecture, with fields replaced.

    Raises:
        UsageError: for an unknown name or field, or a value out of range.
    """
    fields = expand(model)
    architecture = next(option for option in ARCHITECTURES if option().name == fields["name"])
    return architecture.parse(fields)
