"""Every compiled operator against its plain reference in float64, for every instruction set of this machine."""

import ctypes
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mixlab import devices
from mixlab.kernels import library, operators, reference

COMPILED = [name for name in library.instruction_sets() if (library.FOLDER / library.file_name(name)).is_file()]
NAMES = (
    "depthwise_forward depthwise_backward mixing_forward mixing_backward blocks_inference "
    "activation_inference mean_of_positions activation_forward activation_backward add_scaled sum_products "
    "pointwise_forward pointwise_backward"
).split()
SUMMING = ("mixing_forward", "mixing_backward", "pointwise_forward", "pointwise_backward")
ACTIVE = [name for name in NAMES if {"relu", "slope"} & {*inspect.signature(getattr(reference, name)).parameters}]
WANTED = {"mixing_backward": {"of_weight": True}, "depthwise_backward": {"of_input": True, "of_weight": True}}
ERRORS = {torch.float32: 2e-6, torch.bfloat16: 4e-3}  # relative; bfloat16 has 8 bits
FLOORS = {torch.float32: 3e-7, torch.bfloat16: 2.2e-4}  # absolute, of one GELU or its derivative

pytestmark = pytest.mark.skipif(not COMPILED, reason="no kernels were compiled")
sizes = st.tuples(st.integers(1, 9), st.integers(1, 37), st.integers(1, 19), st.integers(1, 19), st.integers(1, 15))


@pytest.fixture(params=COMPILED)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    loaded = ctypes.CDLL(str(library.FOLDER / library.file_name(request.param)))
    monkeypatch.setattr(library, "library", lambda: loaded)
    return request.param


def tensors(size: tuple[int, ...], kind: torch.dtype) -> dict[str, Any]:
    """Draw an argument of each name; maps hold numbers that bfloat16 has, in memory orders of their own."""
    images, channels, rows, columns, side = size
    torch.manual_seed(sum(size))

    def channel() -> Tensor:
        return torch.randn(channels)

    maps = {name: torch.randn(images, rows, columns, channels).to(kind) for name in ("x", "x1", "x2", "y", "slope")}
    found = {name: value.permute(0, 3, 1, 2) for name, value in maps.items()}
    found["gradient"] = torch.randn(images, channels, rows, columns).to(kind)
    found |= {"weight": torch.randn(channels, 1, side, side), "bias": channel()}
    found["matrix"] = (torch.randn(channels, channels, 1, 1) / channels**0.5).to(kind).float()
    names = "matrix_bias scale shift scale1 shift1 scale2 shift2 after a b c".split()
    found |= {name: channel() for name in names}
    return found | {"parameters": [found[name] for name in operators.BLOCK]}


def doubled(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return value.double() if isinstance(value, Tensor) else [each.double() for each in value]


def check(name: str, size: tuple[int, ...], kind: torch.dtype, relu: bool = False) -> None:
    fast, plain = getattr(operators, name), getattr(reference, name)
    given_ = tensors(size, kind) | {"relu": relu}
    if relu:
        given_["slope"] = torch.empty(0, dtype=kind)
    names = list(inspect.signature(plain).parameters)
    found = fast(*[given_[each] for each in names], **WANTED.get(name, {}))
    expected = plain(*[doubled(given_[each]) for each in names])
    together = zip(*[(each,) if isinstance(each, Tensor) else each for each in (found, expected)], strict=True)
    spread = max(size[0] * size[2] * size[3], 1) ** 0.5  # sums that cancel lose what their terms have
    if name == "mixing_backward":  # whose terms are the gradient that reaches x, and grow with the kernel
        spread *= max(float(expected[0].square().mean()) ** 0.5, 1)
    for place, (ours, theirs) in enumerate(together):
        assert ours.shape == theirs.shape
        error = float((ours.double() - theirs).norm())
        scale = float(theirs.norm()) + spread * (theirs.dim() == 1)
        assert error <= ERRORS[kind] * scale + FLOORS[kind] * theirs.numel() ** 0.5, (
            f"output {place} of {name}: {error / scale:.1e}"
        )


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(3, 40, 8, 9, 5), (9, 16, 16, 16, 9), (1, 3, 5, 4, 4), (2, 33, 7, 17, 7)])
def test_an_operator_equals_its_reference(name: str, kind: torch.dtype, size: tuple[int, ...]):
    check(name, size, kind)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("name", ACTIVE)
def test_relu_equals_its_reference(name: str, kind: torch.dtype):
    check(name, (2, 33, 7, 9, 5), kind, relu=True)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("side", range(1, 16))
