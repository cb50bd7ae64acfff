"""Claims about what networks look at, against formulas and networks whose answer is known."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mixlab.errors import UsageError
from mixlab.evaluation.explanation import (
    attention_rollout,
    class_activation,
    depthwise_kernels,
    feature_maps,
    heat_map_kind,
    heat_maps,
    layer_names,
    patch_filters,
)
from mixlab.models.catalogue import ARCHITECTURES, parse_model
from mixlab.models.layers import Normalize, cut_patches
from mixlab.models.vit import Attention
from mixlab.spec import DataSpec

SMALL = {
    "convmixer": {"dim": 8, "depth": 2, "kernel_size": 3},
    "vit": {"dim": 8, "depth": 2, "heads": 2, "patch_size": 4},
    "mlp_mixer": {"dim": 8, "depth": 2, "patch_size": 4},
    "resnet9": {"width": 4},
    "resnet": {"width": 4, "stages": (1, 1, 2)},
}
SIDES = {"convmixer": 8, "vit": 4, "mlp_mixer": 4, "resnet9": 2, "resnet": 4}  # of the last grid for 16 px
KINDS = [*SMALL, "vit mean", "vit flatten", "vit convolution"]
every_network = pytest.mark.parametrize("kind", KINDS)


def build(spec: DataSpec, kind: str, **fields: object) -> nn.Module:
    torch.manual_seed(0)
    name, _, choice = kind.partition(" ")
    chosen = {"projection": choice} if choice == "convolution" else {"pool": choice} if choice else {}
    model = parse_model({"name": name, **SMALL[name], **chosen, **fields}).build(spec)
    for parameter in model.parameters():  # away from zero biases and from attention that is all alike
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_every_architecture_is_here():
    assert set(SMALL) == set(ARCHITECTURES)


@every_network
def test_heat_maps_have_the_grid_of_the_last_features_and_reach_one(spec: DataSpec, kind: str):
    model, side = build(spec, kind), SIDES[kind.split()[0]]
    found = heat_maps(model, images(4), [0, 1, 2, 0])
    assert found.shape == (4, side, side)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert set(found.max((1, 2)).round(5)) <= {0.0, 1.0}  # 0: nothing speaks for the class
    assert found.any()
    assert heat_map_kind(model) == ("attention rollout" if kind in ("vit", "vit convolution") else "class activation")


@pytest.mark.parametrize("kind", ["convmixer", "resnet", "mlp_mixer", "vit mean"])
def test_mean_and_linear_give_the_class_activation_map_of_zhou(spec: DataSpec, kind: str):
    model = build(spec, kind)
    with torch.no_grad():
        features = model.forward_features(images(3))
    if features.ndim == 3:
        features = features.mT.unflatten(2, (4, 4))
    weights = model.classifier.weight[[2, 0, 1]].detach()
    expected = torch.einsum("nk,nkij->nij", weights, features)
    found = class_activation(model, images(3), [2, 0, 1]) * expected[0].numel()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    scaled = expected.relu() / expected.relu().amax((1, 2), keepdim=True).clamp(min=1e-30)
    np.testing.assert_allclose(heat_maps(model, images(3), [2, 0, 1]), scaled, atol=1e-4)


@pytest.mark.parametrize("kind", ["convmixer", "resnet9", "mlp_mixer", "vit flatten"])
def test_the_places_add_up_to_the_logit_without_its_bias(spec: DataSpec, kind: str):
    model = build(spec, kind)
    nn.init.zeros_(model.classifier.bias)
    with torch.no_grad():
        logits = model(images(3))
    found = class_activation(model, images(3), [1, 1, 2]).sum((1, 2))
    torch.testing.assert_close(found, logits[torch.arange(3), torch.tensor([1, 1, 2])], atol=1e-4, rtol=1e-4)


class OneQuadrant(nn.Module):
    """Its one logit is how bright the image is in the quadrant at the top right."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 1)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.stem(x).square() + x.mean()

    def head(self, features: Tensor) -> Tensor:
        return features[:, :, :8, 8:].mean((1, 2, 3))[:, None]


def test_a_classifier_of_one_quadrant_lights_that_quadrant():
    found = heat_maps(OneQuadrant(), images(2), [0, 0])
    assert (found[:, :8, 8:] > 0).all()
    assert np.count_nonzero(found) == found[:, :8, 8:].size


def test_a_token_that_is_all_that_counts_is_all_that_lights(spec: DataSpec):
    model = build(spec, "vit flatten")
    with torch.no_grad():
        model.classifier.weight.view(3, 16, 8)[:, torch.arange(16) != 6] = 0
    found = class_activation(model, images(2), [0, 1]).flatten(1)
    assert (found[:, 6] != 0).all()
    assert (found.count_nonzero(1) == 1).all()


@pytest.mark.parametrize("kind", ["vit", "vit convolution"])
def test_rollout_is_shares_that_the_matrix_product_of_the_paper_gives(spec: DataSpec, kind: str):
    model, expected = build(spec, kind), torch.eye(17)
    with torch.no_grad():
        tokens = model.patch_embedding(cut_patches(model.normalize(images(1)), 4))
        tokens = torch.cat([model.class_token.expand(1, 1, -1), tokens], 1) + model.positions
        for block in model.blocks:
            attention = block.attention.weights(block.attention_norm(tokens))[0].mean(0)
            expected = (attention + torch.eye(17)) @ expected / 2
            tokens = block(tokens)
    found = attention_rollout(model, images(1))
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found.sum(2), torch.ones(1, 17))
    grid = expected[0, 1:].reshape(4, 4)
    np.testing.assert_allclose(heat_maps(model, images(1), [2])[0], grid / grid.max(), atol=1e-5)


