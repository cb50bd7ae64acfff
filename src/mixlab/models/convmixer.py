"""ConvMixer (Trockman and Kolter, "Patches Are All You Need?", 2022, arXiv 2201.09792).

    z0 = norm(activation(patch embedding(x)))
    z' = norm(activation(depthwise(z))) + z
    z+ = norm(activation(pointwise(z')))

followed by the mean over positions and a linear classifier.
"""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixlab.config import Config, Depth, Width, WidthOrNone
from mixlab.kernels import choice, library, mixing
from mixlab.kernels.mixing import Deferred
from mixlab.models.filters import initialise_filters
from mixlab.models.layers import (
    ChannelLayerNorm,
    DropPath,
    Fraction,
    Initialisation,
    Normalize,
    SameConv2d,
    check_patch,
    drop_path_rates,
    initialise,
    unread_edge,
)
from mixlab.spec import DataSpec

Activation = Literal["gelu", "relu"]
Norm = Literal["batch", "layer"]
Filters = Literal["default", "covariance"]
Residual = Literal["plain", "none", "gamma", "both"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}
NORMS: dict[Norm, type[nn.Module]] = {"batch": nn.BatchNorm2d, "layer": ChannelLayerNorm}


class ConvMixerConfig(Config):
    is_convolutional: ClassVar[bool] = True  # one network takes images of any size, and a CPU may be fast in bfloat16
    name: Literal["convmixer"] = "convmixer"
    dim: Width = 256  # channels everywhere after the stem (the paper's h)
    depth: Depth = 8  # number of blocks (the paper's d)
    kernel_size: Width = 5  # side of the depthwise kernel, in patches
    patch_size: Width = 2  # side of a patch, in pixels
    patch_stride: WidthOrNone = 0  # pixels from one patch to the next; 0: patch_size, so that patches do not overlap
    patch_padding: WidthOrNone = 0  # zeros around the image before it is cut into patches, in pixels
    activation: Activation = "gelu"
    norm: Norm = "batch"
    residual: Residual = "plain"  # around the depthwise part; gamma: scaled by a learned number; both: around each part
    dropout: Fraction = 0.0  # before the classifier
    drop_path: Fraction = 0.0  # of the last block's residual branch; rises linearly from 0 at the first
    initialisation: Initialisation = "default"
    filters: Filters = "default"  # depthwise ones at the start; covariance: smooth, and wider in deeper blocks

    @property
    def width(self) -> int:
        return self.dim

    @property
    def has_kernels(self) -> bool:
        """Return whether there are compiled kernels for whole blocks: for those of the paper, with GELU or ReLU."""
        return (self.norm, self.residual, self.drop_path) == ("batch", "plain", 0)

    def with_width(self, width: int) -> "ConvMixerConfig":
        return self.model_copy(update={"dim": width})

    def unread_edge(self, image_size: int) -> int:
        """Return how many pixels at the right, and as many at the bottom, are in no patch."""
        return unread_edge(image_size, self.patch_size, self.patch_stride or self.patch_size, self.patch_padding)

    def build(self, spec: DataSpec) -> nn.Module:
        """Return the network with freshly drawn weights.

        Raises:
            UsageError: where the image is smaller than one patch.
        """
        check_patch(self.patch_size, spec.image_size + 2 * self.patch_padding)
        return ConvMixer(self, spec)


