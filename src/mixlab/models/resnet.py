"""ResNet of basic blocks (He et al., 2016): ResNet-18 and -34, in any width, for small and for large images."""

from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from mixlab.config import Config, Depth, Width
from mixlab.models.layers import DropPath, Fraction, Initialisation, Normalize, drop_path_rates, initialise
from mixlab.spec import DataSpec

Stem = Literal["cifar", "imagenet"]


class ResNetConfig(Config):
    is_convolutional: ClassVar[bool] = True
    name: Literal["resnet"] = "resnet"
    width: Width = 64  # channels of the first stage; each of the others doubles them
    stages: Annotated[tuple[Depth, ...], Field(max_length=6)] = (2, 2, 2, 2)  # blocks of each stage
    stem: Stem = "cifar"  # one 3x3 convolution; imagenet: 7x7 of stride 2, then max pooling of stride 2
    dropout: Fraction = 0.0  # before the classifier
    drop_path: Fraction = 0.0  # of the last block's residual branch; rises linearly from 0 at the first
    initialisation: Initialisation = "kaiming"

    def with_width(self, width: int) -> "ResNetConfig":
        return self.model_copy(update={"width": width})

    def unread_edge(self, image_size: int) -> int:
        """Return 0: windows overlap and read every pixel."""
        return 0

    def build(self, spec: DataSpec) -> nn.Module:
        """Return the network with freshly drawn weights."""
        return ResNet(self, spec)


class ResNet(nn.Module):
    def __init__(self, config: ResNetConfig, spec: DataSpec) -> None:
        super().__init__()
        self.normalize = Normalize(spec.mean, spec.std)
        self.stem = _stem(config.stem, spec.channels, config.width)
        rates = iter(drop_path_rates(config.drop_path, sum(config.stages)))
        blocks, dim = [], config.width
        for stage, depth in enumerate(config.stages):
            for place in range(depth):
                dim_out = config.width * 2**stage
                blocks.append(Block(dim, dim_out, 2 if stage and not place else 1, next(rates)))
                dim = dim_out
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(dim, spec.num_classes)
        initialise(self, config.initialisation)

    def forward_features(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim rows columns"]:
        """Return the last feature map of images with values in [0, 1]."""
        return self.blocks(self.stem(self.normalize(x)))

    def head(self, features: Float[Tensor, "batch dim rows columns"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of a last feature map."""
        return self.classifier(self.dropout(features.mean((2, 3))))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of images with values in [0, 1]."""
        return self.head(self.forward_features(x))


class Block(nn.Module):
    def __init__(self, dim_in: int, dim_out: int, stride: int, drop_path: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(dim_in, dim_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(dim_out),
            nn.ReLU(),
            nn.Conv2d(dim_out, dim_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(dim_out),
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or dim_in != dim_out:
            self.shortcut = nn.Sequential(nn.Conv2d(dim_in, dim_out, 1, stride, bias=False), nn.BatchNorm2d(dim_out))
        self.drop_path = DropPath(drop_path)
        self.activation = nn.ReLU()

    def forward(self, x: Float[Tensor, "batch dim_in _ _"]) -> Float[Tensor, "batch dim_out _ _"]:
        return self.activation(self.shortcut(x) + self.drop_path(self.branch(x)))


def _stem(kind: Stem, channels: int, width: int) -> nn.Sequential:
    if kind == "cifar":
        return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    return nn.Sequential(
        nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