def test_a_depthwise_convolution_and_its_gradients_equal_their_reference(side: int, kind: torch.dtype):
    check("depthwise_forward", (2, 18, 11, 12, side), kind)
    check("depthwise_backward", (2, 18, 11, 12, side), kind)


@settings(max_examples=40, deadline=None)
@given(size=sizes, kind=st.sampled_from(list(ERRORS)))
def test_shapes_do_not_matter(size: tuple[int, ...], kind: torch.dtype):
    check("depthwise_backward", size, kind)
    check("mixing_forward", size, kind)
    check("mixing_backward", size, kind)
    check("activation_forward", size, kind)
    check("blocks_inference", size, kind)
    check("pointwise_forward", size, kind)
    check("pointwise_backward", size, kind)


@pytest.mark.usefixtures("instruction_set")
def test_gelu_keeps_its_precision_far_from_zero():
    x = torch.cat([torch.linspace(-100, 100, 20001), torch.tensor([0.0, -0.0, 1e-30, 3e38, -3e38])])
    found, slope, *_ = operators.activation_forward(x.view(1, 1, 1, -1))
    expected, expected_slope, *_ = reference.activation_forward(x.double().clamp(-1e6).view(1, 1, 1, -1))
    assert (found - expected).abs().div(expected.abs().clamp(min=1)).max() < 5e-7
    assert (slope - expected_slope).abs().max() < 1e-6
    assert torch.isnan(operators.activation_forward(torch.full((1, 1, 1, 1), torch.nan))[0]).all()


@pytest.mark.usefixtures("instruction_set")
def test_gelu_of_bfloat16_is_off_by_less_than_its_rounding():
    x = torch.linspace(-300, 300, 60001).bfloat16().unique().view(1, 1, 1, -1)
    found, slope, *_ = operators.activation_forward(x)
    expected, expected_slope, *_ = reference.activation_forward(x.double())
    assert (found - expected).abs().sub(2**-8 * expected.abs()).max() < 1e-4
    assert (slope - expected_slope).abs().max() < 2.2e-4 + 2**-8
    assert slope[x < -4.25].count_nonzero() == 0  # it is multiplied by inputs of any size
    assert operators.activation_forward(torch.full((1, 1, 1, 1), torch.nan).bfloat16())[1].isnan().all()


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("kind", ERRORS)
def test_results_are_the_same_bits_again_and_with_any_number_of_threads(kind: torch.dtype):
    names = {each: inspect.signature(getattr(reference, each)).parameters for each in SUMMING}
    values = tensors((20, 40, 8, 8, 5), kind) | {"relu": False}
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 3):
            torch.set_num_threads(threads)
            outputs = []
            for name, parameters in names.items():
                given_ = [values[each] for each in parameters]
                outputs += getattr(operators, name)(*given_, **WANTED.get(name, {}))
            found.append(outputs)
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[0], other, strict=True))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("images", [1, 2, 5, 16])
def test_blocks_together_are_the_same_bits_as_one_after_the_other(
    images: int, threads: int, monkeypatch: pytest.MonkeyPatch
):
    given_ = tensors((images, 24, 7, 7, 5), torch.bfloat16)
    x, blocks = given_["x"], [given_["parameters"], [-each for each in given_["parameters"]]]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads)
        together = operators.blocks_inference(x, [*blocks[0], *blocks[1]])
    apart = operators.blocks_inference(operators.blocks_inference(x, blocks[0]), blocks[1])
    assert torch.equal(together, apart)
    assert torch.equal(together[:1], operators.blocks_inference(x[:1], [*blocks[0], *blocks[1]]))
    assert torch.equal(x, operators.blocks_inference(x, []))


