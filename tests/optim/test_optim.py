import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mixlab.errors import UsageError
from mixlab.models.catalogue import create_model
from mixlab.optim.average import ramped_decay, update_average
from mixlab.optim.muon import hidden_matrices, orthogonalised
from mixlab.optim.optimizers import AdamConfig, AdamWConfig, MuonConfig, SGDConfig, parameter_groups
from mixlab.optim.schedules import (
    ConstantConfig,
    CosineConfig,
    OneCycleConfig,
    PiecewiseLinearConfig,
    learning_rate,
)

STEPS = 40
SCHEDULES = [
    ConstantConfig(),
    OneCycleConfig(),
    OneCycleConfig(shape="linear", warmup=0.2, start_divisor=10, end_divisor=10),
    CosineConfig(),
    CosineConfig(warmup=0, end=0.1),
    PiecewiseLinearConfig(),
]


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_one_cycle_is_torchs(shape):
    config = OneCycleConfig(shape=shape, warmup=0.25, start_divisor=10, end_divisor=100)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.3,
        total_steps=41,
        pct_start=0.25 * 40 / 41 + 1 / 41,  # torch counts the warm-up's end one step later
        div_factor=10,
        final_div_factor=100,
        anneal_strategy={"cosine": "cos", "linear": "linear"}[shape],
        cycle_momentum=False,
    )
    for step in range(41):
        assert learning_rate(config, 0.3, step, 41) == pytest.approx(theirs.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        if step < 40:
            theirs.step()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@given(step=st.integers(0, STEPS - 1))
def test_rates_stay_between_0_and_the_peak(schedule, step):
    assert 0 <= learning_rate(schedule, 0.3, step, STEPS) <= 0.3 + 1e-12


def test_the_authors_schedule_has_its_corners():
    rates = [learning_rate(PiecewiseLinearConfig(), 0.01, step, 101) for step in (0, 40, 80, 100)]
    assert rates == pytest.approx([0, 0.01, 0.0005, 0])


def test_a_shortened_run_keeps_the_schedules_proportion():
    assert learning_rate(OneCycleConfig(), 1.0, 29, 100) == pytest.approx(1.0, abs=0.01)


def test_cosine_is_half_a_cosine():
    config = CosineConfig(warmup=0)
    assert learning_rate(config, 1.0, 25, 101) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("points", [[[0, 1]], [[0.1, 1], [1, 0]], [[0, 1], [0.5, 1], [0.5, 0], [1, 0]]])
def test_points_that_do_not_cover_training_are_refused(points):
    with pytest.raises(UsageError, match="points"):
        PiecewiseLinearConfig.parse({"points": points})


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_norms_and_biases_do_not_decay_unless_asked():
    decayed, others = parameter_groups(model(), 0.1, decay_all=False)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(others["params"]) == 6
    (everything,) = parameter_groups(model(), 0.1, decay_all=True)
    assert len(everything["params"]) == 6


@pytest.mark.parametrize(
    ("config", "oracle"),
    [
        (AdamWConfig(weight_decay=0.1, decay_all=True), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
        (AdamConfig(weight_decay=0.1, decay_all=True), lambda p: torch.optim.Adam(p, 0.001, weight_decay=0.1)),
        (
            SGDConfig(nesterov=True, decay_all=True),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.0005),
        ),
    ],
)
def test_optimisers_are_torchs(config, oracle):
    ours, theirs = model(), model()
    pairs = [(ours, config.build(ours)), (theirs, oracle(theirs.parameters()))]
    for _ in range(3):
        for network, optimizer in pairs:
            optimizer.zero_grad()
            network(torch.ones(2, 3, 3, 3)).pow(2).sum().backward()
            optimizer.step()
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(left, right)


def test_the_average_follows_its_formula_buffers_included():
    network = model()
    average = copy.deepcopy(network.state_dict())
    expected = average["1.running_mean"].clone()
    for step in range(5):
        network(torch.randn(8, 3, 3, 3))
        decay = min(0.9, (1 + step) / (10 + step))
        expected = expected * decay + network.state_dict()["1.running_mean"] * (1 - decay)
        update_average(average, network, 0.9, step)
    torch.testing.assert_close(average["1.running_mean"], expected)
    assert average["1.num_batches_tracked"] == 5


def test_the_average_forgets_the_first_weights_fast():
    assert ramped_decay(0.999, 0) == 0.1
    assert ramped_decay(0.999, 10**6) == 0.999


def test_muon_is_torchs_for_matrices_and_adamw_for_the_rest():
    networks = [create_model("resnet9", width=8, num_classes=3, image_size=16) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    hidden = [each for each in networks[1].parameters() if each in hidden_matrices(networks[1])]
    others = [each for each in networks[1].parameters() if each not in hidden_matrices(networks[1])]
    assert len({each.flatten(1).shape for each in hidden}) > 2
    matrices = [nn.Parameter(each.detach().flatten(1).clone()) for each in hidden]
    ours = MuonConfig(weight_decay=0.1, decay_all=True).build(networks[0])
    theirs = [
        torch.optim.AdamW(others, 0.01, weight_decay=0.1),
        torch.optim.Muon(matrices, 0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        for left, right in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
            right.grad = torch.randn_like(left)
            left.grad = right.grad.clone()
        for matrix, source in zip(matrices, hidden, strict=True):
            assert source.grad is not None
            matrix.grad = source.grad.flatten(1)
        for optimizer in (ours, *theirs):
            optimizer.step()
    moved = dict(zip(hidden, matrices, strict=True))
    for left, right in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        if right in moved:  # products of bfloat16 in other orders
            torch.testing.assert_close(left.flatten(1), moved[right], rtol=0, atol=5e-4)
        else:
            torch.testing.assert_close(left, right)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 40, 8), (1, 8, 40)])
def test_orthogonalised_matrices_keep_their_singular_vectors(shape: tuple[int, ...]):
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    found = orthogonalised(matrices, iterations=5)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inside = left.mT @ found @ right.mT
    values = inside.diagonal(dim1=1, dim2=2)
    assert (values > 0.3).all()
    assert (values < 1.4).all()
    assert (inside - values.diag_embed()).abs().max() < 0.05


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mixer_small_patch4", "resnet9"])
def test_muon_leaves_the_first_and_the_last_layer_to_adamw(name: str):
    network = create_model(name, num_classes=7)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    hidden = hidden_matrices(network)
    assert layers[0].weight not in hidden
    assert layers[-1].weight not in hidden
    assert len(hidden) == len(layers) - 2
