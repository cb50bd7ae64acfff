"""What every exported file computes: decoded pixels in, calibrated probabilities and raw logits out."""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mixlab.data.resample import resample
from mixlab.errors import UsageError
from mixlab.kernels import library
from mixlab.models.convmixer import ConvMixer
from mixlab.models.folding import fold_convolutions
from mixlab.models.mlp_mixer import MLPMixer
from mixlab.models.resnet import ResNet
from mixlab.models.vit import ViT
from mixlab.run.bundle import Bundle
from mixlab.spec import ResizeMode

INPUT, OUTPUTS, HEAT = "pictures", ("probabilities", "logits"), "heat"
SHAPE = {place: Dim(name, min=1) for place, name in enumerate(("batch", "height", "width"))}  # of the input: any sizes


class Graph(nn.Module):
    """A network between the decoded pixels of pictures of one size and what is said of them."""

    fill: Tensor

    def __init__(self, bundle: Bundle, heat: bool = False) -> None:
        """Build it; with `heat` there is a third output.

        Raises:
            UsageError: for heat of a network that has none.
        """
        super().__init__()
        spec, network = bundle.description.spec, bundle.build()
        if heat and not has_heat(network):
            name = bundle.description.model.name
            raise UsageError(f"{name}: its classes are no sum over places, so that it has no heat map to export")
        self.network: Any = fold_convolutions(network)
        self.spec, self.temperature = spec, bundle.description.temperature
        self.register_buffer("fill", torch.tensor(spec.mean))
        self.heat = heat

    def forward(self, pictures: UInt8[Tensor, "batch height width channels"]) -> tuple[Tensor, ...]:
        """Return probabilities and logits (batch, classes), and where it is asked for heat (batch, classes, h, w)."""
        images = pictures.permute(0, 3, 1, 2).float() / 255
        region = any_square_region(images.shape[2], images.shape[3], self.spec.resize_mode)
        features = self.network.forward_features(resample(images, region, self.spec.image_size, self.fill))
        logits = self.network.head(features)
        answers = ((logits / self.temperature).softmax(1), logits)
        return (*answers, heat(features, self.network.classifier.weight)) if self.heat else answers


def has_heat(network: nn.Module) -> bool:
    """Return whether each logit is a sum over places: the head is a mean and a linear layer."""
    if isinstance(network, ViT):
        return network.pool == "mean" and not any(isinstance(layer, nn.Linear) for layer in network.hidden)
    return isinstance(network, ConvMixer | MLPMixer | ResNet)


def heat(features: Tensor, weight: Float[Tensor, "classes dim"]) -> Float[Tensor, "batch classes rows columns"]:
    """Return what each place adds to each logit; the sum over places lacks the classifier's bias only."""
    if features.ndim == 3:  # tokens (batch, places, dim), row by row
        side = round(features.shape[1] ** 0.5)
        features = features.transpose(1, 2).unflatten(2, (side, side))
    places = features.shape[2] * features.shape[3]
    return nn.functional.conv2d(features, weight[:, :, None, None] / places)


def any_square_region(height: int, width: int, mode: ResizeMode) -> Float[Tensor, "1 4"]:
    """Return what `square_region` does as a tensor, of sizes that are not known before the graph runs."""
    rows, columns = (torch.full((1,), size, dtype=torch.float32) for size in (height, width))
    if mode == "squash":
        return torch.stack([torch.zeros(1), torch.zeros(1), rows, columns], 1)
    side = torch.minimum(rows, columns) if mode == "crop" else torch.maximum(rows, columns)
    return torch.stack([(rows - side) / 2, (columns - side) / 2, side, side], 1)


def trace(bundle: Bundle, heat: bool = False) -> ExportedProgram:
    """Return the graph in PyTorch's own operations, for any number of pictures of any size.

    Raises:
        UsageError: for heat of a network that has none.
    """
    graph = Graph(bundle, heat).eval().requires_grad_(False)
    example = torch.zeros(2, 19, 23, bundle.description.spec.channels, dtype=torch.uint8)
    with torch.no_grad(), library.stock():
        return torch.export.export(graph, (example,), dynamic_shapes=(SHAPE,))
