import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from mixlab.data import augmentation
from mixlab.data.augmentation import augment, box_mask, mix
from mixlab.data.augmentation_config import AugmentationConfig
from mixlab.data.colors import jitter_color
from mixlab.data.draws import Draws, draw
from mixlab.errors import UsageError
from mixlab.spec import DataSpec

ALL: dict[str, dict[str, Any]] = {
    "resized_crop": {"scale": (0.3, 1.0), "ratio": (0.75, 1.333)},
    "pad_crop": {"padding": 3},
    "horizontal_flip": {"probability": 0.5},
    "vertical_flip": {"probability": 0.5},
    "zoom": {"amount": 0.3},
    "rotation": {"turns": 0.25},
    "rand_augment": {"operations": 2, "magnitude": 12.0, "magnitude_deviation": 3.0, "probability": 0.9},
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
    "random_grayscale": {"probability": 0.5},
    "random_erasing": {"probability": 0.5},
    "coarse_dropout": {"size": 0.5},
    "mix": {"mixup": 0.8, "cutmix": 1.0},
}
EVERYTHING = AugmentationConfig.parse(ALL)
RECORDED = {
    "region": "7388ce7f7220efb2",
    "color": "9519864275052f1c",
    "erased": "17f64df515b8823d",
    "hole": "668a11f908f6f641",
    "own_share": "de66068d0b286dc6",
    "pasted": "bd3eb46a59177fe2",
}


def batch(count: int = 16, side: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, side, side, generator=generator)
    return images, torch.nn.functional.one_hot(torch.arange(count) % 3, 3).float()


def drawn(config: AugmentationConfig, image_size: int, count: int, seed: int, step: int, epoch: int = 0) -> Draws:
    return draw(config, image_size, np.arange(count), seed, step, epoch)


def run(config: AugmentationConfig, spec: DataSpec, seed: int = 0, step: int = 0, side: int = 16):
    images, targets = batch(side=side)
    return augment(config, spec, images, targets, drawn(config, spec.image_size, len(images), seed, step))


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
    alone = drawn(AugmentationConfig.parse({name: ALL[name]}), 16, 8, 0, 0)._asdict()
    beside = drawn(EVERYTHING, 16, 8, 0, 0)._asdict()
    fields = {
        "rotation": ["turned"],
        "rand_augment": ["operations", "magnitudes"],
        "color_jitter": ["color"],
        "random_grayscale": ["grey"],
        "random_erasing": ["erased"],
        "coarse_dropout": ["hole"],
        "mix": ["own_share", "pasted"],
    }
    for field in fields.get(name, []):
        assert torch.equal(alone[field], beside[field])


@pytest.mark.parametrize("name", [*ALL, "everything"])
def test_the_parameters_of_a_batch_can_be_sliced(name: str, spec: DataSpec):
    """All but mixing, whose partner is in the batch: rows of the parameters belong to rows of the images."""
    chosen = {key: ALL[key] for key in ALL if key != "mix"} if name in ("everything", "mix") else {name: ALL[name]}
    config = AugmentationConfig.parse(chosen)
    images, targets = batch()
    draws = drawn(config, 16, 16, 0, 0)
    whole, _ = augment(config, spec, images, targets, draws)
    part = Draws(*(tensor[4:8] for tensor in draws))
    # contrast, brightness and crops work on each image alone, so a slice equals the slice of the whole
    torch.testing.assert_close(augment(config, spec, images[4:8], targets[4:8], part)[0], whole[4:8])


def test_existing_draws_are_what_they_were():
    """Recorded before zoom, rotation, RandAugment and greying existed."""
    off = {name: ALL[name] for name in ALL if name not in ("zoom", "rotation", "rand_augment", "random_grayscale")}
    draws = drawn(AugmentationConfig.parse(off), 32, 8, 7, 11)
    for field, digest in RECORDED.items():
        assert hashlib.sha256(getattr(draws, field).numpy().tobytes()).hexdigest()[:16] == digest, field