class ConvMixer(nn.Module):
    def __init__(self, config: ConvMixerConfig, spec: DataSpec) -> None:
        super().__init__()
        norm, activation = NORMS[config.norm], ACTIVATIONS[config.activation]
        self.normalize = Normalize(spec.mean, spec.std)
        self.stem = nn.Sequential(
            nn.Conv2d(
                spec.channels,
                config.dim,
                config.patch_size,
                stride=config.patch_stride or config.patch_size,
                padding=config.patch_padding,
            ),
            activation(),
            norm(config.dim),
        )
        self.blocks = nn.Sequential(
            *[
                Block(config.dim, config.kernel_size, norm, activation, config.residual, rate)
                for rate in drop_path_rates(config.drop_path, config.depth)
            ]
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.dim, spec.num_classes)
        self.is_published, self.activation = config.has_kernels, activation
        initialise(self, config.initialisation)
        if config.filters == "covariance":
            initialise_filters([layer for layer in self.blocks.modules() if isinstance(layer, SameConv2d)])

    def forward_features(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim rows columns"]:
        """Return the last feature map of images with values in [0, 1]."""
        x = self.normalize(x)
        return self._deferred(x).whole() if self._is_fast(x) else self.blocks(self.stem(x))

    def head(self, features: Float[Tensor, "batch dim rows columns"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of a last feature map."""
        return self._classify(features.mean((2, 3)))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of images with values in [0, 1]."""
        x = self.normalize(x)
        return self._classify(self._deferred(x).mean()) if self._is_fast(x) else self.head(self.blocks(self.stem(x)))

    def _is_fast(self, x: Tensor) -> bool:
        if not library.is_usable(x) or len(x) < 2 or not self.has_kernels():
            return False
        for layer in self._inner_layers():
            if not layer.training or layer._forward_hooks or layer._forward_pre_hooks:
                return False
        rows, columns = self._map_size(x)
        return choice.is_ours("training", x, rows, columns, *self._block_size())

    def _block_size(self) -> tuple[int, int]:
        """Return the channels and the kernel's side of the blocks."""
        mixing: Any = self.blocks[0].depthwise[0]  # pyright: ignore[reportIndexIssue]
        return mixing.in_channels, mixing.kernel_size[0]

    def _map_size(self, x: Tensor) -> list[int]:
        """Return the rows and columns of the patches of images."""
        stem: Any = self.stem[0]
        edges = zip(x.shape[2:], stem.padding, stem.kernel_size, stem.stride, strict=True)
        return [(size + 2 * padding - side) // stride + 1 for size, padding, side, stride in edges]

    def has_kernels(self) -> bool:
        """Return whether there are compiled kernels for blocks like these: as published, and as they were built."""
        known = all(type(layer) in {*WITH_KERNELS, self.activation} for layer in self._inner_layers())
        return self.is_published and known and all(type(block) is Block for block in self.blocks)

    def _inner_layers(self) -> list[nn.Module]:
        return [layer for part in (self.stem, self.blocks) for layer in part.modules()]

    def _deferred(self, x: Tensor) -> Deferred:
        """Return the features of normalised pixels in training, by compiled kernels."""
        features = mixing.stem(self.stem[0](x), self.stem[1], self.stem[2])
        for block in self.blocks:
            features = mixing.block(features, block.depthwise, block.pointwise)
        return features

    def _classify(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch classes"]:
        return self.classifier(self.dropout(features.to(self.classifier.weight.dtype)))


class Block(nn.Module):
    def __init__(
        self,
        dim: int,
        kernel_size: int,
        norm: type[nn.Module],
        activation: type[nn.Module],
        residual: Residual,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(SameConv2d(dim, kernel_size), activation(), norm(dim))
        self.pointwise = nn.Sequential(nn.Conv2d(dim, dim, 1), activation(), norm(dim))
        self.drop_path = DropPath(drop_path)
        self.residual = residual
        if residual == "gamma":
            self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Float[Tensor, "batch dim rows columns"]) -> Float[Tensor, "batch dim rows columns"]:
        branch = self.depthwise(x)
        if self.residual == "none":
            return self.pointwise(branch)
        if self.residual == "gamma":
            branch = branch * self.gamma
        mixed = x + self.drop_path(branch)
        if self.residual == "both":
            return mixed + self.drop_path(self.pointwise(mixed))
        return self.pointwise(mixed)


WITH_KERNELS = {Block, DropPath, SameConv2d, nn.BatchNorm2d, nn.Conv2d, nn.Sequential}
