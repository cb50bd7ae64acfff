"""MLP-Mixer (Tolstikhin et al., 2021): one MLP over the patches and one over the channels, in turns."""

from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from mixlab.config import Config, Depth, Width, WidthOrNone
from mixlab.errors import UsageError
from mixlab.models.layers import (
    MLP,
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


class MLPMixerConfig(Config):
    is_convolutional: ClassVar[bool] = False
    name: Literal["mlp_mixer"] = "mlp_mixer"
    dim: Width = 512  # channels of a token
    depth: Depth = 8  # number of blocks
    patch_size: Width = 16  # side of a patch, pixels
    token_mlp_dim: WidthOrNone = 0  # hidden width of the MLP over patches; 0: dim / 2
    channel_mlp_dim: WidthOrNone = 0  # hidden width of the MLP over channels; 0: 4 x dim
    dropout: Fraction = 0.0  # after each layer of the MLPs
    drop_path: Fraction = 0.0  # of the last block's residual branches; rises linearly from 0 at the first
    initialisation: Initialisation = "default"

    @property
    def width(self) -> int:
        return self.dim

    def with_width(self, width: int) -> "MLPMixerConfig":
        """Scale the MLPs too."""
        hidden = {
            name: max(round(getattr(self, name) * width / self.dim), 1)
            for name in ("token_mlp_dim", "channel_mlp_dim")
            if getattr(self, name)
        }
        return self.model_copy(update={"dim": width, **hidden})

    def unread_edge(self, image_size: int) -> int:
        """Return how many pixels at the right, and as many at the bottom, are in no patch."""
        return unread_edge(image_size, self.patch_size, self.patch_size)

    def build(self, spec: DataSpec) -> nn.Module:
        """Return the network with freshly drawn weights.

        Raises:
            UsageError: where the image is smaller than one patch.
        """
        check_patch(self.patch_size, spec.image_size)
        return MLPMixer(self, spec)


class MLPMixer(nn.Module):
    def __init__(self, config: MLPMixerConfig, spec: DataSpec) -> None:
        super().__init__()
        self.patch_size, self.image_size = config.patch_size, spec.image_size
        patches = (spec.image_size // config.patch_size) ** 2
        self.normalize = Normalize(spec.mean, spec.std)
        self.patch_embedding = nn.Linear(spec.channels * config.patch_size**2, config.dim)
        self.blocks = nn.Sequential(
            *[Block(config, patches, rate) for rate in drop_path_rates(config.drop_path, config.depth)]
        )
        self.norm = nn.LayerNorm(config.dim)
        self.classifier = nn.Linear(config.dim, spec.num_classes)
        initialise(self, config.initialisation)

    def forward_features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch patches dim"]:
        """Return the last tokens, normalised, of images with values in [0, 1].

        Raises:
            UsageError: for an image of another size than the model was built for; its MLPs know each patch by place.
        """
        if x.shape[2:] != (self.image_size, self.image_size):
            raise UsageError(
                f"an MLP-Mixer for {self.image_size} x {self.image_size} px cannot take {x.shape[2]} x {x.shape[3]}"
            )
        return self.norm(self.blocks(self.patch_embedding(cut_patches(self.normalize(x), self.patch_size))))

    def head(self, features: Float[Tensor, "batch patches dim"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of last tokens."""
        return self.classifier(features.mean(1))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of images with values in [0, 1]."""
        return self.head(self.forward_features(x))


class Block(nn.Module):
    def __init__(self, config: MLPMixerConfig, patches: int, drop_path: float) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(config.dim)
        self.token_mlp = MLP(patches, config.token_mlp_dim or max(config.dim // 2, 1), config.dropout)
        self.channel_norm = nn.LayerNorm(config.dim)
        self.channel_mlp = MLP(config.dim, config.channel_mlp_dim or 4 * config.dim, config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch patches dim"]) -> Float[Tensor, "batch patches dim"]:
        across = self.token_mlp(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.drop_path(across)
        return x + self.drop_path(self.channel_mlp(self.channel_norm(x)))