@pytest.mark.parametrize("name", [*ALL, "everything"])
def test_one_channel_works_everywhere(name: str):
    spec = DataSpec(image_size=16, classes=("a", "b", "c"), channels=1, mean=(0.3,), std=(0.2,))
    config = EVERYTHING if name == "everything" else AugmentationConfig.parse({name: ALL[name]})
    images, targets = batch()
    images = images[:, :1].contiguous()
    out, _ = augment(config, spec, images, targets, drawn(config, 16, 16, 0, 0))
    assert out.shape == (16, 1, 16, 16)
    assert torch.equal(out, images) == (name == "random_grayscale")


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_size_of_a_chunk_does_not_matter(size: int, spec: DataSpec, monkeypatch: pytest.MonkeyPatch):
    whole, whole_targets = run(EVERYTHING, spec)
    monkeypatch.setattr(augmentation, "CHUNK", size * 3 * 16 * 16)
    parts, targets = run(EVERYTHING, spec)
    torch.testing.assert_close(parts, whole)
    assert torch.equal(targets, whole_targets)


def test_stored_bytes_are_augmented_as_floats_are(spec: DataSpec):
    images, targets = batch()
    stored, draws = (images * 255).to(torch.uint8), drawn(EVERYTHING, 16, 16, 0, 0)
    ours, _ = augment(EVERYTHING, spec, stored, targets, draws)
    assert torch.equal(ours, augment(EVERYTHING, spec, stored.float() / 255, targets, draws)[0])


def test_the_input_is_left_alone(spec: DataSpec):
    images, targets = batch()
    augment(EVERYTHING, spec, images, targets, drawn(EVERYTHING, 16, 16, 0, 0))
    assert torch.equal(images, batch()[0])
    assert torch.equal(targets, batch()[1])


@pytest.mark.parametrize("quarters", [-1, 1, 2])
def test_quarter_turns_are_exact(quarters: int, spec: DataSpec):
    config = AugmentationConfig.parse({"rotation": {"turns": 0.5}})
    images, targets = batch()
    draws = drawn(config, 16, 16, 0, 0)._replace(turned=torch.full((16,), quarters / 4))
    turned, _ = augment(config, spec, images, targets, draws)
    torch.testing.assert_close(turned, images.rot90(quarters, (2, 3)), atol=1e-5, rtol=0)


def test_angles_go_either_way_up_to_the_largest():
    turned = drawn(AugmentationConfig.parse({"rotation": {"turns": 0.1}}), 16, 4000, 0, 0).turned
    assert -0.1 <= turned.min() < -0.099
    assert 0.099 < turned.max() <= 0.1
    assert abs(turned.mean().item()) < 0.005


def test_what_a_rotation_uncovers_is_the_mean(spec: DataSpec):
    config = AugmentationConfig.parse({"rotation": {"turns": 0.5}})
    draws = drawn(config, 16, 16, 0, 0)._replace(turned=torch.full((16,), 0.125))
    turned, _ = augment(config, spec, *batch(), draws)
    for corner in (turned[:, :, 0, 0], turned[:, :, -1, -1]):
        torch.testing.assert_close(corner, torch.tensor(spec.mean).expand(16, 3))


def test_zoom_reads_about_the_middle_by_factors_of_each_side():
    top, left, height, width = drawn(AugmentationConfig.parse({"zoom": {"amount": 0.3}}), 16, 4000, 0, 0).region.T
    for start, length in ((top, height), (left, width)):
        assert 0.7 <= length.min() < 0.701
        assert 1.299 < length.max() <= 1.3001
        torch.testing.assert_close(start + length / 2, torch.full((4000,), 0.5))
    assert abs(np.corrcoef(height, width)[0, 1]) < 0.05


def test_zoom_keeps_the_middle_of_crops_and_flips():
    others = {name: ALL[name] for name in ("resized_crop", "pad_crop", "horizontal_flip", "vertical_flip")}
    plain = drawn(AugmentationConfig.parse(others), 16, 50, 0, 0).region
    zoomed = drawn(AugmentationConfig.parse(others | {"zoom": {"amount": 0.3}}), 16, 50, 0, 0).region
    torch.testing.assert_close(zoomed[:, :2] + zoomed[:, 2:] / 2, plain[:, :2] + plain[:, 2:] / 2)
    assert ((zoomed[:, 2:] / plain[:, 2:] - 1).abs() <= 0.3001).all()


