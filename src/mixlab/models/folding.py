"""Networks for inference: batch normalisation gone by algebra, the logits the same."""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mixlab.kernels import choice, library, mixing, operators
from mixlab.models.convmixer import Block, ConvMixer
from mixlab.models.layers import Normalize


def fold(model: nn.Module) -> nn.Module:
    """Return a network for inference with the same logits, up to rounding; the given one stays as it is.

    A ConvMixer becomes a FoldedConvMixer; others lose the normalisations that follow convolutions.
    """
    return FoldedConvMixer(model) if isinstance(model, ConvMixer) and model.has_kernels() else fold_convolutions(model)


def fold_convolutions(model: nn.Module) -> nn.Module:
    """Return a copy in which each batch normalisation that follows a convolution is part of it (Jacob et al., 2018)."""
    folded = copy.deepcopy(model).eval()
    for layers in [each for each in folded.modules() if isinstance(each, nn.Sequential)]:
        for place, (layer, following) in enumerate(zip(list(layers), list(layers)[1:], strict=False)):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                layers[place], layers[place + 1] = fuse_conv_bn_eval(layer, following), nn.Identity()
    return folded.requires_grad_(False)


class FoldedConvMixer(nn.Module):
    """A trained ConvMixer in which each batch normalisation is a scale and a shift, and most of them no longer that.

    Normalisation follows the activation here, so it cannot go into the convolution before it. The shift after the
    depthwise part goes into the bias of the pointwise convolution, the last normalisation into the classifier, that of
    the pixels into the stem. The scale and the shift between two blocks stay: the zeros around an image come after
    them. They, the activation and the residual connection cost no pass over memory where there are compiled kernels.
    """

    def __init__(self, model: ConvMixer) -> None:
        super().__init__()
        stem: Any = model.stem[0]
        norm: Any = model.stem[2]
        padded = stem.padding != (0, 0)
        weight, bias = (stem.weight, stem.bias) if padded else _of_raw_pixels(stem, model.normalize)
        self.normalize = copy.deepcopy(model.normalize) if padded else nn.Identity()
        self.stem = _convolution(weight, bias, stem.stride, stem.padding)
        self.activation = copy.deepcopy(model.stem[1])
        folded, blocks = [], [block for block in model.blocks if isinstance(block, Block)]
        for block in blocks:
            folded.append(FoldedBlock(norm, block))
            norm = block.pointwise[2]
        self.blocks = nn.Sequential(*folded)
        scale, shift = _affine(norm)
        weight = model.classifier.weight.double()
        self.classifier = nn.Linear(model.classifier.in_features, model.classifier.out_features)
        _fill(self.classifier, weight * scale, model.classifier.bias + weight @ shift)
        self.to(model.classifier.weight.dtype).eval().requires_grad_(False)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of images with values in [0, 1]."""
        patches = self.stem(self.normalize(x))
        if all(isinstance(block, FoldedBlock) and block.is_fast(patches) for block in self.blocks):
            parameters = [parameter for block in self.blocks for parameter in _parts(block)]
            relu = mixing.is_relu(self.activation)
            found = operators.blocks_inference(operators.activation_inference(patches, relu), parameters, relu)
            return self.classifier(operators.mean_of_positions(found).to(self.classifier.weight.dtype))
        return self.classifier(self.blocks(self.activation(patches)).mean((2, 3)))


class FoldedBlock(nn.Module):
    """activation(pointwise(h + scale * activation(depthwise(h)))) of h = x as the block before normalises it."""

    def __init__(self, norm_before: Any, block: Block) -> None:
        super().__init__()
        first: Any = block.depthwise
        matrix: Any = block.pointwise[0]
        self.before = nn.Parameter(torch.stack(_affine(norm_before)).float())  # scale and shift
        self.depthwise = copy.deepcopy(first[0])
        scale, shift = _affine(first[2])
        self.activation = copy.deepcopy(first[1])
        self.after = nn.Parameter(scale.float())
        self.pointwise = _convolution(matrix.weight, matrix.bias + matrix.weight.flatten(1).double() @ shift)

    def forward(self, x: Float[Tensor, "batch dim rows columns"]) -> Float[Tensor, "batch dim rows columns"]:
        scale, shift, after = (each[:, None, None] for each in (*self.before, self.after))
        h = torch.addcmul(shift, x, scale)
        return self.activation(self.pointwise(torch.addcmul(h, self.activation(self.depthwise(h)), after)))

    def is_fast(self, x: Tensor) -> bool:
        """Return whether kernels of ours do it; they know no gradients."""
        if not library.is_usable(x) or (torch.is_grad_enabled() and x.requires_grad):
            return False
        _, channels, rows, columns = x.shape
        return choice.is_ours("inference", x, rows, columns, channels, self.depthwise.kernel_size[0])


def _parts(block: Any) -> list[Tensor]:
    """Return what the compiled kernels ask for, in the order of `operators.BLOCK`."""
    depthwise, pointwise = block.depthwise, block.pointwise
    return [*block.before, depthwise.weight, depthwise.bias, block.after, pointwise.weight, pointwise.bias]


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Return what a batch normalisation multiplies with and adds in evaluation, float64."""
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean.double() * scale


def _of_raw_pixels(stem: Any, normalize: Normalize) -> tuple[Tensor, Tensor]:
    """Return weight and bias of an unpadded stem that does the normalisation of pixels itself."""
    weight = stem.weight.double() / normalize.std
    return weight, stem.bias - (weight * normalize.mean).sum((1, 2, 3))


def _convolution(weight: Tensor, bias: Tensor, stride: Any = 1, padding: Any = 0) -> nn.Conv2d:
    outputs, inputs, rows, columns = weight.shape
    layer = nn.Conv2d(inputs, outputs, (rows, columns), stride, padding)
    _fill(layer, weight, bias)
    return layer


@torch.no_grad()
def _fill(layer: Any, weight: Tensor, bias: Tensor) -> None:
    layer.to(weight.device)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
