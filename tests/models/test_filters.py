import pytest
import torch

from mixlab.models.convmixer import ConvMixerConfig
from mixlab.models.filters import covariance, draw_filters
from mixlab.spec import DataSpec


@pytest.mark.parametrize("side", [1, 2, 5, 8, 9])
def test_drawn_filters_have_the_covariance(side: int):
    torch.manual_seed(0)
    drawn = draw_filters(200_000, side, share=1.0).flatten(1).double()
    expected = covariance(side, side / 9 * 2.5)
    assert (drawn.T @ drawn / len(drawn) - expected).abs().max() < 0.02 * expected.max()
    assert expected.trace().item() == pytest.approx(1)


def test_filters_are_widest_in_the_last_block(spec: DataSpec):
    config = ConvMixerConfig.parse({"dim": 256, "depth": 4, "kernel_size": 9, "filters": "covariance"})
    filters = [block.depthwise[0].weight.detach().square() for block in config.build(spec).blocks]
    inside = [float(each[:, :, 1:-1, 1:-1].sum() / each.sum()) for each in filters]
    assert inside == sorted(inside, reverse=True)
    assert inside[0] > 0.999
    assert inside[-1] < 0.99
