"""ConvMixers as others write them down: the names of their tensors are what matters here."""

from typing import Any

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


def mixing(dim: int, kernel_size: int, activation: type[nn.Module]) -> nn.Sequential:
    depthwise = nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same")
    inner = nn.Sequential(depthwise, activation(), nn.BatchNorm2d(dim))
    return nn.Sequential(Residual(inner), nn.Conv2d(dim, dim, 1), activation(), nn.BatchNorm2d(dim))


def of_the_paper(dim: int, depth: int, kernel_size: int, patch_size: int, classes: int) -> nn.Sequential:
    """Return the network of the paper's last page, with numbers that normalisations of a trained one could have."""
    blocks = [mixing(dim, kernel_size, nn.GELU) for _ in range(depth)]
    stem = nn.Conv2d(3, dim, patch_size, stride=patch_size)
    pooled = (nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(dim, classes))
    return as_trained(nn.Sequential(stem, nn.GELU(), nn.BatchNorm2d(dim), *blocks, *pooled))


class OfTimm(nn.Module):
    """The names of timm: stem, blocks, pooling, head."""

    def __init__(
        self, dim: int, depth: int, kernel_size: int, patch_size: int, classes: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        stem = nn.Conv2d(3, dim, patch_size, stride=patch_size)
        self.stem = nn.Sequential(stem, activation(), nn.BatchNorm2d(dim))
        self.blocks = nn.Sequential(*[mixing(dim, kernel_size, activation) for _ in range(depth)])
        self.pooling = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten())
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pooling(self.blocks(self.stem(x))))


def of_timm(
    dim: int, depth: int, kernel_size: int, patch_size: int, classes: int, activation: type[nn.Module] = nn.GELU
) -> nn.Module:
    return as_trained(OfTimm(dim, depth, kernel_size, patch_size, classes, activation))


def as_trained(model: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
                getattr(layer, name).data = low + torch.rand(layer.num_features, generator=generator)
    return model.eval()
