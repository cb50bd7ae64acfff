"""ResNet-9: the small residual network of fast CIFAR training, 3x3 convolutions and max pooling only."""

from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from mixlab.config import Config, Width
from mixlab.errors import UsageError
from mixlab.models.layers import Fraction, Initialisation, Normalize, initialise
from mixlab.spec import DataSpec

SMALLEST_IMAGE = 8  # pixels; three poolings halve it to one


class ResNet9Config(Config):
    is_convolutional: ClassVar[bool] = True
    name: Literal["resnet9"] = "resnet9"
    width: Width = 32  # channels of the first layer; the others have 2, 4 and 8 times as many
    dropout: Fraction = 0.2  # before the classifier
    initialisation: Initialisation = "kaiming"

    def with_width(self, width: int) -> "ResNet9Config":
        return self.model_copy(update={"width": width})

    def unread_edge(self, image_size: int) -> int:
        """Return 0: windows overlap and read every pixel."""
        return 0

    def build(self, spec: DataSpec) -> nn.Module:
        """Return the network with freshly drawn weights.

        Raises:
            UsageError: where the image is too small to be halved three times.
        """
        if spec.image_size < SMALLEST_IMAGE:
            raise UsageError(f"resnet9 needs images of {SMALLEST_IMAGE} px or more, not {spec.image_size}")
        return ResNet9(self, spec)


class ResNet9(nn.Module):
    def __init__(self, config: ResNet9Config, spec: DataSpec) -> None:
        super().__init__()
        width = config.width
        self.normalize = Normalize(spec.mean, spec.std)
        self.layers = nn.Sequential(
            _convolution(spec.channels, width),
            _convolution(width, 2 * width, nn.MaxPool2d(2)),
            Residual(2 * width),
            _convolution(2 * width, 4 * width, nn.MaxPool2d(2)),
            _convolution(4 * width, 8 * width, nn.MaxPool2d(2)),
            Residual(8 * width),
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(8 * width, spec.num_classes)
        initialise(self, config.initialisation)

    def forward_features(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim rows columns"]:
        """Return the last feature map of images with values in [0, 1]."""
        return self.layers(self.normalize(x))

    def head(self, features: Float[Tensor, "batch dim rows columns"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of a last feature map."""
        return self.classifier(self.dropout(features.amax((2, 3))))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of images with values in [0, 1]."""
        return self.head(self.forward_features(x))


class Residual(nn.Module):
    """Two convolutions with their input added to their output."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(_convolution(dim, dim), _convolution(dim, dim))

    def forward(self, x: Float[Tensor, "batch dim rows columns"]) -> Float[Tensor, "batch dim rows columns"]:
        return x + self.branch(x)


def _convolution(dim_in: int, dim_out: int, *then: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(dim_in, dim_out, 3, padding=1), nn.BatchNorm2d(dim_out), nn.ReLU(), *then)
