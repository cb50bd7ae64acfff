"""Pictures made of pixels, as PNG inside the page: images, patches, filters and heat maps."""

import base64
import io

import matplotlib as mpl
import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from mixlab.evaluation.inference import as_pixels

Pixels = NDArray[np.uint8]  # (height, width, 1, 3 or 4)
GAP = 4  # pixels between tiles


def picture(pixels: Pixels, alt: str, width: int = 0) -> Markup:
    """Return an image element with the pixels inside; small ones keep their squares.

    Args:
        width: on the page, CSS pixels; 0: at least 72.
    """
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels).save(buffer, format="PNG", optimize=True)
    source = base64.b64encode(buffer.getvalue()).decode()
    shown = width or max(72, min(pixels.shape[1], 160))
    kind = "sharp" if pixels.shape[1] < shown else "smooth"
    return Markup('<img src="data:image/png;base64,{}" alt="{}" width="{}" loading="lazy" class="{}">').format(
        source, alt, shown, kind
    )


def patches(pixels: Pixels, patch_size: int, stride: int) -> Pixels:
    """Cut an image into its patches, with transparent gaps between them."""
    side = pixels.shape[0]
    starts = range(0, side - patch_size + 1, stride)
    scale = max(1, 288 // (len(starts) * patch_size))
    cut = [[pixels[row : row + patch_size, column : column + patch_size] for column in starts] for row in starts]
    return _sheet([[_enlarge(_coloured(patch), scale) for patch in line] for line in cut])


def filters(weights: NDArray[np.float32], columns: int = 16, most: int = 96) -> Pixels:
    """Draw filters (filters, channels, side, side), each scaled by its own largest weight around middle grey."""
    shown = weights[:most]
    largest = np.abs(shown).max((1, 2, 3), keepdims=True).clip(1e-12)
    if shown.shape[1] == 3:
        tiles = list(as_pixels(torch.from_numpy(0.5 + shown / largest / 2)))
    else:
        tiles = [_diverging(each.mean(0)) for each in shown / largest]
    return _sheet(_lines([_enlarge(tile, max(1, 28 // tile.shape[0])) for tile in tiles], columns))


def kernels(weights: NDArray[np.float32], most: int = 24) -> Pixels:
    """Draw depthwise kernels (channels, side, side) in a row, blue below and red above 0, each scaled by itself."""
    spread = np.linspace(0, len(weights) - 1, min(most, len(weights))).astype(int)
    shown = weights[spread] / np.abs(weights[spread]).max((1, 2), keepdims=True).clip(1e-12)
    return _sheet([[_enlarge(_diverging(each), max(1, 28 // each.shape[0])) for each in shown]])


def heat(pixels: Pixels, heat_map: NDArray[np.floating]) -> Pixels:
    """Lay a heat map with values in [0, 1] over an image; both are enlarged to 96 pixels or more."""
    side = max(96, pixels.shape[0])
    base = Image.fromarray(_coloured(pixels)).resize((side, side), Image.Resampling.NEAREST)
    values = Image.fromarray((heat_map.clip(0, 1) * 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    share = np.asarray(values, dtype=np.float64) / 255
    colour = mpl.colormaps["inferno"](share)[:, :, :3] * 255
    alpha = 0.25 + 0.45 * share[:, :, None]
    grey = np.asarray(base.convert("L"), dtype=np.float64)[:, :, None]
    return ((1 - alpha) * grey + alpha * colour).round().astype(np.uint8)


def _diverging(values: NDArray[np.floating]) -> Pixels:
    """Colour values in [-1, 1], white at 0."""
    return (mpl.colormaps["RdBu_r"](0.5 + values / 2)[:, :, :3] * 255).round().astype(np.uint8)


def _coloured(pixels: Pixels) -> Pixels:
    return pixels.repeat(3, 2) if pixels.shape[2] == 1 else pixels


def _enlarge(pixels: Pixels, factor: int) -> Pixels:
    return pixels.repeat(factor, 0).repeat(factor, 1)


def _lines(tiles: list[Pixels], columns: int) -> list[list[Pixels]]:
    return [tiles[start : start + columns] for start in range(0, len(tiles), columns)]


def _sheet(lines: list[list[Pixels]]) -> Pixels:
    """Put tiles of one size side by side on a transparent ground."""
    height, width = lines[0][0].shape[:2]
    columns = max(len(line) for line in lines)
    sheet = np.zeros((len(lines) * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4), dtype=np.uint8)
    for row, line in enumerate(lines):
        for column, tile in enumerate(line):
            top, left = row * (height + GAP), column * (width + GAP)
            sheet[top : top + height, left : left + width, :3] = tile
            sheet[top : top + height, left : left + width, 3] = 255
    return sheet
