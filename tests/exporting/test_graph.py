"""The exported graph says what the network says, of pictures of any size."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from mixlab.data.resample import resize, square_region
from mixlab.evaluation.calibration import softmax
from mixlab.evaluation.explanation import class_activation
from mixlab.evaluation.networks import TorchNetwork
from mixlab.exporting.graph import any_square_region, has_heat
from mixlab.exporting.onnx_file import as_onnx
from mixlab.models.catalogue import parse_model
from mixlab.run.bundle import METADATA, Bundle, BundleDescription, as_text
from mixlab.spec import DataSpec

SIZES = [(16, 16), (1, 9), (31, 1), (17, 40), (64, 23), (5, 7)]
NETWORKS = {
    "convmixer": {"dim": 12, "depth": 2, "kernel_size": 3},
    "convmixer even": {"dim": 12, "depth": 2, "kernel_size": 4, "patch_size": 3, "patch_stride": 2, "patch_padding": 1},
    "convmixer relu": {"dim": 8, "depth": 2, "kernel_size": 3, "activation": "relu", "norm": "layer"},
    "convmixer gamma": {"dim": 8, "depth": 2, "kernel_size": 3, "residual": "gamma"},
    "vit": {"dim": 8, "depth": 2, "heads": 2, "patch_size": 4},
    "vit mean": {"dim": 8, "depth": 2, "heads": 2, "patch_size": 4, "pool": "mean", "projection": "convolution"},
    "vit flatten": {"dim": 8, "depth": 1, "heads": 2, "patch_size": 4, "pool": "flatten", "head_dims": (16,)},
    "mlp_mixer": {"dim": 8, "depth": 2, "patch_size": 4},
    "resnet9": {"width": 4},
    "resnet": {"width": 4, "stages": (1, 1)},
    "resnet imagenet": {"width": 4, "stages": (1, 1), "stem": "imagenet"},
}
MODES = ("crop", "pad", "squash")


def bundle(name: str, mode: str, channels: int) -> Bundle:
    """Return a network whose normalisations and weights are far from those at the start."""
    torch.manual_seed(1)
    spec = DataSpec.parse(
        {
            "channels": channels,
            "image_size": 16,
            "classes": ("a", "b", "c"),
            "mean": (0.5, 0.4, 0.3)[:channels],
            "std": (0.2, 0.25, 0.3)[:channels],
            "resize_mode": mode,
        }
    )
    config = parse_model({"name": name.split()[0], **NETWORKS[name]})
    network = config.build(spec)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias)
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.running_mean)  # pyright: ignore[reportArgumentType]
            nn.init.uniform_(layer.running_var, 0.5, 2)  # pyright: ignore[reportArgumentType]
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.5)
    description = BundleDescription(mixlab="", model=config, spec=spec, temperature=1.7)
    return Bundle(description, network.state_dict())


def check(name: str, mode: str, channels: int) -> None:
    given = bundle(name, mode, channels)
    network, heat = given.build(), has_heat(given.build())
    session = onnxruntime.InferenceSession(as_onnx(given, heat))
    assert session.get_modelmeta().custom_metadata_map == {METADATA: as_text(given.description)}
    generator, expected = np.random.default_rng(0), TorchNetwork(given, "cpu")
    for height, width in SIZES:
        for count in (1, 3):
            pictures = generator.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
            probabilities, logits, *maps = session.run(None, {"pictures": pictures})
            wanted = expected.logits(list(pictures))
            assert np.abs(logits - wanted).max() < max(1e-4, 1e-5 * np.abs(wanted).max()), (height, width, count)
            assert np.abs(probabilities - softmax(logits, 1.7)).max() < 1e-6
            if heat:
                inputs = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
                inputs = resize(
                    inputs, 16, given.description.spec.resize_mode, torch.tensor(given.description.spec.mean)
                )
                chosen = class_activation(network, inputs, [2] * count)
                np.testing.assert_allclose(maps[0][:, 2], chosen, rtol=1e-3, atol=1e-4)
                bias = given.state["classifier.bias"].numpy()
                np.testing.assert_allclose(maps[0].sum((2, 3)) + bias, logits, rtol=1e-3, atol=1e-4)


def test_an_onnx_file_says_what_the_network_says():
    check("convmixer even", "pad", 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mode", "channels"),
    [(name, MODES[place % 3], 1 + 2 * (place % 2)) for place, name in enumerate(NETWORKS)]
    + [("convmixer", "squash", 1), ("convmixer", "pad", 1), ("convmixer", "crop", 3)],
)
def test_every_network_is_exported(name: str, mode: str, channels: int):
    check(name, mode, channels)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 8), (500, 333), (4000, 1)])
def test_the_region_of_a_size_known_late_is_that_of_a_known_size(height: int, width: int, mode):
    assert any_square_region(height, width, mode)[0].tolist() == list(square_region(height, width, mode))