def test_zoom_in_by_two_shows_the_middle_and_out_by_two_a_frame(spec: DataSpec):
    config = AugmentationConfig.parse({"zoom": {"amount": 1.0}})
    images, targets = batch()
    draws = drawn(config, 16, 16, 0, 0)
    near, _ = augment(
        config, spec, images, targets, draws._replace(region=torch.tensor([[0.25, 0.25, 0.5, 0.5]]).repeat(16, 1))
    )
    middle = torch.nn.functional.interpolate(images, scale_factor=2, mode="bilinear")[:, :, 8:24, 8:24]
    torch.testing.assert_close(near, middle)
    far, _ = augment(
        config, spec, images, targets, draws._replace(region=torch.tensor([[-0.5, -0.5, 2.0, 2.0]]).repeat(16, 1))
    )
    small = torch.nn.functional.interpolate(images, size=8, mode="bilinear", antialias=True)
    torch.testing.assert_close(far[:, :, 4:12, 4:12], small)
    torch.testing.assert_close(far[:, :, :4], torch.tensor(spec.mean).view(-1, 1, 1).expand(16, 3, 4, 16))


def test_greyed_images_are_as_many_as_asked_and_hold_pillows_luma(spec: DataSpec):
    config = AugmentationConfig.parse({"random_grayscale": {"probability": 0.2}})
    assert drawn(config, 16, 4000, 0, 0).grey.mean().item() == pytest.approx(0.2, abs=0.02)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].repeat(2, 1, 1, 1)
    draws = drawn(config, 16, 2, 0, 0)._replace(grey=torch.tensor([1.0, 0.0]))
    out, _ = augment(config, spec, images, torch.eye(3)[:2], draws)
    luma = torch.from_numpy(np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float32))
    assert (out[0] * 255 - luma).abs().max() <= 1
    assert torch.equal(out[1], images[1] / 255)


def test_everything_off_changes_nothing(spec: DataSpec):
    images, targets = run(AugmentationConfig(), spec)
    assert torch.equal(images, batch()[0])
    assert torch.equal(targets, batch()[1])


def test_pad_crop_moves_by_whole_pixels_and_fills_with_the_mean(spec: DataSpec):
    config = AugmentationConfig.parse({"pad_crop": {"padding": 4}})
    images, targets = batch(200)
    draws = drawn(config, 16, 200, 0, 0)
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
    flipped = drawn(config, 16, 4000, 0, 0).region[:, 3] < 0
    assert flipped.float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_an_alternating_flip_shows_each_image_from_both_sides_in_two_epochs():
    config = AugmentationConfig.parse({"horizontal_flip": {"probability": 0.5, "alternating": True}})
    epochs = [drawn(config, 16, 4000, 0, step, epoch=step).region[:, 3] < 0 for step in range(3)]
    assert torch.equal(epochs[0], ~epochs[1])
    assert torch.equal(epochs[0], epochs[2])
    assert epochs[0].float().mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_an_alternating_flip_of_none_or_all_is_refused(probability: float):
    with pytest.raises(UsageError, match="alternating needs a probability between 0 and 1"):
        AugmentationConfig.parse({"horizontal_flip": {"probability": probability, "alternating": True}})


def test_an_alternating_flip_belongs_to_the_image_wherever_it_stands():
    config = AugmentationConfig.parse({"horizontal_flip": {"probability": 0.5, "alternating": True}})
    order = np.random.default_rng(0).permutation(500)
    here, there = drawn(config, 16, 500, 0, 0).region, draw(config, 16, order, 0, 7, 0).region
    assert torch.equal(here[order], there)


def test_resized_crops_have_the_areas_asked_and_lie_inside():
    config = AugmentationConfig.parse({"resized_crop": {"scale": (0.5, 0.6)}})
    top, left, height, width = drawn(config, 16, 2000, 0, 0).region.unbind(1)
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
    mask = box_mask(drawn(config, 16, 500, 0, 0).erased, 100)
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
    draws = drawn(AugmentationConfig.parse({"mix": {"mixup": 1.0, "cutmix": 1.0}}), 16, 1000, 0, 0)
    blended, pasted = draws.own_share < 1, draws.pasted[:, 2] > 0
    assert not (blended & pasted).any()
    assert pasted.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert (blended | pasted).float().mean() > 0.98


@pytest.mark.parametrize("values", [{"scale": (0.9, 0.5)}, {"scale": (0.5, 1.5)}, {"ratio": (0, 1)}])
def test_ranges_out_of_order_are_refused(values: dict):
    with pytest.raises(Exception, match="resized_crop"):
        AugmentationConfig.parse({"resized_crop": values})
