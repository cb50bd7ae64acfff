"""How maps are cut into programs for a GPU: nothing is left out, and tiles are such as Triton takes."""

from hypothesis import given
from hypothesis import strategies as st

from mixlab.kernels.gpu import launch

lengths = st.integers(1, 300)
sides = st.integers(1, 15)


def is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


@given(rows=lengths, columns=lengths, channels=st.integers(1, 3000), side=sides)
def test_tiles_cover_a_map(rows: int, columns: int, channels: int, side: int):
    tile = launch.window_tile(rows, columns, channels, side)
    across = -(-columns // tile.columns)
    down = tile.cut(rows, columns) // across
    assert tile.cut(rows, columns) == across * down
    assert (down - 1) * tile.rows < rows <= down * tile.rows
    assert all(map(is_power_of_two, (tile.columns, tile.channels, tile.warps)))


@given(tiles=st.integers(1, 10**6), side=sides, channels=st.integers(1, 3000))
def test_every_tile_of_a_weight_gradient_belongs_to_a_program(tiles: int, side: int, channels: int):
    parts = launch.slices(tiles, side, channels, launch.window_tile(16, 16, channels, side))
    share = -(-tiles // parts)
    assert 1 <= parts <= tiles
    assert parts * share >= tiles


@given(channels=st.integers(1, 3000))
def test_flat_tiles_have_one_size(channels: int):
    tile = launch.flat_tile(channels)
    assert tile.columns * tile.channels == launch.FLAT_VALUES
    assert is_power_of_two(tile.channels)
