"""Triton's kernels on a GPU, against the plain reference in float64, PyTorch's layers and themselves."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mixlab.kernels import choice, library, operators, reference, trial
from mixlab.models.convmixer import ConvMixerConfig
from mixlab.models.folding import fold
from mixlab.spec import DataSpec

DEVICE = torch.device("cuda", 0)
READY = torch.cuda.is_available() and library.is_ready(DEVICE)
pytestmark = pytest.mark.skipif(not READY, reason="needs a CUDA device of compute capability 8.0, and Triton")

NAMES = (
    "depthwise_forward depthwise_backward mixing_forward mixing_backward blocks_inference "
    "activation_inference mean_of_positions activation_forward activation_backward add_scaled sum_products"
).split()
WANTED = {"mixing_backward": [True], "depthwise_backward": [True, True]}  # gradients of the filters, of the input too
ERRORS = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}  # relative
SIDES = (3, 5, 7, 9)


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No choice was made, and PyTorch's convolutions of float32 are exact."""
    monkeypatch.setenv("MIXLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(choice, "_made", {})
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our kernels do everything, be they faster or not."""
    monkeypatch.setattr(choice, "is_ours", lambda *arguments: True)


def tensors(size: tuple[int, ...], kind: torch.dtype) -> dict[str, Any]:
    images, channels, rows, columns, side = size
    torch.manual_seed(sum(size))
    maps = {name: torch.randn(images, channels, rows, columns).to(kind) for name in "x x1 x2 y slope gradient".split()}
    maps["weight"] = torch.randn(channels, 1, side, side)
    maps["matrix"] = (torch.randn(channels, channels, 1, 1) / channels**0.5).to(kind).float()
    names = "bias matrix_bias scale shift scale1 shift1 scale2 shift2 after a b c".split()
    maps |= {name: torch.randn(channels) for name in names}
    return maps | {"parameters": [maps[name] for name in operators.BLOCK]}


def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, bool):
        return value
    return change(value) if isinstance(value, Tensor) else [change(each) for each in value]


def relative(ours: Tensor, theirs: Tensor, least: float = 1e-3) -> float:
    return float((ours.double().cpu() - theirs.double().cpu()).norm() / theirs.double().norm().clamp(min=least))


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [*((4, 256, 16, 16, side) for side in SIDES), (3, 37, 11, 19, 4), (2, 768, 32, 32, 7)])
def test_an_operator_equals_its_reference(name: str, kind: torch.dtype, size: tuple[int, ...]):
    plain, values = getattr(reference, name), tensors(size, kind) | {"relu": size[1] == 768}
    if values["relu"]:
        values["slope"] = torch.empty(0, dtype=kind)
    names = list(inspect.signature(plain).parameters)
    given = [changed(values[each], lambda tensor: tensor.to(DEVICE)) for each in names]
    found = getattr(operators, name)(*given, *WANTED.get(name, []))
    expected = plain(*[changed(values[each], Tensor.double) for each in names])
    spread = (size[0] * size[2] * size[3]) ** 0.5  # sums that cancel lose what their terms have
    for mine, truth in zip(*[(each,) if isinstance(each, Tensor) else each for each in (found, expected)], strict=True):
        assert relative(mine, truth, spread * truth.shape[-1] ** 0.5 if truth.dim() == 1 else 1e-3) < ERRORS[kind]


@pytest.mark.parametrize("kind", ERRORS)
def test_results_are_the_same_bits_again(kind: torch.dtype):
    names = list(inspect.signature(reference.mixing_backward).parameters)
    values = tensors((64, 256, 16, 16, 5), kind)
    arguments = [values[each].to(DEVICE) for each in names]
    first, *others = (operators.mixing_backward(*arguments, True) for _ in range(3))
    for other in others:
        assert all(torch.equal(mine, again) for mine, again in zip(first, other, strict=True))


def built(spec: DataSpec, side: int) -> nn.Module:
    torch.manual_seed(0)
    model = ConvMixerConfig(dim=64, depth=3, kernel_size=side, patch_size=2).build(spec)
    return model.to(DEVICE).to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]


def trained(model: nn.Module, kind: torch.dtype) -> dict[str, Tensor]:
    """Take the gradient of one batch; return logits, gradients and buffers."""
    torch.manual_seed(1)
    x, labels = torch.rand(16, 3, 16, 16).to(DEVICE), torch.randint(0, 3, (16,)).to(DEVICE)
    with torch.autocast("cuda", kind, enabled=kind != torch.float32):
        logits = model(x)
    functional.cross_entropy(logits.float(), labels).backward()
    gradients = {f"gradient of {name}": each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {"logits": logits.detach(), **gradients, **dict(model.named_buffers())}


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("side", SIDES)
def test_a_step_is_that_of_the_layers(side: int, spec: DataSpec):
    fast = trained(built(spec, side), torch.float32)
    with library.stock():
        slow = trained(built(spec, side), torch.float32)
    assert fast.keys() == slow.keys()
    worst = max((relative(fast[name], slow[name]), name) for name in fast)
    assert worst[0] < 1e-4, worst


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_gradients_of_half_precision_are_as_near_to_the_exact_ones_as_pytorchs(kind: torch.dtype, spec: DataSpec):
    fast = trained(built(spec, 5), kind)
    with library.stock():
        slow, exact = trained(built(spec, 5), kind), trained(built(spec, 5), torch.float32)
    names = [name for name in exact if name.startswith("gradient")]
    mine, theirs = (sum(relative(found[name], exact[name]) for name in names) for found in (fast, slow))
    assert mine < 1.2 * theirs


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("side", SIDES)
def test_a_folded_network_has_the_logits_of_the_layers(side: int, spec: DataSpec):
    model, x = built(spec, side).eval(), torch.rand(8, 3, 16, 16).to(DEVICE)
    with torch.inference_mode():
        assert relative(fold(model)(x), model(x).cpu()) < 1e-4


@pytest.mark.usefixtures("ours")
def test_float16_learns_with_scaled_gradients(spec: DataSpec):
    model, scaler = built(spec, 5), torch.amp.GradScaler("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, labels = torch.rand(16, 3, 16, 16, device=DEVICE), torch.arange(16, device=DEVICE) % 3
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            logits = model(x)
        loss = functional.cross_entropy(logits.float(), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("kind", trial.FORMS)
@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize("side", [5, 9])
def test_a_trial_finds_that_both_agree(kind: str, precision: torch.dtype, side: int):
    found = trial.run(trial.Case(kind, precision, 16, 16, 256, side), DEVICE)
    assert found.difference <= 1
    assert min(found.our_milliseconds, found.stock_milliseconds) > 0


def test_a_choice_is_kept_in_a_file(spec: DataSpec, monkeypatch: pytest.MonkeyPatch):
    trained(built(spec, 5), torch.bfloat16)
    made = choice.made()
    assert any("training bfloat16 8x8x64 k5" in name for name in made)
    assert len(list(choice.folder().iterdir())) == len(made)
    monkeypatch.setattr(choice, "_made", {})
    monkeypatch.setattr(trial, "run", lambda *arguments: pytest.fail("tried again"))
    trained(built(spec, 5), torch.bfloat16)
    assert choice.made() == made


@pytest.mark.usefixtures("ours")
def test_a_folded_network_can_be_captured_as_a_graph(spec: DataSpec):
    model, x = fold(built(spec, 5).eval()), torch.rand(8, 3, 16, 16, device=DEVICE)
    with torch.inference_mode():
        expected = model(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = model(x)
        graph.replay()
    assert torch.equal(found, expected)
