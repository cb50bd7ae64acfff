"""What a trained network sees: its weights as pictures, its feature maps, and where in an image a class is found.

Networks are taken as they are built, not by name: `forward_features` and `head`, a stem or patch embedding, and a
sequence called `blocks` or `layers`. Nothing here changes a network: training modes, gradients and hooks stay as they
were.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from mixlab.errors import UsageError, did_you_mean
from mixlab.models.layers import Normalize
from mixlab.models.vit import Attention

STEMS = ("stem", "patch_embedding")  # what models call their first layer
SEQUENCES = ("blocks", "layers")  # and what follows it


def patch_filters(model: nn.Module) -> NDArray[np.float32] | None:
    """Return the weights that read pixels first, (filters, channels, side, side), those of the largest norm first.

    A linear layer on cut patches counts as the convolution that it is. Pixels are normalised before they get here. A
    first layer that reads single pixels has nothing to show: None.
    """
    first = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)), None)
    if first is None:
        return None
    weights = first.weight.detach()
    if weights.ndim == 2 or weights.shape[2:] == (1, 1):
        channels = next((len(layer.mean) for layer in model.modules() if isinstance(layer, Normalize)), 1)
        side = math.isqrt(weights.shape[1] // channels)
        if side < 2 or channels * side**2 != weights.shape[1]:
            return None
        weights = weights.reshape(-1, channels, side, side)
    norms = weights.flatten(1).norm(dim=1)
    return _array(weights[norms.argsort(descending=True, stable=True)])


def depthwise_kernels(model: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return the kernels (channels, side, side) of every depthwise convolution by its name, the first layer first."""
    return {
        name: _array(layer.weight[:, 0])
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
    }


def layer_names(model: nn.Module) -> list[str]:
    """Name the stem and the blocks, in the order in which an image passes them."""
    stems = [name for name, _ in model.named_children() if name in STEMS]
    blocks = [
        f"{name}.{place}"
        for name, sequence in model.named_children()
        if name in SEQUENCES
        for place, _ in sequence.named_children()
    ]
    return stems + blocks


def feature_maps(
    model: nn.Module, image: Float[Tensor, "channels side side"], layers: Sequence[str] = ()
) -> dict[str, NDArray[np.float32]]:
    """Return what layers make of one image with values in [0, 1]: name -> (channels, rows, columns).

    Tokens are put back where their patches were; a class token is left out.

    Args:
        layers: names of modules, such as "blocks.2"; empty: the stem and every block.

    Raises:
        UsageError: for a layer that the model does not have, or whose output is no feature map.
    """
    modules = dict(model.named_modules())
    unknown = [name for name in layers if name not in modules]
    if unknown:
        known = did_you_mean(unknown[0], modules) or f"; known: {', '.join(layer_names(model))}"
        raise UsageError(f"the model has no layer {unknown[0]!r}{known}")
    found: dict[str, NDArray[np.float32]] = {}
    seen = {modules[name]: _noting(found, name) for name in layers or layer_names(model)}
    with _watched(model, seen), torch.no_grad():
        model(_on_device_of(model, image[None]))
    return found


def heat_map_kind(model: nn.Module) -> str:
    """Name what `heat_maps` computes for this model: "class activation" or "attention rollout"."""
    return "attention rollout" if isinstance(getattr(model, "class_token", None), Tensor) else "class activation"


def heat_maps(
    model: nn.Module, images: Float[Tensor, "batch channels side side"], classes: Sequence[int] | NDArray[np.integer]
) -> NDArray[np.float32]:
    """Return where the network finds a class in each image, (images, rows, columns) of its last feature map.

    Class activation, or attention rollout where a class token is what is classified. Each map is in [0, 1], scaled by
    its own maximum; it is 0 everywhere where nothing speaks for the class. Rollout shows what the class token draws
    from and is the same for every class.

    Args:
        images: values in [0, 1].
        classes: the index of one class for each image.

    Raises:
        UsageError: where images and classes are not as many.
    """
    if len(images) != len(classes):
        raise UsageError(f"{len(images)} images need as many classes, not {len(classes)}")
    if heat_map_kind(model) == "attention rollout":
        maps = _as_grid(attention_rollout(model, images)[:, 0, :, None])[:, 0]
    else:
        maps = class_activation(model, images, classes)
    return scaled(_array(maps))


