"""ConvMixer in training by compiled kernels against ConvMixer layer by layer."""

import copy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mixlab.kernels import library
from mixlab.models.convmixer import ConvMixer, ConvMixerConfig
from mixlab.spec import DataSpec

pytestmark = pytest.mark.skipif(library.library() is None, reason="no kernels were compiled")
PRECISIONS = {torch.float32: 1e-5, torch.bfloat16: 0.05}


def built(spec: DataSpec, **fields: object) -> nn.Module:
    torch.manual_seed(0)
    config = ConvMixerConfig(**{"dim": 24, "depth": 3, "kernel_size": 5, "patch_size": 2} | fields)  # pyright: ignore[reportArgumentType]
    return config.build(spec).to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]


def trained(model: nn.Module, kind: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Take the gradient of one batch; return logits, gradients and buffers."""
    torch.manual_seed(1)
    x, labels = torch.rand(6, 3, 16, 16), torch.randint(0, 3, (6,))
    with torch.autocast("cpu", kind, enabled=kind != torch.float32):
        logits = model(x)
    model.zero_grad()
    functional.cross_entropy(logits.float(), labels).backward()
    gradients = {f"gradient of {name}": each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {"logits": logits.detach(), **gradients, **copy.deepcopy(dict(model.named_buffers()))}


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm().clamp(min=1e-3))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the compiled functions as they are called."""
    called: list[str] = []
    real: Callable[..., None] = library.call

    def call(name: str, *arguments: object) -> None:
        called.append(name)
        real(name, *arguments)

    monkeypatch.setattr(library, "call", call)
    return called


@pytest.fixture(params=[False, True], ids=["PyTorch multiplies", "mixlab multiplies"])
def multiplies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(library, "multiplies", lambda device, kind: request.param)
    return request.param


@pytest.mark.parametrize(
    "fields", [{}, {"activation": "relu"}, {"kernel_size": 4, "dim": 21}, {"patch_size": 3, "kernel_size": 9}]
)
def test_a_step_is_that_of_the_layers(fields: dict, spec: DataSpec, counted: list[str], multiplies: bool):
    fast = trained(built(spec, **fields))
    assert counted.count("mixing_forward") == counted.count("mixing_backward") == 3
    assert counted.count("pointwise_forward") == counted.count("pointwise_backward") == 3 * multiplies
    with library.stock():
        slow = trained(built(spec, **fields))
    assert fast.keys() == slow.keys()
    worst = max((distance(fast[name], slow[name]), name) for name in fast)
    assert worst[0] < PRECISIONS[torch.float32], worst


@pytest.mark.usefixtures("multiplies")
def test_gradients_in_bfloat16_are_as_near_to_the_exact_ones_as_pytorchs(spec: DataSpec):
    fast = trained(built(spec), torch.bfloat16)
    with library.stock():
        slow, exact = trained(built(spec), torch.bfloat16), trained(built(spec))
    names = [name for name in exact if name.startswith("gradient")]
    ours, theirs = (sum(distance(found[name], exact[name]) for name in names) for found in (fast, slow))
    assert ours < 1.1 * theirs


@pytest.mark.parametrize(
    "fields",
    [{"norm": "layer"}, {"residual": "gamma"}, {"residual": "both"}, {"residual": "none"}],
)
@pytest.mark.parametrize("kind", PRECISIONS)
def test_other_blocks_have_the_depthwise_kernel(fields: dict, kind: torch.dtype, spec: DataSpec, counted: list[str]):
    fast = trained(built(spec, **fields), kind)
    assert counted.count("depthwise_forward") == counted.count("depthwise_backward") == 3
    with library.stock():
        slow = trained(built(spec, **fields), kind)
    assert max(distance(fast[name], slow[name]) for name in fast) < 5 * PRECISIONS[kind]


def test_features_and_classifier_are_those_of_the_whole(spec: DataSpec):
    model, x = built(spec), torch.rand(2, 3, 16, 16)
    assert isinstance(model, ConvMixer)
    torch.testing.assert_close(model.head(model.forward_features(x)), model(x))


def test_evaluation_is_left_to_the_layers(spec: DataSpec, counted: list[str]):
    built(spec).eval()(torch.rand(2, 3, 16, 16))
    assert counted == []


@pytest.mark.usefixtures("multiplies")
def test_frozen_weights_leave_the_gradients_of_the_others(spec: DataSpec):
    def frozen() -> nn.Module:
        model = built(spec)
        for block in model.blocks:
            block.depthwise[0].requires_grad_(False)
        return model

    fast = trained(frozen())
    with library.stock():
        slow = trained(frozen())
    assert fast.keys() == slow.keys()
    assert max(distance(fast[name], slow[name]) for name in fast) < PRECISIONS[torch.float32]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.blocks[0].register_forward_hook(lambda *_: None),
        lambda model: model.blocks.append(nn.Identity()),
        lambda model: model.blocks.append(nn.Conv2d(24, 24, 1)),
        lambda model: setattr(model.blocks[1].depthwise, "1", nn.ReLU()),
        lambda model: nn.utils.parametrizations.weight_norm(model.blocks[0].pointwise[0]),
    ],
    ids=["hook", "other block", "a layer more", "other activation", "parametrised"],
)
def test_a_network_that_was_changed_runs_layer_by_layer(change: Callable, spec: DataSpec, counted: list[str]):
    model = built(spec)
    change(model)
    trained(model)
    assert "mixing_forward" not in counted


