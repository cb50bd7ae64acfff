"""Changes of colour for a batch of images with values in [0, 1]; every image has its own amount.

Where Pillow has the same change on 8 bits (ImageEnhance, ImageOps) the result is Pillow's up to its rounding. The
amounts of RandAugment are its magnitudes over 30: in [-1, 1] for the changes that go both ways, else in [0, 1].
"""

import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]
Amounts = Float[Tensor, " batch"]


def grey(images: Images) -> Float[Tensor, "batch 1 height width"]:
    """Return the luma of ITU-R 601."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, 1)
    return torch.add(red * 0.299, green, alpha=0.587).add_(blue, alpha=0.114)


def jitter_color(images: Images, factors: Float[Tensor, "batch 3"]) -> Images:
    """Scale brightness, contrast and saturation about 0, the mean of the grey image and the grey image."""
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)  # each (batch, 1, 1, 1)
    images = (images * brightness).clamp_(0, 1)
    mean = grey(images).mean((2, 3), keepdim=True)
    images = images.mul_(contrast).add_(mean * (1 - contrast)).clamp_(0, 1)
    return torch.lerp(grey(images), images, saturation).clamp_(0, 1)


def drop_color(images: Images, chosen: Amounts) -> Images:
    """Make the images chosen by a 1 (not a 0) grey; they keep their channels."""
    return torch.lerp(images, grey(images), chosen[:, None, None, None])


def brighten(images: Images, amount: Amounts) -> Images:
    """Scale all values by 1 + 0.9 times the amount."""
    return (images * _factor(amount)).clamp_(0, 1)


def saturate(images: Images, amount: Amounts) -> Images:
    """Scale the distance from the grey image by 1 + 0.9 times the amount."""
    return torch.lerp(grey(images), images, _factor(amount)).clamp_(0, 1)


def raise_contrast(images: Images, amount: Amounts) -> Images:
    """Scale the distance from the mean of the grey image by 1 + 0.9 times the amount."""
    factor, mean = _factor(amount), grey(images).mean((2, 3), keepdim=True)
    return (images * factor).add_(mean * (1 - factor)).clamp_(0, 1)  # lerp is slow where two operands are broadcast


def sharpen(images: Images, amount: Amounts) -> Images:
    """Scale the distance from the smoothed image by 1 + 0.9 times the amount; the outermost pixels stay.

    Smoothing weighs the pixel 5 and its 8 neighbours 1 (Pillow's SMOOTH).
    """
    centre = images[:, :, 1:-1, 1:-1]
    three_rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    smooth = three_rows[..., :-2] + three_rows[..., 1:-1]
    smooth.add_(three_rows[..., 2:]).add_(centre, alpha=4).div_(13)
    result = images.clone()
    result[:, :, 1:-1, 1:-1] = torch.lerp(smooth, centre, _factor(amount)).clamp_(0, 1)
    return result


def posterize(images: Images, amount: Amounts) -> Images:
    """Keep the upper 8 bits (amount 0) to 4 bits (amount 1) of the 256 levels."""
    step = torch.exp2((amount * 4).round())[:, None, None, None]
    return (_levels(images) / step).floor_().mul_(step / 255)


def solarize(images: Images, amount: Amounts) -> Images:
    """Invert the levels from a threshold on, which falls from 255 (amount 0) to 0 (amount 1)."""
    threshold = (255 * (1 - amount) - 1e-3).ceil()[:, None, None, None]  # float32 must not lift 170 above level 170
    levels = _levels(images)
    inverted = (levels - threshold).add_(1).clamp_(0, 1)  # 1 from the threshold on, else 0
    return torch.lerp(levels, 255 - levels, inverted).div_(255)


def auto_contrast(images: Images, _: Amounts) -> Images:
    """Stretch the levels of each channel to 0..255; a channel of one level stays."""
    levels = _levels(images)
    low, high = levels.amin((2, 3), keepdim=True), levels.amax((2, 3), keepdim=True)
    low, span = torch.where(high > low, low, 0), torch.where(high > low, high - low, 255)
    return levels.sub_(low).mul_(255).div_(span).floor_().div_(255)


def equalize(images: Images, _: Amounts) -> Images:
    """Spread the levels of each channel so that each is about as frequent as any other (Pillow's rule).

    A channel whose pixels outside its highest level are fewer than 255 stays.
    """
    levels = _levels(images).clamp_(0, 255).long().flatten(2)  # (batch, channels, pixels)
    counts = images.new_zeros(*levels.shape[:2], 256).scatter_add_(2, levels, images.new_ones(levels.shape))
    highest = counts.gather(2, levels.amax(2, keepdim=True))
    step = ((levels.shape[2] - highest) / 255).floor()  # pixels a level, (batch, channels, 1)
    below = counts.int().cumsum(2) - counts  # a GPU adds up integers alone without varying
    spread = ((below + (step / 2).floor()) / step.clamp(min=1)).floor_().clamp_(max=255)
    table = torch.where(step > 0, spread, torch.arange(256.0, device=images.device)) / 255
    return table.gather(2, levels).view_as(images)


def _factor(amount: Amounts) -> Float[Tensor, "batch 1 1 1"]:
    return (1 + 0.9 * amount)[:, None, None, None]


def _levels(images: Images) -> Images:
    return (images * 255).round_()
