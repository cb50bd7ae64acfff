"""The Vision Transformer (Dosovitskiy et al., 2021), pre-norm, and the same network of convolutions only.

    z0 = dropout(patch embedding(x) + positions)
    z' = z + attention(norm(z))
    z+ = z' + mlp(norm(z'))

followed by a norm and the classifier. With `projection="convolution"` every linear layer of the transformer, the patch
embedding's included, is a 1x1 convolution over the row of tokens: other layers, the same numbers.
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from mixlab.config import Config, Depth, Width, WidthOrNone
from mixlab.models.layers import (
    DropPath,
    Fraction,
    Initialisation,
    Normalize,
    check_patch,
    cut_patches,
    drop_path_rates,
    initialise,
    unread_edge,
)
from mixlab.spec import DataSpec

Pool = Literal["token", "mean", "flatten"]
Projection = Literal["linear", "convolution"]


class ViTConfig(Config):
    is_convolutional: ClassVar[bool] = False
    name: Literal["vit"] = "vit"
    dim: Width = 192  # channels of a token
    depth: Depth = 12  # number of blocks
    heads: Width = 3
    head_dim: WidthOrNone = 0  # channels of a head; 0: dim / heads
    mlp_dim: WidthOrNone = 0  # channels inside the feed-forward part; 0: 4 x dim
    patch_size: Width = 16  # side of a patch, pixels
    pool: Pool = "token"  # what is classified: a class token, the mean of the tokens, or all of them side by side
    projection: Projection = "linear"  # of patches, attention and feed-forward; convolution: 1x1, the same numbers
    bias: bool = True  # of those layers
    dropout: Fraction = 0.0  # of embedding, attention's output and feed-forward
    attention_dropout: Fraction = 0.0  # of attention's weights
    drop_path: Fraction = 0.0  # of the last block's residual branches; rises linearly from 0 at the first
    head_dims: Annotated[tuple[Width, ...], Field(max_length=16)] = ()  # widths of hidden layers before the classifier
    head_dropout: Fraction = 0.0  # before each layer of the head
    initialisation: Initialisation = "truncated_normal"

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "ViTConfig":
        if not self.head_dim and self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is no multiple of heads={self.heads}; change one, or give head_dim")
        return self

    @property
    def width(self) -> int:
        return self.dim

    def with_width(self, width: int) -> "ViTConfig":
        """Scale the feed-forward part too; a width that the heads do not divide is rounded to one that they do."""
        dim = width if self.head_dim else max(round(width / self.heads), 1) * self.heads
        mlp_dim = max(round(self.mlp_dim * dim / self.dim), 1) if self.mlp_dim else 0
        return self.model_copy(update={"dim": dim, "mlp_dim": mlp_dim})

    def unread_edge(self, image_size: int) -> int:
        """Return how many pixels at the right, and as many at the bottom, are in no patch."""
        return unread_edge(image_size, self.patch_size, self.patch_size)

    def build(self, spec: DataSpec) -> nn.Module:
        """Return the network with freshly drawn weights.

        Raises:
            UsageError: where the image is smaller than one patch.
        """
        check_patch(self.patch_size, spec.image_size)
        return ViT(self, spec)


class ViT(nn.Module):
    def __init__(self, config: ViTConfig, spec: DataSpec) -> None:
        super().__init__()
        self.patch_size, self.pool = config.patch_size, config.pool
        self.side = spec.image_size // config.patch_size
        own_token = config.pool == "token"
        self.normalize = Normalize(spec.mean, spec.std)
        self.patch_embedding = projection(
            config.projection, spec.channels * config.patch_size**2, config.dim, config.bias
        )
        if own_token:
            self.class_token = nn.Parameter(torch.empty(config.dim))
        self.positions = nn.Parameter(torch.empty(self.side**2 + own_token, config.dim))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.Sequential(*[Block(config, rate) for rate in drop_path_rates(config.drop_path, config.depth)])
        self.norm = nn.LayerNorm(config.dim)
        self.hidden, width = _hidden_layers(config, self.side**2)
        self.classifier = nn.Linear(width, spec.num_classes)
        initialise(self, config.initialisation)
        for parameter in (self.positions, self.class_token) if own_token else (self.positions,):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward_features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch tokens dim"]:
        """Return the last tokens, normalised, of images with values in [0, 1]; the class token is the first."""
        rows, columns = x.shape[2] // self.patch_size, x.shape[3] // self.patch_size
        tokens = self.patch_embedding(cut_patches(self.normalize(x), self.patch_size))
        if self.pool == "token":
            tokens = torch.cat([self.class_token.expand(x.shape[0], 1, -1), tokens], 1)
        return self.norm(self.blocks(self.dropout(tokens + self.positions_for(rows, columns))))

    def head(self, features: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of last tokens."""
        pooled = {
            "token": lambda: features[:, 0],
            "mean": lambda: features.mean(1),
            "flatten": lambda: features.flatten(1),
        }
        return self.classifier(self.hidden(pooled[self.pool]()))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of images with values in [0, 1].

        An image of another size than the model was built for gets interpolated positions, but where all tokens are
        flattened their number is fixed.
        """
        return self.head(self.forward_features(x))

    def positions_for(self, rows: int, columns: int) -> Float[Tensor, "tokens dim"]:
        """Return the learned positions, interpolated where the grid of patches is not the one they were learned on."""
        if rows == columns == self.side:
            return self.positions
        own, grid = self.positions[: -(self.side**2)], self.positions[-(self.side**2) :]
        grid = grid.T.reshape(1, -1, self.side, self.side)
        grid = functional.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True, align_corners=False)
        return torch.cat([own, grid.flatten(2)[0].T])


class Block(nn.Module):
    def __init__(self, config: ViTConfig, drop_path: float) -> None:
        super().__init__()
        dim, mlp_dim = config.dim, config.mlp_dim or 4 * config.dim
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            projection(config.projection, dim, mlp_dim, config.bias),
            nn.GELU(),
            nn.Dropout(config.dropout),
            projection(config.projection, mlp_dim, dim, config.bias),
            nn.Dropout(config.dropout),
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        x = x + self.drop_path(self.attention(self.attention_norm(x)))
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))


class Attention(nn.Module):
    """Multi-head attention of the tokens among themselves."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads, self.dropout_rate = config.heads, config.attention_dropout
        inner = config.heads * (config.head_dim or config.dim // config.heads)
        self.qkv = projection(config.projection, config.dim, 3 * inner, config.bias)
        self.out = projection(config.projection, inner, config.dim, config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        query, key, value = self._split(x)
        rate = self.dropout_rate if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))

    def weights(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch heads tokens tokens"]:
        """Return how much of each token (last axis) flows into each token, as shares of 1; for looking at."""
        query, key, _ = self._split(x)
        return (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(-1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value, each (batch, heads, tokens, head_dim)."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return query, key, value


class TokenConv(nn.Conv2d):
    """A 1x1 convolution over the row of tokens: what a linear layer computes, with weights (out, in, 1, 1)."""

    def __init__(self, dim_in: int, dim_out: int, bias: bool) -> None:
        super().__init__(dim_in, dim_out, 1, bias=bias)

    def forward(self, x: Float[Tensor, "batch tokens dim_in"]) -> Float[Tensor, "batch tokens dim_out"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        row = x.transpose(1, 2).unsqueeze(2)  # (batch, dim_in, 1, tokens), channels last in memory
        return super().forward(row).squeeze(2).transpose(1, 2)


def projection(kind: Projection, dim_in: int, dim_out: int, bias: bool) -> nn.Module:
    return nn.Linear(dim_in, dim_out, bias=bias) if kind == "linear" else TokenConv(dim_in, dim_out, bias)


def _hidden_layers(config: ViTConfig, patches: int) -> tuple[nn.Sequential, int]:
    """Return what stands between pooled tokens and classifier, and how wide it ends."""
    width = config.dim * patches if config.pool == "flatten" else config.dim
    layers: list[nn.Module] = [nn.Dropout(config.head_dropout)]
    for hidden in config.head_dims:
        layers += [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(config.head_dropout)]
        width = hidden
    return nn.Sequential(*layers), width
