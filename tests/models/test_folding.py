"""Folded networks give the logits of the networks that they were folded from."""

import copy

import pytest
import torch
from torch import nn

from mixlab.kernels import library
from mixlab.models import catalogue
from mixlab.models.convmixer import ConvMixerConfig
from mixlab.models.folding import FoldedConvMixer, fold
from mixlab.spec import DataSpec


def trained(model: nn.Module) -> nn.Module:
    """Give every batch normalisation statistics and weights of its own, one weight of them 0."""
    torch.manual_seed(3)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.uniform_(layer.weight, -1.5, 1.5)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.1, 3)
            with torch.no_grad():
                layer.weight[0] = 0
    return model.eval()


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("kernels", ["compiled", "stock"])
@pytest.mark.parametrize("size", [16, 17, 26])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"activation": "relu"},
        {"kernel_size": 4, "dim": 19},
        {"kernel_size": 9, "patch_size": 1},
        {"patch_size": 3, "patch_stride": 2, "patch_padding": 1},
    ],
)
def test_a_folded_convmixer_has_the_same_logits_at_any_size(fields: dict, size: int, kernels: str, spec: DataSpec):
    config = ConvMixerConfig(**{"dim": 24, "depth": 3, "kernel_size": 5, "patch_size": 2} | fields)
    model = trained(config.build(spec))
    folded, x = fold(model), torch.rand(5, 3, size, size)
    assert isinstance(folded, FoldedConvMixer)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    with torch.inference_mode():
        expected = copy.deepcopy(model).double()(x.double())
        if kernels == "stock":
            with library.stock():
                found = folded(x)
        else:
            found = folded(x)
    assert distance(found, expected) < 1e-5


@pytest.mark.skipif(library.library() is None, reason="no kernels were compiled")
@pytest.mark.parametrize("images", [1, 2, 7, 40])
def test_bfloat16_is_as_near_as_the_layers_in_bfloat16(images: int, spec: DataSpec):
    ours = theirs = 0.0
    for seed in range(5):  # the rounding of one network may favour either
        torch.manual_seed(seed)
        model = trained(ConvMixerConfig(dim=48, depth=3, kernel_size=5, patch_size=2).build(spec))
        folded, x = fold(model), torch.rand(images, 3, 16, 16)
        with torch.inference_mode():
            expected = copy.deepcopy(model).double()(x.double())
            with torch.autocast("cpu", torch.bfloat16):
                ours, theirs = ours + distance(folded(x), expected), theirs + distance(model(x), expected)
    assert ours < 1.3 * theirs


@pytest.mark.parametrize("name", ["resnet9", "resnet18", "vit", "mlp_mixer"])
def test_other_networks_lose_the_normalisations_that_follow_convolutions(name: str, spec: DataSpec):
    model = trained(catalogue.parse_model({"name": name} if name != "resnet18" else {"name": "resnet"}).build(spec))
    folded, x = fold(model), torch.rand(3, 3, 16, 16)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_a_folded_network_keeps_its_precision(kind: torch.dtype, spec: DataSpec):
    model = trained(ConvMixerConfig(dim=8, depth=2, kernel_size=3, patch_size=2).build(spec)).to(kind)
    x = torch.rand(4, 3, 16, 16, dtype=kind)
    with torch.inference_mode():
        error = distance(fold(model)(x), model(x).double())
    assert error < (1e-6 if kind == torch.float64 else 0.05)


def test_gradients_of_pixels_go_through_a_folded_network(spec: DataSpec):
    model = trained(ConvMixerConfig(dim=8, depth=2, kernel_size=3, patch_size=2).build(spec))
    gradients = []
    for network in (model, fold(model)):
        x = torch.ones(2, 3, 16, 16, requires_grad=True)
        network(x).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_folding_leaves_the_network_as_it_is(spec: DataSpec):
    model = trained(ConvMixerConfig(dim=8, depth=2, kernel_size=3, patch_size=2).build(spec))
    before, folded = copy.deepcopy(model.state_dict()), fold(model)
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_folded_network_is_exported_as_pytorchs_own_operations(spec: DataSpec):
    folded, x = (
        fold(trained(ConvMixerConfig(dim=8, depth=2, kernel_size=3, patch_size=2).build(spec))),
        torch.rand(2, 3, 16, 16),
    )
    exported = torch.export.export(folded, (x,))
    assert "mixlab" not in str(exported.graph)
    torch.testing.assert_close(exported.module()(x), folded(x))
