"""Triton's operators, run by its interpreter on the CPU, against the plain reference in float64 and PyTorch's layers.

The interpreter is chosen before Triton is first imported, and the operators' CPU form is replaced here: a process of
its own, `make triton`. It cuts bfloat16 off where a GPU rounds, and multiplies matrices of it wrongly.
"""

import copy
import importlib.util
import inspect
import os
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from mixlab.kernels import library, operators, reference, trial
from mixlab.models.convmixer import ConvMixerConfig
from mixlab.models.folding import fold
from mixlab.spec import DataSpec

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INTERPRETED, reason="make triton runs these")]

if INTERPRETED:
    from mixlab.kernels.gpu.operators import register

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)  # the compiled ones
        register("cpu")

NAMES = (
    "depthwise_forward depthwise_backward mixing_forward mixing_backward blocks_inference "
    "activation_inference mean_of_positions activation_forward activation_backward add_scaled sum_products"
).split()
ACTIVE = [name for name in NAMES if {"relu", "slope"} & {*inspect.signature(getattr(reference, name)).parameters}]
WANTED = {"mixing_backward": [True], "depthwise_backward": [True, True]}  # gradients of the filters, of the input too
ERRORS = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}  # relative
sizes = st.tuples(st.integers(1, 2), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))


def tensors(size: tuple[int, ...], kind: torch.dtype) -> dict[str, Any]:
    """Draw an argument of each name; maps are parts of larger ones, in memory orders of their own."""
    images, channels, rows, columns, side = size
    torch.manual_seed(sum(size))
    maps = {name: torch.randn(images, rows, columns + 1, channels).to(kind) for name in ("x", "x1", "x2", "y", "slope")}
    found = {name: value[:, :, 1:].permute(0, 3, 1, 2) for name, value in maps.items()}
    found["gradient"] = torch.randn(images, channels, rows, columns).to(kind)
    found["weight"] = torch.randn(channels, 1, side, side)
    found["matrix"] = (torch.randn(channels, channels, 1, 1) / channels**0.5).to(kind).float()
    names = "bias matrix_bias scale shift scale1 shift1 scale2 shift2 after a b c".split()
    found |= {name: torch.randn(channels) for name in names}
    return found | {"parameters": [found[name] for name in operators.BLOCK]}


def doubled(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return value.double() if isinstance(value, Tensor) else [each.double() for each in value]


def check(name: str, size: tuple[int, ...], kind: torch.dtype, relu: bool = False) -> None:
    fast, plain = getattr(operators, name), getattr(reference, name)
    values = tensors(size, kind) | {"relu": relu}
    if relu:
        values["slope"] = torch.empty(0, dtype=kind)
    names = list(inspect.signature(plain).parameters)
    found = fast(*[values[each] for each in names], *WANTED.get(name, []))
    expected = plain(*[doubled(values[each]) for each in names])
    together = zip(*[(each,) if isinstance(each, Tensor) else each for each in (found, expected)], strict=True)
    spread = (size[0] * size[2] * size[3]) ** 0.5  # sums that cancel lose what their terms have
    for place, (ours, theirs) in enumerate(together):
        assert ours.shape == theirs.shape
        error = float((ours.double() - theirs).norm())
        scale = float(theirs.norm()) + spread * (theirs.dim() == 1 or theirs.shape[1] == 1) + 0.1
        assert error <= ERRORS[kind] * scale, f"output {place} of {name}: {error / scale:.1e}"


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(2, 70, 5, 9, 5), (1, 3, 9, 4, 4)])
def test_an_operator_equals_its_reference(name: str, kind: torch.dtype, size: tuple[int, ...]):
    if (name, kind) != ("blocks_inference", torch.bfloat16):
        check(name, size, kind)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ACTIVE)
def test_relu_equals_its_reference(name: str, kind: torch.dtype):
    check(name, (1, 33, 5, 6, 3), kind, relu=True)


@pytest.mark.parametrize("side", range(1, 16))
def test_every_side_of_a_kernel_has_its_gradients(side: int):
    check("depthwise_forward", (1, 5, 4, 5, side), torch.float32)
    check("depthwise_backward", (1, 5, 4, 5, side), torch.float32)