def pointwise(values: dict[str, Any], name: str) -> list[Tensor]:
    return getattr(operators, name)(*[values[each] for each in inspect.signature(getattr(reference, name)).parameters])


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("power", [-60, -20, 16, 60])
def test_products_are_the_same_bits_of_numbers_of_any_size(kind: torch.dtype, power: int):
    """float16 alone holds 2^-24 to 2^16."""
    values = tensors((3, 70, 9, 9, 1), kind) | {"relu": True, "slope": torch.empty(0, dtype=kind)}
    values |= dict.fromkeys(["shift1", "shift2", "matrix_bias", "a", "b"], torch.zeros(70))
    sizes, plain = (2.0 ** torch.randint(-20, 20, (70,))).view(-1, 1, 1, 1), values["matrix"]
    values["matrix"] = plain * sizes  # outputs may differ in size too
    large = values | {name: values[name] * 2.0**power for name in ("x1", "x2")}
    forward, scaled = (pointwise(each, "pointwise_forward") for each in (values, large))
    assert torch.equal(forward[0] * 2.0**power, scaled[0])
    assert torch.equal(
        pointwise(values | {"matrix": plain}, "pointwise_forward")[0] * sizes.view(1, -1, 1, 1), forward[0]
    )
    large = large | {"gradient": values["gradient"] * 2.0**-power}
    gradients, scaled = (pointwise(each, "pointwise_backward") for each in (values, large))
    assert torch.equal(gradients[0] * 2.0**-power, scaled[0])
    assert torch.equal(gradients[1], scaled[1])  # of the weights
    large = values | {"matrix": values["matrix"] * 2.0**power}
    assert torch.equal(forward[0] * 2.0**power, pointwise(large, "pointwise_forward")[0])


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("number", [torch.inf, torch.nan, 1e38])  # beside the last, what is near 0 counts as 0
def test_a_position_that_is_not_finite_harms_no_other(kind: torch.dtype, number: float):
    values = tensors((2, 40, 8, 8, 1), kind) | {"relu": False}
    expected = pointwise(values, "pointwise_forward")[0]
    values["x1"] = values["x1"].clone()
    values["x1"][0, :, 2, 3] = number
    found = pointwise(values, "pointwise_forward")[0]
    others = torch.ones(2, 8, 8, dtype=torch.bool)
    others[0, 2, 3] = False
    found, expected = (each.permute(0, 2, 3, 1)[others] for each in (found, expected))
    assert torch.isfinite(found).all()
    if number != 1e38:
        assert torch.equal(found, expected)


@pytest.mark.usefixtures("instruction_set")
def test_an_image_has_the_same_bits_beside_one_of_another_size():
    given_ = tensors((3, 24, 9, 9, 3), torch.bfloat16)
    x = given_["x"] * torch.tensor([1.0, 2.0**40, 2.0**-40]).bfloat16().view(3, 1, 1, 1)
    together = operators.blocks_inference(x, given_["parameters"])
    for image in range(3):
        one = slice(image, image + 1)
        assert torch.equal(together[one], operators.blocks_inference(x[one], given_["parameters"]))


def test_what_is_not_wanted_is_not_computed():
    values = tensors((2, 4, 5, 5, 3), torch.float32)
    x, weight, _ = operators.depthwise_backward(values["gradient"], values["x"], values["weight"], False, False)
    assert x.numel() == weight.numel() == 0
    names = list(inspect.signature(reference.mixing_backward).parameters)
    *_, weight, bias = operators.mixing_backward(*[values[each] for each in names], False)
    assert weight.numel() == 0
    assert torch.equal(bias, operators.mixing_backward(*[values[each] for each in names], True)[-1])


def test_operators_keep_what_pytorch_asks_of_them():
    values = tensors((2, 8, 5, 5, 3), torch.float32) | {"relu": False}
    for name in NAMES:
        arguments = tuple(values[each] for each in inspect.signature(getattr(reference, name)).parameters)
        torch.library.opcheck(getattr(torch.ops.mixlab, name), (*arguments, *WANTED.get(name, {}).values()))


@pytest.mark.parametrize(
    ("name", "float16", "fastest"),
    [("Intel Xeon", True, "avx512fp16"), ("Intel Xeon", False, "avx512"), ("AMD EPYC", False, "avx512bf16")],
)
def test_the_fastest_instruction_set_comes_first(
    name: str, float16: bool, fastest: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(devices, "_capabilities", lambda: {"cpu_name": name, "avx512_fp16": float16})
    assert library.instruction_sets()[0] == fastest
    assert set(library.instruction_sets()) >= {"avx512bf16", "avx512", "avx2", "baseline"}


def test_a_library_that_cannot_be_loaded_leaves_pytorchs_own_operations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in library.instruction_sets():
        (tmp_path / library.file_name(name)).write_bytes(b"no library")
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    library.library.cache_clear()
    try:
        assert not library.is_usable(torch.zeros(1, 1, 1, 1))
        assert "PyTorch's own" in library.describe()
    finally:
        library.library.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is asked")
def test_memory_of_large_maps_is_kept():
    """Above 32 MiB malloc would fetch each map anew, page by page: most of a step with a large batch."""
    script = (
        "import resource, torch; from mixlab.kernels import library; library.library()\n"
        "faults = []\n"
        "for _ in range(10):\n"
        "    maps = [torch.zeros(2**24) for _ in range(3)]; del maps\n"
        "    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)\n"
        "print(faults[-1] - faults[-2])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 2**14  # the pages of one of the three
