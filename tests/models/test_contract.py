"""What every architecture promises, in every choice that its config offers."""

import pytest
import torch
from torch import nn

from mixlab.errors import UsageError
from mixlab.models.catalogue import (
    ARCHITECTURES,
    PUBLISHED,
    create_model,
    parse_model,
    published_name,
    usual_image_size,
)
from mixlab.models.inspection import layers, macs, parameters
from mixlab.spec import DataSpec

SMALL = {
    "convmixer": {"dim": 8, "depth": 2, "kernel_size": 3},
    "vit": {"dim": 8, "depth": 2, "heads": 2, "patch_size": 4},
    "mlp_mixer": {"dim": 8, "depth": 2, "patch_size": 4},
    "resnet9": {"width": 4},
    "resnet": {"width": 4, "stages": (1, 1, 2)},
}
CHOICES = {
    "convmixer": [
        {"kernel_size": 4},
        {"kernel_size": 1},
        {"activation": "relu"},
        {"norm": "layer"},
        {"residual": "none"},
        {"residual": "gamma"},
        {"residual": "both"},
        {"patch_size": 3, "patch_stride": 1, "patch_padding": 1},
        {"patch_size": 7},
        {"dropout": 0.5, "drop_path": 0.5},
        {"initialisation": "kaiming"},
    ],
    "vit": [
        {"pool": "mean"},
        {"pool": "flatten", "head_dims": (16, 8), "head_dropout": 0.5},
        {"projection": "convolution"},
        {"projection": "convolution", "bias": False, "head_dim": 3},
        {"dropout": 0.2, "attention_dropout": 0.2, "drop_path": 0.5},
        {"mlp_dim": 12, "patch_size": 5},
        {"initialisation": "kaiming"},
    ],
    "mlp_mixer": [
        {"token_mlp_dim": 3, "channel_mlp_dim": 5},
        {"dropout": 0.2, "drop_path": 0.5},
        {"patch_size": 5},
        {"initialisation": "truncated_normal"},
    ],
    "resnet9": [{"dropout": 0.0}, {"initialisation": "default"}],
    "resnet": [{"stem": "imagenet"}, {"drop_path": 0.5, "dropout": 0.1}, {"stages": (2,)}],
}
CASES = [{"name": name, **SMALL[name], **choice} for name in SMALL for choice in [{}, *CHOICES[name]]]
every_case = pytest.mark.parametrize("fields", CASES, ids=str)


def build(spec: DataSpec, fields: dict) -> nn.Module:
    torch.manual_seed(0)
    return parse_model(fields).build(spec)


@every_case
def test_what_no_patch_holds_is_known(spec: DataSpec, fields: dict):
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    build(spec, fields).eval()(images)[0, 0].backward()
    assert images.grad is not None
    edge = parse_model(fields).unread_edge(16)
    for side in (2, 3):
        read = images.grad.abs().sum([axis for axis in range(4) if axis != side]) > 0
        assert read.tolist() == [True] * (16 - edge) + [False] * edge


def test_every_architecture_is_in_the_contract():
    assert set(SMALL) == set(CHOICES) == set(ARCHITECTURES)


@every_case
def test_logits_are_finite_and_every_parameter_learns(spec: DataSpec, fields: dict):
    model = build(spec, fields)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):  # begins at 0, where the branch behind it learns nothing yet
            nn.init.ones_(parameter)
    logits = model(torch.rand(12, 3, 16, 16))
    assert logits.shape == (12, 3)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.arange(12) % 3).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@every_case
def test_images_do_not_influence_each_other_in_evaluation(spec: DataSpec, fields: dict):
    model = build(spec, fields).eval()
    images = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]), rtol=1e-4, atol=1e-5)


@every_case
def test_the_state_goes_round(spec: DataSpec, fields: dict):
    first, second = build(spec, fields).eval(), build(spec, fields).eval()
    second.load_state_dict(first.state_dict())
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(first(images), second(images))


@every_case
def test_the_head_answers_from_the_features(spec: DataSpec, fields: dict):
    model = build(spec, fields).eval()
    images = torch.rand(2, 3, 16, 16)
    features = model.forward_features(images)
    assert features.ndim in (3, 4)
    assert torch.equal(model.head(features), model(images))