def scaled(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what speaks for a class, (images, rows, columns), each in [0, 1] by its own maximum."""
    positive = maps.clip(min=0)
    return positive / positive.max((1, 2), keepdims=True).clip(min=np.finfo(np.float32).tiny)


def class_activation(
    model: nn.Module, images: Float[Tensor, "batch channels side side"], classes: Sequence[int] | NDArray[np.integer]
) -> Float[Tensor, "batch rows columns"]:
    """Return what each place of the last feature map adds to the logit of a class: gradient times activation.

    Where the head is a mean and a linear layer, that is the class activation map (Zhou et al., 2016), over the number
    of places, and Grad-CAM (Selvaraju et al., 2017) before its ReLU. Grad-CAM's mean of the gradient over places is
    left out: under other heads (the maximum, all tokens side by side) it would light places that the head does not read
    (Draelos and Carin, 2020). The places of a piecewise linear head, such as a mean or maximum and a linear layer, add
    up to the logit without its bias.
    """
    network: Any = model  # what it promises beyond a module is `forward_features` and `head`
    chosen = torch.as_tensor(np.asarray(classes, dtype=np.int64))
    with _watched(model, {}), torch.inference_mode(False):
        with torch.no_grad():
            features = network.forward_features(_on_device_of(model, images))
        with torch.enable_grad():
            features = features.detach().requires_grad_()
            logits = network.head(features)
            chosen_logits = logits.gather(1, chosen.to(logits.device)[:, None])
            (gradient,) = torch.autograd.grad(chosen_logits.sum(), features)
    return _as_grid(gradient * features.detach()).sum(1)


def attention_rollout(
    model: nn.Module, images: Float[Tensor, "batch channels side side"]
) -> Float[Tensor, "batch tokens tokens"]:
    """Return how much of each token of the first block (last axis) ends up in each token of the last, as shares of 1.

    Attention rollout (Abnar and Zuidema, 2020): the mean over heads, half of it the identity for the residual
    connection, multiplied from block to block.
    """
    shares: list[Tensor] = []

    def note(module: Attention, inputs: Any, output: Any) -> None:
        weights = module.weights(inputs[0]).mean(1)
        shares.append((weights + torch.eye(weights.shape[1], device=weights.device, dtype=weights.dtype)) / 2)

    layers = [layer for layer in model.modules() if isinstance(layer, Attention)]
    with _watched(model, dict.fromkeys(layers, note)), torch.no_grad():
        model(_on_device_of(model, images))
    rolled = shares[0]
    for share in shares[1:]:
        rolled = share @ rolled
    return rolled


def _as_grid(features: Tensor) -> Tensor:
    """Return feature maps as they are, and tokens (batch, tokens, dim) as (batch, dim, side, side)."""
    if features.ndim == 4:
        return features
    side = math.isqrt(features.shape[1])
    patches = features[:, features.shape[1] - side**2 :]  # without the class token, the first
    return patches.transpose(1, 2).unflatten(2, (side, side))


def _noting(found: dict[str, NDArray[np.float32]], name: str) -> Callable[..., None]:
    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.ndim not in (3, 4):
            raise UsageError(f"layer {name!r} has no feature map: its output is {tuple(output.shape)}")
        found[name] = _array(_as_grid(output)[0])

    return note


@contextlib.contextmanager
def _watched(model: nn.Module, hooks: dict[nn.Module, Callable[..., None]]) -> Iterator[None]:
    """Put a model into evaluation mode and call hooks after its modules; then leave all as it was."""
    modes = {module: module.training for module in model.modules()}
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    model.eval()
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode


def _on_device_of(model: nn.Module, images: Tensor) -> Tensor:
    return images.to(next(model.parameters()).device)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy()