def test_rollout_finds_the_patch_that_attention_is_on(spec: DataSpec):
    model = build(spec, "vit", depth=1)
    attention = next(layer for layer in model.modules() if isinstance(layer, Attention))
    attention.weights = lambda x: functional.one_hot(torch.full((len(x), 2, 17), 1 + 9), 17).float()
    found = heat_maps(model, images(1), [0])[0]
    assert found.argmax() == 9
    assert found.sum() == 1


@every_network
def test_feature_maps_are_grids_of_the_stem_and_every_block(spec: DataSpec, kind: str):
    model = build(spec, kind)
    found = feature_maps(model, images(1)[0])
    assert list(found) == layer_names(model)
    last = list(found.values())[-1]
    assert last.ndim == 3
    assert last.shape[1:] == (SIDES[kind.split()[0]],) * 2
    chosen = layer_names(model)[1]
    np.testing.assert_array_equal(feature_maps(model, images(1)[0], [chosen])[chosen], found[chosen])


def test_a_feature_map_is_the_blocks_output(spec: DataSpec):
    model = build(spec, "convmixer")
    with torch.no_grad():
        expected = model.blocks[0](model.stem(model.normalize(images(1))))[0]
    np.testing.assert_allclose(feature_maps(model, images(1)[0])["blocks.0"], expected, atol=1e-6)


def test_tokens_come_back_to_where_their_patches_were(spec: DataSpec):
    model = build(spec, "vit")
    with torch.no_grad():
        model.blocks[0] = nn.Identity()
        token = (
            model.patch_embedding(cut_patches(model.normalize(images(1)), 4))[0, 4 * 2 + 3] + model.positions[1 + 11]
        )
    np.testing.assert_allclose(feature_maps(model, images(1)[0])["blocks.0"][:, 2, 3], token.detach(), atol=1e-5)


@every_network
def test_nothing_of_the_network_changes(spec: DataSpec, kind: str):
    model = build(spec, kind, **({} if kind == "resnet9" else {"drop_path": 0.5}))
    model.train()
    model.classifier.eval()
    before, modes = copy.deepcopy(model.state_dict()), [layer.training for layer in model.modules()]
    generator = torch.get_rng_state()
    with torch.no_grad():
        heat_maps(model, images(2), [0, 1])
    feature_maps(model, images(1)[0])
    patch_filters(model)
    depthwise_kernels(model)
    assert [layer.training for layer in model.modules()] == modes
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())
    assert torch.equal(generator, torch.get_rng_state())


def test_hooks_and_modes_are_put_back_where_the_network_fails(spec: DataSpec):
    model = build(spec, "mlp_mixer").train()
    with pytest.raises(UsageError, match="cannot take 8 x 8"):
        feature_maps(model, torch.rand(3, 8, 8))
    assert all(layer.training and not layer._forward_hooks for layer in model.modules())


@pytest.mark.parametrize("kind", ["vit", "vit convolution", "mlp_mixer"])
def test_filters_of_tokens_are_the_convolution_that_embeds_patches(spec: DataSpec, kind: str):
    model = build(spec, kind)
    filters = torch.from_numpy(patch_filters(model))
    pixels = model.normalize(images(1))
    with torch.no_grad():
        embedded = model.patch_embedding(cut_patches(pixels, 4)) - model.patch_embedding.bias
    found = functional.conv2d(pixels, filters, stride=4).flatten(2).mT
    torch.testing.assert_close(found.sort(2).values, embedded.sort(2).values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "side"), [("convmixer", 2), ("resnet9", 3), ("resnet", 3), ("vit", 4)])
def test_filters_are_those_of_the_first_layer_the_largest_first(spec: DataSpec, kind: str, side: int):
    found = patch_filters(build(spec, kind))
    assert found.shape[1:] == (3, side, side)
    norms = np.linalg.norm(found.reshape(len(found), -1), axis=1)
    assert (np.diff(norms) <= 1e-6).all()


def test_a_first_layer_of_single_pixels_has_no_filters(spec: DataSpec):
    assert patch_filters(build(spec, "convmixer", patch_size=1)) is None
    assert patch_filters(build(spec, "vit", patch_size=1)) is None
    assert patch_filters(nn.Sequential(Normalize((0.5,), (0.5,)), nn.Flatten())) is None


def test_depthwise_kernels_of_each_depth(spec: DataSpec):
    found = depthwise_kernels(build(spec, "convmixer", kernel_size=4))
    assert {name: kernels.shape for name, kernels in found.items()} == {
        "blocks.0.depthwise.0": (8, 4, 4),
        "blocks.1.depthwise.0": (8, 4, 4),
    }
    assert all(depthwise_kernels(build(spec, kind)) == {} for kind in KINDS if kind != "convmixer")


def test_questions_that_cannot_be_answered(spec: DataSpec):
    model = build(spec, "convmixer")
    with pytest.raises(UsageError, match="2 images need as many classes, not 1"):
        heat_maps(model, images(2), [0])
    with pytest.raises(UsageError, match=r"no layer 'blocks.7'; did you mean blocks\.[01]"):
        feature_maps(model, images(1)[0], ["blocks.7"])
    with pytest.raises(UsageError, match="'classifier' has no feature map"):
        feature_maps(model, images(1)[0], ["classifier"])
    assert math.isfinite(heat_maps(model, images(1) * 0, [1]).sum())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_network
def test_a_gpu_finds_the_same(spec: DataSpec, kind: str):
    model = build(spec, kind)
    expected = heat_maps(model, images(2), [0, 1])
    np.testing.assert_allclose(heat_maps(model.cuda(), images(2), [0, 1]), expected, atol=1e-2)
