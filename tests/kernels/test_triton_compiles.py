"""Every Triton kernel becomes machine code for GPUs, without one: types, shared memory and registers are all known."""

import functools
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

triton = pytest.importorskip("triton")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(triton.knobs.runtime.interpret, reason="nothing is compiled")]

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
AMPERE, HOPPER = 80, 90


def machine_code(capability: int, kernel: Any, *arguments: Any, num_warps: int = 4, num_stages: int = 3) -> bytes:
    """Compile a kernel for the arguments that it is launched with."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants, signature, aligned = {}, {}, {}
    for place, (name, parameter, value) in enumerate(zip(kernel.arg_names, kernel.params, arguments, strict=True)):
        if parameter.is_constexpr:
            constants[(place,)] = value
        elif not isinstance(value, Tensor) and value == 1:
            constants[(place,)] = value  # as a launch does
        elif isinstance(value, Tensor) or value % 16 == 0:
            aligned[(place,)] = [["tt.divisibility", 16]]
        is_tensor = isinstance(value, Tensor)
        signature[name] = "constexpr" if (place,) in constants else TYPES[value.dtype] if is_tensor else "i32"
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": num_warps, "num_stages": num_stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["cubin"]


def stack_bytes(code: bytes, folder: Any) -> int:
    """Return the bytes of memory that each thread needs because registers do not suffice."""
    (folder / "kernel.cubin").write_bytes(code)
    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(folder / "kernel.cubin")]
    return int(re.findall(r"STACK:(\d+)", subprocess.check_output(command, text=True))[-1])


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[tuple[str, bytes]]]:
    """Return a function that turns launches into compilations for a capability, and the list of their results."""
    found: list[tuple[str, bytes]] = []

    def launch(capability: int, kernel: Any, *arguments: Any, **options: int) -> None:
        found.append((kernel.__name__, machine_code(capability, kernel, *arguments, **options)))

    def start(capability: int) -> list[tuple[str, bytes]]:
        jit = triton.runtime.jit.JITFunction
        monkeypatch.setattr(jit, "__getitem__", lambda kernel, grid: functools.partial(launch, capability, kernel))
        return found

    return start


def run_all(kind: torch.dtype, channels: int, side: int, size: int = 16, relu: bool = False) -> None:
    from mixlab.kernels.gpu import operators

    x = torch.zeros(1, channels, size, size, dtype=kind).to(memory_format=torch.channels_last)
    weight, each = torch.zeros(channels, 1, side, side), torch.zeros(channels)
    operators.depthwise_forward(x, weight, each)
    operators.mixing_forward(x, each, each, weight, each, relu)
    operators.mixing_backward(x, x, each, each, weight, x, x, each, each, each, True)
    matrix = torch.zeros(channels, channels, 1, 1)
    operators.blocks_inference(x, [each, each, weight, each, each, matrix, each], relu)
    operators.activation_forward(x, relu)
    operators.add_scaled(x, each, each, x, each, each)
    operators.sum_products(x, x)


@pytest.mark.parametrize("side", [3, 5, 7, 9])
def test_kernels_for_bfloat16_stay_in_registers(side: int, compiled: Callable, tmp_path: Any):
    found = compiled(HOPPER)
    run_all(torch.bfloat16, 256, side)
    assert len(found) == 10
    assert {name: stack for name, code in found if (stack := stack_bytes(code, tmp_path))} == {}


@pytest.mark.parametrize(
    ("capability", "kind", "channels", "side"), [(AMPERE, torch.float32, 40, 9), (AMPERE, torch.float16, 21, 4)]
)
def test_kernels_compile_for_other_devices_types_and_shapes(
    capability: int, kind: torch.dtype, channels: int, side: int, compiled: Callable
):
    found = compiled(capability)
    run_all(kind, channels, side, relu=True)
    assert all(code for _, code in found)


def test_kernels_compile_where_every_length_is_one(compiled: Callable):
    found = compiled(HOPPER)
    run_all(torch.bfloat16, 1, 1, size=1)
    assert all(code for _, code in found)