def test_one_value_of_a_channel_has_no_variance_as_in_pytorch(spec: DataSpec):
    with pytest.raises(ValueError, match="more than 1 value"):
        built(spec)(torch.rand(1, 3, 2, 2))


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_networks_of_other_precision_train(kind: torch.dtype, spec: DataSpec):
    model = built(spec).to(kind)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.float64):
        model(torch.rand(4, 3, 8, 8, dtype=kind)).sum().backward()


def test_a_step_repeats_bit_for_bit(spec: DataSpec):
    first, second = trained(built(spec), torch.bfloat16), trained(built(spec), torch.bfloat16)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_exported_is_made_of_pytorchs_own_operations(spec: DataSpec):
    exported = torch.export.export(built(spec), (torch.rand(2, 3, 16, 16),))
    assert "mixlab" not in str(exported.graph)


COMPILED = """
import torch
from mixlab.kernels import library
from mixlab.models.convmixer import ConvMixerConfig
from mixlab.spec import DataSpec

called, real = [], library.call
library.call = lambda name, *arguments: (called.append(name), real(name, *arguments))
spec = DataSpec(image_size=8, classes=("a", "b"), mean=(0.5,) * 3, std=(0.2,) * 3)
torch.manual_seed(0)
model = ConvMixerConfig(dim=8, depth=2, kernel_size=3, patch_size=2).build(spec).train()
x, gradients = torch.rand(4, 3, 8, 8), []
compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
for forward, autocast in ((model, False), (compiled, False), (model, True), (compiled, True)):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = forward(x).float()
    found.square().sum().backward()
    gradients.append([each.grad for each in model.parameters()])
for eager, traced in (gradients[:2], gradients[2:]):
    for expected, found in zip(eager, traced, strict=True):
        torch.testing.assert_close(found, expected)
print(called.count("mixing_backward"))
"""


@pytest.mark.slow
def test_training_can_be_compiled_as_one_graph():
    found = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert (found.stdout.strip(), found.returncode) == ("8", 0), found.stderr[-2000:]


def test_layers_that_are_frozen_in_evaluation_mode_stay_so(spec: DataSpec, counted: list[str]):
    model = built(spec)
    frozen = model.blocks[1].pointwise[2].eval()
    before = frozen.running_mean.clone()
    trained(model)
    assert torch.equal(frozen.running_mean, before)
    assert "mixing_forward" not in counted
