from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from mixlab.data import colors
from mixlab.data.rand_augment import (
    COLORS,
    OPERATIONS,
    ROTATE,
    SHARPNESS,
    RandAugmentConfig,
    draw_operations,
    rand_augment,
)

SIDE = 31
FILL = torch.tensor([0.5, 0.4, 0.3])


def picture(side: int = SIDE) -> Image.Image:
    """Smooth waves, so that interpolation compares, under noise of a few levels, each channel in a range of its own."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    waves = np.stack([np.sin(5 * x + 3 * y), np.cos(4 * x - y), np.sin(6 * y)], 2)
    pixels = 120 + waves * [90, 60, 100] + generator.integers(-5, 6, (side, side, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def apply(name: str, magnitude: float, images: Tensor | None = None) -> Tensor:
    """Return the images (default: the picture) after one operation; magnitude in [-30, 30]."""
    images = tensor(picture())[None] if images is None else images
    shape = (len(images), 1)
    return rand_augment(
        images, torch.full(shape, OPERATIONS.index(name)), torch.full(shape, magnitude / 30), FILL[: images.shape[1]]
    )


def difference(ours: Tensor, theirs: Image.Image) -> Tensor:
    """Return |ours - theirs| in levels, (3, side, side)."""
    return (ours[0] - tensor(theirs)).abs() * 255


def pillow_affine(image: Image.Image, coefficients: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


AFFINE: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "shear_x": lambda image, m: pillow_affine(image, (1, 0.3 * m, 0, 0, 1, 0)),
    "shear_y": lambda image, m: pillow_affine(image, (1, 0, 0, 0.3 * m, 1, 0)),
    "translate_x": lambda image, m: pillow_affine(image, (1, 0, 150 / 331 * m * SIDE, 0, 1, 0)),
    "translate_y": lambda image, m: pillow_affine(image, (1, 0, 0, 0, 1, 150 / 331 * m * SIDE)),
    "rotate": lambda image, m: image.rotate(30 * m, Image.Resampling.BILINEAR),
}
COLOR: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(1 + 0.9 * m),
    "color": lambda image, m: ImageEnhance.Color(image).enhance(1 + 0.9 * m),
    "contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(1 + 0.9 * m),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * m),
}
LEVELS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "posterize": lambda image, m: ImageOps.posterize(image, 8 - round(4 * m)),
    "solarize": lambda image, m: ImageOps.solarize(image, round(255 * (1 - m), 6)),
    "auto_contrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
}


def test_every_operation_has_an_oracle():
    assert ("identity", *AFFINE, *COLOR, *LEVELS) == OPERATIONS
    assert len(OPERATIONS) == 14
    assert len(COLORS) == len(OPERATIONS) - ROTATE - 1


def test_identity_changes_nothing():
    assert torch.equal(apply("identity", 20)[0], tensor(picture()))


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("magnitude", [-30, -9, 4.5, 30])
def test_geometry_moves_pixels_where_pillow_does(name: str, magnitude: float):
    inside = np.array(AFFINE[name](Image.new("L", (SIDE, SIDE), 255), magnitude / 30))
    outside = np.pad(255 - inside, 2, constant_values=255)
    interior = torch.nn.functional.max_pool2d(torch.from_numpy(outside).float()[None], 5, 1)[0] == 0
    assert interior.sum() > 200
    off = difference(apply(name, magnitude), AFFINE[name](picture(), magnitude / 30))
    assert off[:, interior].max() <= 1.5  # Pillow rounds


@pytest.mark.parametrize("name", AFFINE)
def test_what_geometry_uncovers_is_the_mean(name: str):
    outside = np.array(AFFINE[name](Image.new("L", (SIDE, SIDE), 255), 1.0)) == 0
    eroded = torch.nn.functional.max_pool2d(1 - torch.from_numpy(outside).float()[None], 3, 1, 1)[0] == 0
    assert eroded.sum() > 5
    torch.testing.assert_close(apply(name, 30)[0][:, eroded], FILL[:, None].expand(3, int(eroded.sum())))


@pytest.mark.parametrize("name", COLOR)
@pytest.mark.parametrize("magnitude", [-30, -9, 4.5, 30])
def test_colour_changes_as_pillows_does(name: str, magnitude: float):
    assert difference(apply(name, magnitude), COLOR[name](picture(), magnitude / 30)).max() <= 2  # Pillow rounds twice


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("magnitude", [0, 1, 9, 10, 15.5, 20, 30])
@pytest.mark.parametrize("side", [16, SIDE, 64])
def test_levels_are_pillows_exactly(name: str, magnitude: float, side: int):
    image = picture(side)
    ours = apply(name, magnitude, tensor(image)[None])
    off = difference(ours, LEVELS[name](image, magnitude / 30))
    assert off.max() < (1.001 if name == "auto_contrast" else 0.001)  # Pillow truncates a rounded product


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("value", [0.0, 0.6, 1.0])
def test_images_of_one_colour_stay_images(name: str, value: float):
    images = torch.full((2, 3, 8, 8), value)
    out = apply(name, 30, images)
    assert out.min() >= -1e-6
    assert out.max() <= 1 + 1e-6
    if name in ("auto_contrast", "equalize", "contrast", "color", "sharpness"):
        torch.testing.assert_close(out, images)


@pytest.mark.parametrize("name", OPERATIONS)
def test_one_channel_is_treated_as_pillow_treats_grey(name: str):
    image = picture().convert("L")
    ours = apply(name, 9, torch.from_numpy(np.array(image))[None, None].float() / 255)
    assert ours.shape == (1, 1, SIDE, SIDE)
    oracle = (COLOR | LEVELS).get(name)
    if oracle and name != "color":
        theirs = torch.from_numpy(np.array(oracle(image, 9 / 30))).float()
        assert (ours[0, 0] * 255 - theirs).abs().max() <= 2
    if name == "color":
        torch.testing.assert_close(ours[0, 0] * 255, torch.from_numpy(np.array(image)).float())


def test_each_image_of_a_batch_gets_its_own_operations_one_after_the_other():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 3, SIDE, SIDE, generator=generator)
    operations = torch.randint(0, len(OPERATIONS), (40, 3), generator=generator)
    magnitudes = torch.rand(40, 3, generator=generator)
    magnitudes *= torch.where(operations <= SHARPNESS, torch.randint(0, 2, (40, 3), generator=generator) * 2 - 1, 1)
    together = rand_augment(images, operations, magnitudes, FILL)
    for row in range(40):
        alone = images[row : row + 1]
        for slot in range(3):
            alone = apply(OPERATIONS[operations[row, slot]], magnitudes[row, slot].item() * 30, alone)
        off = (together[row] - alone[0]).abs() > 1e-4  # a rounded level may tip
        assert off.float().mean() < 0.02


def test_operations_are_drawn_evenly_and_independently_for_each_image():
    drawn, _ = draw_operations(RandAugmentConfig(operations=2), 14_000, np.random.default_rng(0))
    for slot in (0, 1):
        counts = np.bincount(drawn[:, slot], minlength=14)
        assert len(counts) == 14
        assert np.abs(counts - 1000).max() < 130  # 4 standard deviations
    assert np.mean(drawn[:, 0] == drawn[:, 1]) == pytest.approx(1 / 14, abs=0.01)


def test_signed_operations_go_both_ways_and_the_others_one():
    drawn, magnitudes = draw_operations(RandAugmentConfig(operations=1), 14_000, np.random.default_rng(0))
    for code, name in enumerate(OPERATIONS):
        negative = np.mean(magnitudes[drawn == code] < 0)
        both = name in AFFINE or name in COLOR
        assert negative == (pytest.approx(0.5, abs=0.07) if both else 0) or name == "identity"
    np.testing.assert_allclose(np.abs(magnitudes), 9 / 30)


def test_magnitudes_vary_as_asked_and_stay_in_their_range():
    config = RandAugmentConfig(operations=1, magnitude=9, magnitude_deviation=2)
    levels = np.abs(draw_operations(config, 10_000, np.random.default_rng(0))[1]) * 30
    assert levels.mean() == pytest.approx(9, abs=0.1)
    assert levels.std() == pytest.approx(2, abs=0.1)
    config = RandAugmentConfig(operations=1, magnitude=28, magnitude_deviation=20)
    levels = np.abs(draw_operations(config, 10_000, np.random.default_rng(0))[1]) * 30
    assert levels.min() == 0
    assert levels.max() == 30


def test_operations_are_applied_as_often_as_asked():
    drawn, _ = draw_operations(RandAugmentConfig(operations=2, probability=0.3), 10_000, np.random.default_rng(0))
    assert np.mean(drawn != 0) == pytest.approx(0.3 * 13 / 14, abs=0.01)


@pytest.mark.parametrize("change", COLORS)
def test_a_change_of_colour_leaves_its_input_alone(change: Callable[[Tensor, Tensor], Tensor]):
    images = tensor(picture())[None].repeat(3, 1, 1, 1)
    before = images.clone()
    change(images, torch.tensor([0.1, 0.5, 1.0]))
    assert torch.equal(images, before)


def test_jitter_of_grey_images_leaves_their_input_alone():
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    colors.jitter_color(images, torch.ones(2, 3))
    assert torch.equal(images, before)
