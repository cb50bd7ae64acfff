"""The union of all architectures, and the published sizes by the field's names."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, get_args

from pydantic import Field
from torch import nn

from mixlab.errors import UsageError, did_you_mean, shown
from mixlab.models.convmixer import ConvMixerConfig
from mixlab.models.mlp_mixer import MLPMixerConfig
from mixlab.models.resnet import ResNetConfig
from mixlab.models.resnet9 import ResNet9Config
from mixlab.models.vit import ViTConfig
from mixlab.spec import DataSpec

AnyModelConfig = ConvMixerConfig | ViTConfig | MLPMixerConfig | ResNet9Config | ResNetConfig
ModelConfig = Annotated[AnyModelConfig, Field(discriminator="name")]
ARCHITECTURES: dict[str, type[AnyModelConfig]] = {option().name: option for option in get_args(AnyModelConfig)}


class Published(NamedTuple):
    image_size: int  # side of the images it is made for, pixels
    config: AnyModelConfig


_vit_64_4 = ViTConfig(dim=64, depth=4, heads=4, mlp_dim=128, patch_size=2, initialisation="default")
_vit_small = ViTConfig(dim=128, depth=6, heads=8, mlp_dim=256, patch_size=4, dropout=0.2, initialisation="kaiming")
_vit_512_6 = ViTConfig(dim=512, depth=6, heads=8, mlp_dim=512, patch_size=4, bias=False, dropout=0.1)

PUBLISHED: dict[str, Published] = {
    # digits, 8 px
    "convmixer_64_4": Published(8, ConvMixerConfig(dim=64, depth=4, kernel_size=3, patch_size=1)),
    "vit_64_4_patch2": Published(8, _vit_64_4),
    "vit_64_4_patch2_conv": Published(8, _vit_64_4.model_copy(update={"projection": "convolution"})),
    "mixer_64_4_patch2": Published(8, MLPMixerConfig(dim=64, depth=4, patch_size=2)),
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
    # 32 px: the origin's comparisons with ConvMixer (mixlab reproduce list), and the same as convolutions only
    "vit_small_patch4": Published(32, _vit_small),
    "vit_small_patch4_conv": Published(32, _vit_small.model_copy(update={"projection": "convolution"})),
    "vit_512_6_patch4": Published(32, _vit_512_6),
    "vit_512_6_patch4_conv": Published(32, _vit_512_6.model_copy(update={"projection": "convolution"})),
    "vit_64_8_patch6_flatten": Published(
        72,
        ViTConfig(
            dim=64,
            depth=8,
            heads=4,
            head_dim=64,
            mlp_dim=128,
            patch_size=6,
            pool="flatten",
            dropout=0.1,
            attention_dropout=0.1,
            head_dims=(2048, 1024),
            head_dropout=0.5,
        ),
    ),
    "mixer_small_patch4": Published(32, MLPMixerConfig(dim=128, patch_size=4)),
    "resnet9": Published(32, ResNet9Config()),
    "resnet18_cifar": Published(32, ResNetConfig()),
    "resnet18_cifar_w20": Published(32, ResNetConfig(width=20)),
    # ImageNet: Dosovitskiy et al., Touvron et al. (DeiT), Tolstikhin et al., He et al.
    "vit_tiny_patch16_224": Published(224, ViTConfig(dim=192, heads=3)),
    "vit_small_patch16_224": Published(224, ViTConfig(dim=384, heads=6)),
    "vit_base_patch16_224": Published(224, ViTConfig(dim=768, heads=12)),
    "mixer_s16_224": Published(224, MLPMixerConfig()),
    "mixer_b16_224": Published(224, MLPMixerConfig(dim=768, depth=12)),
    "resnet18": Published(224, ResNetConfig(stem="imagenet")),
    "resnet34": Published(224, ResNetConfig(stages=(3, 4, 6, 3), stem="imagenet")),
}


def expand(model: Any) -> dict[str, Any]:
    """Spell out a published size: "convmixer_256_8", or {"name": "convmixer_256_8", "kernel_size": 9}.

    Raises:
        UsageError: for a name that is neither a published size nor an architecture.
    """
    if not isinstance(model, str | Mapping):
        raise UsageError(f"model={shown(model)}: expected a name such as convmixer_256_8, or a table with one")
    fields = {"name": model} if isinstance(model, str) else dict(model)
    name = str(fields.setdefault("name", next(iter(ARCHITECTURES))))
    if name in PUBLISHED:
        return PUBLISHED[name].config.model_dump() | fields | {"name": PUBLISHED[name].config.name}
    if name not in ARCHITECTURES:
        known = [*ARCHITECTURES, *PUBLISHED]
        raise UsageError(f"unknown model {shown(name)}{did_you_mean(name, known) or '; known: ' + ', '.join(known)}")
    return fields


def published_name(config: AnyModelConfig) -> str:
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
    if num_classes < 1:
        raise UsageError(f"num_classes={num_classes}: expected 1 or more")
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


def parse_model(model: Any) -> AnyModelConfig:
    """Return the config of a published size or architecture, with fields replaced.

    Raises:
        UsageError: for an unknown name or field, or a value out of range.
    """
    fields = expand(model)
    return ARCHITECTURES[fields["name"]].parse(fields)