@settings(max_examples=3, deadline=None)
@given(size=sizes, kind=st.sampled_from(list(ERRORS)))
def test_shapes_do_not_matter(size: tuple[int, ...], kind: torch.dtype):
    check("mixing_forward", size, kind)
    check("mixing_backward", size, kind)
    check("blocks_inference", size, torch.float16)
    check("activation_forward", size, kind)


def test_operators_keep_what_pytorch_asks_of_them():
    values = tensors((2, 8, 3, 4, 3), torch.float32) | {"relu": False}
    for name in NAMES:
        arguments = [values[each] for each in inspect.signature(getattr(reference, name)).parameters]
        torch.library.opcheck(getattr(torch.ops.mixlab, name), (*arguments, *WANTED.get(name, [])))


def test_results_are_the_same_bits_again():
    names = list(inspect.signature(reference.mixing_backward).parameters)
    values = [tensors((3, 20, 4, 8, 3), torch.bfloat16)[each] for each in names]
    first, second = (operators.mixing_backward(*values, True) for _ in range(2))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, second, strict=True))


def test_gelu_keeps_its_precision_far_from_zero():
    x = torch.cat([torch.linspace(-100, 100, 2001), torch.tensor([0.0, -0.0, 1e-30, 1e15])])
    found, slope, *_ = operators.activation_forward(x.view(1, 1, 1, -1))
    expected, expected_slope, *_ = reference.activation_forward(x.double().view(1, 1, 1, -1))
    assert (found - expected).abs().div(expected.abs().clamp(min=1)).max() < 5e-7
    assert (slope - expected_slope).abs().max() < 1e-6


def built(spec: DataSpec, **fields: object) -> nn.Module:
    torch.manual_seed(0)
    config = ConvMixerConfig(**{"dim": 24, "depth": 2, "kernel_size": 5, "patch_size": 2} | fields)  # pyright: ignore[reportArgumentType]
    return config.build(spec).to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]


def trained(model: nn.Module) -> dict[str, Tensor]:
    """Take the gradient of one batch; return logits, gradients and buffers."""
    torch.manual_seed(1)
    x, labels = torch.rand(2, 3, 8, 8), torch.randint(0, 3, (2,))
    logits = model(x.to(next(model.parameters()).dtype))
    functional.cross_entropy(logits, labels).backward()
    gradients = {f"gradient of {name}": each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {"logits": logits.detach(), **gradients, **copy.deepcopy(dict(model.named_buffers()))}


def distance(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth.double()).norm() / truth.double().norm().clamp(min=1e-3))


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels for the CPU count as there; a call of the compiled ones would fail."""
    monkeypatch.setattr(library, "library", lambda: object())


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("fields", [{}, {"kernel_size": 4, "dim": 21}, {"kernel_size": 9, "residual": "gamma"}])
def test_a_step_is_as_near_to_the_exact_one_as_that_of_the_layers(fields: dict, spec: DataSpec):
    fast = trained(built(spec, **fields))
    with library.stock():
        slow, exact = trained(built(spec, **fields)), trained(built(spec, **fields).double())
    assert fast.keys() == slow.keys()
    for name, truth in exact.items():
        assert distance(fast[name], truth) < 3 * distance(slow[name], truth) + 1e-6, name


@pytest.mark.parametrize("kind", trial.FORMS)
def test_a_trial_finds_that_both_agree(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trial, "POSITIONS", 60)
    monkeypatch.setattr(trial, "_milliseconds", lambda forms: [1.0, 2.0])
    found = trial.run(trial.Case(kind, torch.float16, 5, 6, 24, 3), torch.device("cpu"))
    assert found.difference < 1


@pytest.mark.usefixtures("ready")
def test_a_folded_network_has_the_logits_of_the_layers(spec: DataSpec):
    model, x = built(spec).eval(), torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        found, expected = fold(model)(x), model(x)
    assert (found - expected).norm() / expected.norm() < 1e-5
