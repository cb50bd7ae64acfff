"""Claims about drawings of what a network sees: each is written, is a PNG, and warns of nothing."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mixlab.evaluation import explanation_pictures, pictures

pytestmark = pytest.mark.filterwarnings("error")
DPI = 50  # a third of what people get, to be quick
CELL = DPI * explanation_pictures.CELL


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "DPI", DPI)


def size_in_pixels(path: Path) -> tuple[int, int]:
    """Return width and height from the head of a PNG file."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


def numbers(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def image(side: int, channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(256, size=(side, side, channels), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 3, 7, 7), (64, 1, 2, 2), (100, 3, 16, 16), (5, 2, 3, 3)], ids=str)
def test_patch_filters_are_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    explanation_pictures.patch_filters(tmp_path / "filters.png", numbers(*shape))
    assert min(size_in_pixels(tmp_path / "filters.png")) > CELL


def test_filters_of_zeros_are_drawn_too(tmp_path: Path) -> None:
    explanation_pictures.patch_filters(tmp_path / "filters.png", numbers(4, 3, 2, 2) * 0)
    assert size_in_pixels(tmp_path / "filters.png")


@pytest.mark.parametrize("layers", [1, 4, pytest.param(20, marks=pytest.mark.slow)])
def test_depthwise_kernels_have_a_row_a_layer_and_stay_viewable(tmp_path: Path, layers: int) -> None:
    kernels = {f"blocks.{place}.depthwise.0": numbers(3 + place % 4, 5, 4) for place in range(layers)}
    explanation_pictures.depthwise_kernels(tmp_path / "kernels.png", kernels)
    height = size_in_pixels(tmp_path / "kernels.png")[1]
    assert CELL * min(layers, 16) < height < CELL * 20


@pytest.mark.parametrize("kind", ["class activation", "attention rollout"])
@pytest.mark.parametrize(("side", "channels", "places"), [(8, 1, 1), (32, 3, 8), (224, 3, 14)])
def test_heat_maps_are_written(tmp_path: Path, kind: str, side: int, channels: int, places: int) -> None:
    heat = abs(numbers(places, places))
    top = [("a $ign of\n two lines", 0.9), ("x" * 200, 0.1)]
    title = "caf\udce9/$1.jpg"  # as Python names files that are not UTF-8
    explanation_pictures.heat_map(tmp_path / "heat.png", image(side, channels), heat / heat.max(), top, kind, title)
    assert min(size_in_pixels(tmp_path / "heat.png")) > DPI * 2


@pytest.mark.parametrize("layers", [1, 5, pytest.param(30, marks=pytest.mark.slow)])
def test_feature_maps_are_written(tmp_path: Path, layers: int) -> None:
    maps = {f"blocks.{place}": numbers(2 + place % 4, 4, 4) for place in range(layers)}
    explanation_pictures.feature_maps(tmp_path / "maps.png", image(16, 3), maps, "caf\udce9")
    assert DPI * 2 < size_in_pixels(tmp_path / "maps.png")[1] < DPI * 12


def test_layers_of_a_single_place_are_left_out_where_others_are_there(tmp_path: Path) -> None:
    wide, single = {"a": numbers(3, 2, 2), "b": numbers(3, 2, 2) * 0}, {"c": numbers(3, 1, 1)}
    sizes = []
    for maps in (wide | single, wide, single):
        explanation_pictures.feature_maps(tmp_path / "maps.png", image(8, 1), maps, "picture")
        sizes.append(size_in_pixels(tmp_path / "maps.png"))
    assert sizes[0] == sizes[1]


def test_the_same_numbers_give_the_same_file(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        explanation_pictures.heat_map(
            tmp_path / name, image(8, 3), abs(numbers(2, 2)) / 9, [("a", 1.0)], "class activation", "x"
        )
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
