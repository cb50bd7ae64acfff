import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mixlab.data.resample import resample, resize, resize_in_bands, square_region

FILL = torch.tensor([0.5, 0.4, 0.3])


@pytest.mark.parametrize(("height", "width", "size"), [(64, 64, 32), (37, 37, 32), (20, 20, 33), (100, 100, 7)])
def test_resizing_is_pillows_antialiased_bilinear(height: int, width: int, size: int):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    ours = resize(image, size, "squash", FILL)[0].permute(1, 2, 0).numpy() * 255
    theirs = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)
    assert np.abs(ours - theirs).max() < 1.01  # Pillow rounds after each axis


def test_an_image_of_the_right_size_is_returned_as_it_is():
    image = torch.rand(2, 3, 8, 8)
    assert resize(image, 8, "crop", FILL) is image


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.sampled_from(["crop", "pad", "squash"]))
def test_a_flat_image_stays_flat_at_any_size(height, width, size, mode):
    image = torch.full((1, 3, height, width), 0.25)
    out = resize(image, size, mode, torch.full((3,), 0.25))
    assert out.shape == (1, 3, size, size)
    torch.testing.assert_close(out, torch.full_like(out, 0.25))


@pytest.mark.parametrize(
    ("mode", "expected"), [("crop", (0, 5, 10, 10)), ("pad", (-5, 0, 20, 20)), ("squash", (0, 0, 10, 20))]
)
def test_the_square_region_is_centred(mode, expected):
    assert square_region(10, 20, mode) == expected


def test_padding_shows_the_mean_and_cropping_the_middle():
    image = torch.rand(1, 3, 4, 8)
    padded = resize(image, 8, "pad", FILL)
    torch.testing.assert_close(padded[:, :, 2:6], image)
    assert torch.allclose(padded[:, :, :2], FILL.view(-1, 1, 1))
    torch.testing.assert_close(resize(image, 4, "crop", FILL), image[:, :, :, 2:6])


def test_whole_shifts_and_flips_are_exact():
    images = torch.rand(3, 3, 6, 6)
    region = torch.tensor([[1.0, -2.0, 6.0, 6.0], [0.0, 6.0, 6.0, -6.0], [6.0, 0.0, -6.0, 6.0]])
    out = resample(images, region, 6, FILL)
    torch.testing.assert_close(out[0, :, :5, 2:], images[0, :, 1:, :4])
    assert torch.allclose(out[0, :, :, :2], FILL.view(-1, 1, 1))
    torch.testing.assert_close(out[1], images[1].flip(2))
    torch.testing.assert_close(out[2], images[2].flip(1))


@pytest.mark.parametrize("mode", ["crop", "pad", "squash"])
@pytest.mark.parametrize("shape", [(60, 90), (91, 17)])
def test_bands_are_what_the_whole_image_is(mode, shape, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mixlab.data.resample.BAND", 700)
    pixels = torch.randint(256, (*shape, 3), dtype=torch.uint8)
    whole = resize(pixels.permute(2, 0, 1)[None].float() / 255, 32, mode, FILL)[0]
    torch.testing.assert_close(resize_in_bands(pixels, 32, mode, FILL), whole)
