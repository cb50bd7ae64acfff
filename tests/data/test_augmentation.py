from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from mixlab.data.augmentation import AugmentationConfig, Draws, augment, box_mask, draw, jitter_color, mix
from mixlab.spec import DataSpec

ALL: dict[str, dict[str, Any]] = {
    "resized_crop": {"scale": (0.3, 1.0), "ratio": (0.75, 1.333)},
    "pad_crop": {"padding": 3},
    "horizontal_flip": {"probability": 0.5},
    "vertical_flip": {"probability": 0.5},
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
    "random_erasing": {"probability": 0.5},
    "coarse_dropout": {"size": 0.5},
    "mix": {"mixup": 0.8, "cutmix": 1.0},
}
EVERYTHING = AugmentationConfig.parse(ALL)


def batch(count: int = 16, side: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, side, side, generator=generator)
    return images, torch.nn.functional.one_hot(torch.arange(count) % 3, 3).float()


def run(config: AugmentationConfig, spec: DataSpec, seed: int = 0, step: int = 0, side: int = 16):
    images, targets = batch(side=side)
    return augment(config, spec, images, targets, draw(config, spec.image_size, len(images), seed, step))


def test_every_operation_is_in_the_contract():
    assert set(ALL) == set(AugmentationConfig.model_fields)


@pytest.mark.parametrize("name", ALL)
def test_an_operation_changes_images_by_seed_and_step_alone(name: str, spec: DataSpec):
    config = AugmentationConfig.parse({name: ALL[name]})
    images, targets = run(config, spec)
    again, again_targets = run(config, spec)
    assert torch.equal(images, again)
    assert torch.equal(targets, again_targets)
    assert not torch.equal(images, batch()[0])
    assert not torch.equal(images, run(config, spec, step=1)[0])
    assert not torch.equal(images, run(config, spec, seed=1)[0])


@pytest.mark.parametrize("name", [*ALL, "everything"])
def test_images_stay_images_and_targets_probabilities(name: str, spec: DataSpec):
    config = EVERYTHING if name == "everything" else AugmentationConfig.parse({name: ALL[name]})
    images, targets = run(config, spec, side=24)
    assert images.shape == (16, 3, 16, 16)
    assert images.min() >= -1e-6
    assert images.max() <= 1 + 1e-6
    torch.testing.assert_close(targets.sum(1), torch.ones(16))
    assert targets.min() >= 0


@pytest.mark.parametrize("name", ALL)
def test_an_operation_draws_the_same_whatever_the_others_do(name: str, spec: DataSpec):
    alone = draw(AugmentationConfig.parse({name: ALL[name]}), 16, 8, 0, 0)._asdict()
    beside = draw(EVERYTHING, 16, 8, 0, 0)._asdict()
    field = {"color_jitter": "color", "random_erasing": "erased", "coarse_dropout": "hole", "mix": "pasted"}.get(name)
    if field:
        assert torch.equal(alone[field], beside[field])


@pytest.mark.parametrize("name", [*ALL, "everything"])
def test_the_parameters_of_a_batch_can_be_sliced(name: str, spec: DataSpec):
    """All but mixing, whose partner is in the batch: rows of the parameters belong to rows of the images."""
    chosen = {key: ALL[key] for key in ALL if key != "mix"} if name in ("everything", "mix") else {name: ALL[name]}
    config = AugmentationConfig.parse(chosen)
    images, targets = batch()
    draws = draw(config, 16, 16, 0, 0)
    whole, _ = augment(config, spec, images, targets, draws)
    part = Draws(*(tensor[4:8] for tensor in draws))
    # contrast, brightness and crops work on each image alone, so a slice equals the slice of the whole
    torch.testing.assert_close(augment(config, spec, images[4:8], targets[4:8], part)[0], whole[4:8])


def test_everything_off_changes_nothing(spec: DataSpec):
    images, targets = run(AugmentationConfig(), spec)
    assert torch.equal(images, batch()[0])
    assert torch.equal(targets, batch()[1])


