import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mixlab.errors import UsageError
from mixlab.models.catalogue import create_model
from mixlab.models.convmixer import ConvMixerConfig
from mixlab.models.inspection import activation_bytes, layers, macs, parameters
from mixlab.models.layers import DropPath, SameConv2d
from mixlab.spec import DataSpec


def build(spec: DataSpec, **fields) -> nn.Module:
    return ConvMixerConfig.parse({"dim": 8, "depth": 2, "kernel_size": 3, **fields}).build(spec)


def formula(dim: int, depth: int, kernel_size: int, patch_size: int, channels: int, classes: int) -> int:
    """The paper's number of parameters."""
    blocks = depth * (kernel_size**2 + dim + 6)
    return dim * (blocks + channels * patch_size**2 + classes + 3) + classes


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("convmixer_256_10", 10, 741_130),
        ("convmixer_256_12_gamma", 10, 961_814),
        ("convmixer_256_8", 10, 594_186),
        ("convmixer_768_32", 1000, 21_110_248),
        ("convmixer_1536_20", 1000, 51_625_960),
        ("convmixer_1024_20_ks9_p14", 1000, 24_383_464),
    ],
)
def test_published_sizes_have_their_parameters(name: str, classes: int, count: int):
    with torch.device("meta"):
        model = create_model(name, num_classes=classes)
    assert parameters(model) == count


@pytest.mark.parametrize(
    ("dim", "depth", "patch_size", "kernel_size", "thousands"),
    [
        (128, 4, 1, 8, 103),
        (128, 8, 1, 8, 205),
        (256, 8, 1, 8, 672),
        (256, 16, 1, 8, 1339),
        (256, 8, 1, 3, 559),
        (256, 8, 1, 15, 1001),
        (256, 8, 1, 9, 707),
        (256, 8, 2, 3, 561),
        (256, 8, 2, 5, 594),
        (256, 8, 2, 7, 643),
        (256, 8, 2, 9, 709),
        (256, 8, 4, 9, 718),
    ],
)
def test_the_papers_table_4_has_its_parameters(dim, depth, patch_size, kernel_size, thousands):
    fields = {"dim": dim, "depth": depth, "patch_size": patch_size, "kernel_size": kernel_size}
    with torch.device("meta"):
        count = parameters(create_model("convmixer", num_classes=10, image_size=32, **fields))
    assert count == formula(dim, depth, kernel_size, patch_size, 3, 10)
    assert abs(count / 1000 - thousands) <= 1  # the table cuts or rounds


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 24),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 5),
    st.sampled_from([1, 3]),
    st.integers(2, 9),
)
def test_the_papers_formula_counts_any_convmixer(dim, depth, kernel_size, patch_size, channels, classes):
    fields = {"dim": dim, "depth": depth, "kernel_size": kernel_size, "patch_size": patch_size}
    with torch.device("meta"):
        model = create_model("convmixer", num_classes=classes, channels=channels, image_size=8, **fields)
    assert parameters(model) == formula(dim, depth, kernel_size, patch_size, channels, classes)


def test_it_is_the_papers_network():
    """The six lines of the paper's appendix, written with stock layers, give the same logits."""

    class Residual(nn.Module):
        def __init__(self, inner: nn.Module):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x) + x

    def rest(dim: int) -> list[nn.Module]:
        return [nn.GELU(), nn.BatchNorm2d(dim)]

    dim, depth, kernel, patch = 8, 3, 4, 2
    blocks = [
        nn.Sequential(
            Residual(nn.Sequential(nn.Conv2d(dim, dim, kernel, groups=dim, padding="same"), *rest(dim))),
            nn.Conv2d(dim, dim, 1),
            *rest(dim),
        )
        for _ in range(depth)
    ]
    theirs = nn.Sequential(
        nn.Conv2d(3, dim, patch, patch), *rest(dim), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(dim, 5)
    )
    ours = create_model(
        "convmixer", num_classes=5, image_size=16, dim=dim, depth=depth, kernel_size=kernel, patch_size=patch
    )
    for (_, mine), (_, paper) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        mine.data.copy_(paper.data)
    images = torch.rand(4, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says once that even kernels make it copy
        expected = theirs(ours.normalize(images))
    torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-5)


def test_gamma_blocks_begin_as_if_they_had_no_depthwise_part(spec: DataSpec):
    model = build(spec, residual="gamma").eval()
    images = torch.rand(2, 3, 16, 16)
    before = model(images)
    for block in model.blocks:
        nn.init.normal_(block.depthwise[0].weight)
    assert torch.equal(before, model(images))


def test_drop_path_leaves_out_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    layer = DropPath(0.25)
    out = layer(torch.ones(4000, 2, 3, 3))
    per_image = out.flatten(1)
    assert ((per_image == 0).all(1) | torch.isclose(per_image, torch.tensor(1 / 0.75)).all(1)).all()
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(layer.eval()(torch.ones(2, 1)), torch.ones(2, 1))


@pytest.mark.parametrize("kernel_size", range(1, 8))
def test_same_padding_is_torchs(kernel_size: int):
    ours = SameConv2d(4, kernel_size)
    theirs = nn.Conv2d(4, 4, kernel_size, groups=4, padding="same")
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 4, 9, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says once that even kernels make it copy
        torch.testing.assert_close(ours(images), theirs(images))
        torch.testing.assert_close(ours.eval()(images), theirs(images))  # without the kernels of training


def test_macs_include_the_depthwise_part():
    model = create_model("convmixer", num_classes=10, image_size=32, dim=16, depth=2, kernel_size=5, patch_size=2)
    positions = 16 * 16
    blocks = 2 * positions * (16 * 25 + 16 * 16)
    assert macs(model, 3, 32) == positions * 3 * 4 * 16 + blocks + 16 * 10
    assert sum(layer.parameters for layer in layers(model, 3, 32)) == parameters(model)


def test_activation_memory_grows_with_the_batch_and_costs_nothing_to_know():
    model = create_model("convmixer_256_8", num_classes=10, image_size=32)
    one, four = (activation_bytes(model, batch, 3, 32) for batch in (1, 4))
    assert 3.5 < four / one < 4.01
    block_map = 256 * 16 * 16 * 4  # bytes of one feature map; a block keeps about six
    assert 40 * block_map < one < 60 * block_map


def test_a_patch_larger_than_the_image_is_refused(spec: DataSpec):
    with pytest.raises(UsageError, match=r"patch_size=32 is larger than the image \(16 px\)"):
        build(spec, patch_size=32)
