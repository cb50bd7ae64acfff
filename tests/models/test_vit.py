import pytest
import torch
from torch import nn

from mixlab.errors import UsageError
from mixlab.experiment import compose
from mixlab.models.catalogue import create_model, parse_model
from mixlab.models.inspection import layers, macs
from mixlab.models.layers import convert_projections, cut_patches
from mixlab.models.vit import TokenConv
from mixlab.spec import DataSpec

SMALL = {"dim": 24, "depth": 3, "heads": 4, "patch_size": 4}


def vit(image_size: int = 16, **fields) -> nn.Module:
    torch.manual_seed(0)
    return create_model("vit", num_classes=3, image_size=image_size, **{**SMALL, **fields}).eval()


@pytest.mark.parametrize("name", ["vit_512_6_patch4", "vit_small_patch4"])
def test_the_vit_of_convolutions_is_the_vit(name: str):
    linear, convolutional = (
        create_model(each, num_classes=10, image_size=32).eval() for each in (name, f"{name}_conv")
    )
    convolutional.load_state_dict(convert_projections(linear.state_dict(), convolutional.state_dict()))
    images = torch.rand(4, 3, 32, 32)
    with torch.inference_mode():
        assert (linear(images) - convolutional(images)).abs().max() < 1e-5


def test_conversion_goes_both_ways():
    linear, convolutional = vit(), vit(projection="convolution")
    there = convert_projections(linear.state_dict(), convolutional.state_dict())
    back = convert_projections(there, linear.state_dict())
    assert there["blocks.0.attention.qkv.weight"].shape == (72, 24, 1, 1)
    assert all(torch.equal(back[name], tensor) for name, tensor in linear.state_dict().items())


def test_only_the_classifier_of_the_convolutional_vit_is_linear():
    model = create_model("vit_512_6_patch4_conv", num_classes=10)
    assert [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)] == ["classifier"]
    convolutions = [layer for layer in model.modules() if isinstance(layer, TokenConv)]
    assert len(convolutions) == 1 + 6 * 4
    assert all(layer.bias is None for layer in convolutions)
    in_layers = sum(layer.parameters for layer in layers(model, 3, 32) if layer.name != "(model)")
    assert in_layers == 9_480_202  # the write-up's summary leaves out class token and positions


def test_cutting_and_projecting_is_a_convolution_of_the_same_weights():
    images = torch.rand(2, 3, 13, 9)  # leaves a row and a column over
    convolution = nn.Conv2d(3, 5, 4, stride=4)
    linear = nn.Linear(48, 5)
    linear.load_state_dict(convert_projections(convolution.state_dict(), linear.state_dict()))
    expected = convolution(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(linear(cut_patches(images, 4)), expected)


def test_attention_is_torchs():
    """torch's own attention layer, with the same weights, gives the same tokens and the same shares."""
    attention = vit().blocks[0].attention
    theirs = nn.MultiheadAttention(24, 4, batch_first=True)
    theirs.in_proj_weight.data.copy_(attention.qkv.weight)
    theirs.in_proj_bias.data.copy_(attention.qkv.bias)
    theirs.out_proj.load_state_dict(attention.out.state_dict())
    tokens = torch.rand(2, 17, 24)
    expected, shares = theirs(tokens, tokens, tokens, average_attn_weights=False)
    torch.testing.assert_close(attention(tokens), expected)
    torch.testing.assert_close(attention.weights(tokens), shares)


def test_a_block_is_torchs_pre_norm_layer():
    block = vit(mlp_dim=40).blocks[0]
    theirs = nn.TransformerEncoderLayer(24, 4, 40, activation="gelu", batch_first=True, norm_first=True).train()
    for layer in theirs.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    theirs.self_attn.dropout = 0.0
    names = {
        "self_attn.in_proj_": "attention.qkv.",
        "self_attn.out_proj.": "attention.out.",
        "linear1.": "mlp.0.",
        "linear2.": "mlp.3.",
        "norm1.": "attention_norm.",
        "norm2.": "mlp_norm.",
    }
    own = block.state_dict()
    theirs.load_state_dict(
        {their + kind: own[our + kind] for their, our in names.items() for kind in ("weight", "bias")}
    )
    tokens = torch.rand(2, 17, 24)
    torch.testing.assert_close(block(tokens), theirs(tokens))


@pytest.mark.parametrize("pool", ["token", "mean"])
@pytest.mark.parametrize("size", [(24, 24), (16, 28), (8, 8)])
def test_positions_are_interpolated_for_other_sizes(pool: str, size: tuple[int, int]):
    model = vit(pool=pool)
    assert model(torch.rand(2, 3, *size)).shape == (2, 3)
    positions = model.positions_for(size[0] // 4, size[1] // 4)
    assert positions.shape == (size[0] * size[1] // 16 + (pool == "token"), 24)


def test_interpolated_positions_keep_a_constant_and_the_class_tokens_own():
    model = vit()
    model.positions.data.fill_(0.25)
    model.positions.data[0] = 7.0
    positions = model.positions_for(6, 5)
    assert torch.equal(positions[0], model.positions[0])
    torch.testing.assert_close(positions[1:], torch.full((30, 24), 0.25))


def test_a_mean_pooled_vit_without_positions_does_not_see_the_order_of_patches():
    model = vit(pool="mean")
    model.positions.data.zero_()
    images = torch.rand(2, 3, 16, 16)
    turned = torch.cat([images[:, :, 8:], images[:, :, :8]], 2)  # whole patches change places
    torch.testing.assert_close(model(images), model(turned))


def test_heads_that_do_not_divide_dim_are_refused():
    with pytest.raises(UsageError, match="dim=10 is no multiple of heads=4"):
        parse_model({"name": "vit", "dim": 10, "heads": 4})
    with pytest.raises(UsageError, match=r"^model: dim=64 is no multiple of heads=3"):
        compose("digits", {"model": "vit"}, ["model.heads=3"])


def test_widths_are_rounded_to_the_heads():
    assert parse_model({"name": "vit", **SMALL}).with_width(30).dim == 32


def test_operations_include_attention(spec: DataSpec):
    model = vit(pool="mean", depth=1)
    tokens, dim = 16, 24
    linear = tokens * (48 * dim + 4 * dim * dim + 8 * dim * dim) + dim * 3
    assert macs(model, 3, 16) == linear + 2 * tokens * tokens * dim