@every_case
def test_normalisation_is_inside(spec: DataSpec, fields: dict):
    model = build(spec, fields).eval()
    plain = parse_model(fields).build(spec.model_copy(update={"mean": (0.0,) * 3, "std": (1.0,) * 3})).eval()
    plain.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 16, 16)
    mean, std = torch.tensor(spec.mean).view(3, 1, 1), torch.tensor(spec.std).view(3, 1, 1)
    torch.testing.assert_close(model(images), plain((images - mean) / std))


@pytest.mark.parametrize("size", [8, 9, 15, 33])
@pytest.mark.parametrize("channels", [1, 3])
@every_case
def test_odd_sizes_pass(fields: dict, size: int, channels: int):
    model = create_model(**fields, num_classes=4, channels=channels, image_size=size).eval()
    assert model(torch.rand(2, channels, size, size)).shape == (2, 4)


@every_case
def test_the_parts_add_up(spec: DataSpec, fields: dict):
    model = build(spec, fields)
    found = layers(model, 3, 16)
    assert sum(layer.parameters for layer in found) == parameters(model)
    assert 0 < sum(layer.macs for layer in found) == macs(model, 3, 16)


@pytest.mark.parametrize("name", SMALL)
def test_a_wider_model_has_more_parameters_in_every_layer_that_has_a_width(spec: DataSpec, name: str):
    config = parse_model({"name": name, **SMALL[name]})
    counts = [parameters(config.with_width(factor * config.width).build(spec)) for factor in (1, 2, 3)]
    assert counts[0] < counts[1] < counts[2]
    assert config.with_width(config.width) == config


@every_case
def test_bfloat16_answers_nearly_the_same(spec: DataSpec, fields: dict):
    model = build(spec, fields).eval()
    images = torch.rand(2, 3, 16, 16)
    exact = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(images).float(), exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        # the origin's write-ups
        ("vit_small_patch4", 10, 811_146),
        ("vit_512_6_patch4_conv", 10, 9_513_994),
        ("resnet9", 10, 1_647_242),
        # the published ones
        ("vit_tiny_patch16_224", 1000, 5_717_416),
        ("vit_small_patch16_224", 1000, 22_050_664),
        ("vit_base_patch16_224", 1000, 86_567_656),
        ("mixer_s16_224", 1000, 18_528_264),
        ("mixer_b16_224", 1000, 59_880_472),
        ("resnet18", 1000, 11_689_512),
        ("resnet34", 1000, 21_797_672),
        ("resnet18_cifar", 10, 11_173_962),
    ],
)
def test_published_sizes_have_their_parameters(name: str, classes: int, count: int):
    with torch.device("meta"):
        assert parameters(create_model(name, num_classes=classes)) == count


def test_a_reduced_resnet18_is_as_large_as_the_networks_it_is_compared_with():
    with torch.device("meta"):
        assert 800_000 <= parameters(create_model("resnet18_cifar_w20", num_classes=10)) <= 1_600_000


@pytest.mark.parametrize("name", ["convmixer", "vit", "mlp_mixer"])
def test_a_patch_larger_than_the_image_is_refused(spec: DataSpec, name: str):
    with pytest.raises(UsageError, match=r"patch_size=32 is larger than the image \(16 px\)"):
        build(spec, {"name": name, **SMALL[name], "patch_size": 32})


def test_an_image_too_small_for_resnet9_is_refused(spec: DataSpec):
    with pytest.raises(UsageError, match="8 px or more, not 6"):
        build(spec.model_copy(update={"image_size": 6}), {"name": "resnet9"})


def test_names_of_published_sizes_go_round():
    for name, (_, config) in PUBLISHED.items():
        assert published_name(parse_model(name)) == name
        assert parse_model({"name": name}) == config
        assert usual_image_size(name) >= 8
    assert parse_model({"name": "convmixer_256_8", "kernel_size": 9}).kernel_size == 9
    with pytest.raises(UsageError, match="did you mean convmixer_256_8"):
        parse_model("convmixer_256_9")
    with pytest.raises(UsageError, match="did you mean resnet18"):
        parse_model("resnet_18")