def test_pad_crop_moves_by_whole_pixels_and_fills_with_the_mean(spec: DataSpec):
    config = AugmentationConfig.parse({"pad_crop": {"padding": 4}})
    images, targets = batch(200)
    draws = draw(config, 16, 200, 0, 0)
    out, _ = augment(config, spec, images, targets, draws)
    shifts = (draws.region[:, :2] * 16).round().long()
    assert set(shifts.flatten().tolist()) == set(range(-4, 5))
    fill = torch.tensor(spec.mean).view(-1, 1, 1)
    for image, shifted, (down, right) in zip(images, out, shifts.tolist(), strict=True):
        padded = fill.expand(3, 24, 24).clone()
        padded[:, 4:20, 4:20] = image
        torch.testing.assert_close(shifted, padded[:, 4 + down : 20 + down, 4 + right : 20 + right])


def test_flips_happen_as_often_as_asked(spec: DataSpec):
    config = AugmentationConfig.parse({"horizontal_flip": {"probability": 0.25}})
    flipped = draw(config, 16, 4000, 0, 0).region[:, 3] < 0
    assert flipped.float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_resized_crops_have_the_areas_asked_and_lie_inside():
    config = AugmentationConfig.parse({"resized_crop": {"scale": (0.5, 0.6)}})
    top, left, height, width = draw(config, 16, 2000, 0, 0).region.unbind(1)
    areas = height * width
    assert 0.5 <= areas.min() < 0.51
    assert 0.59 < areas.max() <= 0.6001
    for start, length in ((top, height), (left, width)):
        assert start.min() >= 0
        assert (start + length).max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("column", "enhance"), [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)]
)
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.7])
def test_colours_change_as_pillows_do(column: int, enhance: Any, factor: float):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    factors = torch.ones(1, 3)
    factors[0, column] = factor
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    ours = jitter_color(image, factors)[0].permute(1, 2, 0).numpy() * 255
    theirs = np.asarray(enhance(Image.fromarray(pixels)).enhance(factor), dtype=np.float32)
    assert np.abs(ours - theirs).max() <= 2  # Pillow rounds its grey


def test_a_hole_is_a_square_of_its_size_filled_with_the_mean(spec: DataSpec):
    config = AugmentationConfig.parse({"coarse_dropout": {"size": 0.5}})
    images, _ = run(config, spec)
    hole = (images == torch.tensor(spec.mean).view(-1, 1, 1)).all(1)
    assert hole.sum((1, 2)).tolist() == [64] * 16


def test_erased_shares_follow_the_scale(spec: DataSpec):
    config = AugmentationConfig.parse({"random_erasing": {"probability": 1.0, "scale": (0.2, 0.2)}})
    mask = box_mask(draw(config, 16, 500, 0, 0).erased, 100)
    assert mask.float().mean().item() == pytest.approx(0.2, abs=0.01)


def test_mixed_targets_follow_the_pixels():
    images, targets = batch(4)
    share = torch.tensor([0.25, 1.0, 1.0, 1.0])
    pasted = torch.zeros(4, 4)
    pasted[1] = torch.tensor([0.0, 0.0, 0.5, 0.5])
    mixed, mixed_targets = mix(images, targets, share, pasted)
    torch.testing.assert_close(mixed[0], images[0] * 0.25 + images[3] * 0.75)
    torch.testing.assert_close(mixed[1, :, :8, :8], images[0, :, :8, :8])
    torch.testing.assert_close(mixed[1, :, 8:], images[1, :, 8:])
    assert torch.equal(mixed[2:], images[2:])
    torch.testing.assert_close(mixed_targets[1], targets[1] * 0.75 + targets[0] * 0.25)
    assert torch.equal(mixed_targets[2:], targets[2:])


def test_with_both_mixes_on_a_coin_decides():
    draws = draw(AugmentationConfig.parse({"mix": {"mixup": 1.0, "cutmix": 1.0}}), 16, 1000, 0, 0)
    blended, pasted = draws.own_share < 1, draws.pasted[:, 2] > 0
    assert not (blended & pasted).any()
    assert pasted.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert (blended | pasted).float().mean() > 0.98


@pytest.mark.parametrize("values", [{"scale": (0.9, 0.5)}, {"scale": (0.5, 1.5)}, {"ratio": (0, 1)}])
def test_ranges_out_of_order_are_refused(values: dict):
    with pytest.raises(Exception, match="resized_crop"):
        AugmentationConfig.parse({"resized_crop": values})
