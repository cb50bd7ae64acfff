"""The ways to run a network that are measured: PyTorch as it comes, other runtimes, and mixlab."""

import copy
import importlib.util
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mixlab import devices
from mixlab.kernels import graphs, library, placement
from mixlab.models.folding import fold
from mixlab.optim.optimizers import AdamWConfig
from mixlab.quiet import quiet

Run = Callable[[], Tensor]  # one batch; returns logits, or in training the gradients of all weights in one row


@dataclass(frozen=True)
class Contender:
    """One way to run one batch."""

    name: str
    precision: torch.dtype
    make: Callable[[], Run]  # may take minutes, and may fail, where a compiler is at work
    ours: bool = False


@dataclass(frozen=True)
class Batch:
    """What is run: images (batch, channels, side, side) in [0, 1], and labels to train on."""

    images: Tensor
    labels: Tensor


def inference(model: nn.Module, batch: Batch, compiled: bool) -> Iterator[Contender]:
    """Yield the ways to classify a batch."""
    model, x = model.eval(), batch.images
    yield from _stock(lambda layout, kind: _eager_inference(model, x, layout, kind), x.device)
    for kind in _kinds(x.device) if compiled else ():
        for frozen in (False, True) if x.device.type == "cpu" else (False,):
            name = f"PyTorch, compiled{' and frozen' if frozen else ''} {precision_name(kind)}"
            yield Contender(name, kind, partial(_compiled_inference, model, x, kind, frozen))
    if x.device.type == "cpu":
        yield from _runtimes(model, x)
    folded, layout = fold(model), placement.memory_format(model, x.device)
    for kind in _kinds(x.device):
        make = partial(_eager_inference, folded, x, layout, kind, stock=False)
        yield Contender(f"mixlab {precision_name(kind)}", kind, make, ours=True)


def training(model: nn.Module, batch: Batch, compiled: bool) -> Iterator[Contender]:
    """Yield the ways to take a training step on a batch: forward, cross-entropy, backward and AdamW."""
    device = batch.images.device
    yield from _stock(lambda layout, kind: _step(model, batch, layout, kind), device)
    for kind in _kinds(device) if compiled else ():
        make = partial(_step, model, batch, torch.channels_last, kind, compiled=True)
        yield Contender(f"PyTorch, compiled {precision_name(kind)}", kind, make)
    for kind in _kinds(device):
        make = partial(_step, model, batch, placement.memory_format(model, device), kind, stock=False)
        yield Contender(f"mixlab {precision_name(kind)}", kind, make, ours=True)


def precision_name(kind: torch.dtype) -> str:
    """Return "float32" or "bfloat16"."""
    return str(kind).removeprefix("torch.")


def _stock(make: Callable[[torch.memory_format, torch.dtype], Run], device: torch.device) -> Iterator[Contender]:
    yield Contender("PyTorch, NCHW float32", torch.float32, partial(make, torch.contiguous_format, torch.float32))
    for kind in _kinds(device):
        name = f"PyTorch, channels_last {precision_name(kind)}"
        yield Contender(name, kind, partial(make, torch.channels_last, kind))


def _kinds(device: torch.device) -> tuple[torch.dtype, ...]:
    return (torch.float32, torch.bfloat16) if device.type != "mps" else (torch.float32,)


@contextmanager
def _as_it_comes() -> Iterator[None]:
    """Use PyTorch's own operations inside, with its own settings: a GPU's float32 convolutions may take TF32."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        with library.stock():
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def _kernels(stock: bool) -> AbstractContextManager[None]:
    return _as_it_comes() if stock else nullcontext()


def _eager_inference(
    model: nn.Module, x: Tensor, layout: torch.memory_format, kind: torch.dtype, stock: bool = True
) -> Run:
    placed = copy.deepcopy(model).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    given = x.contiguous(memory_format=layout)

    @torch.inference_mode()
    def run() -> Tensor:
        with devices.autocast(x.device, precision_name(kind)), _kernels(stock):
            return placed(given)

    return run


def _compiled_inference(model: nn.Module, x: Tensor, kind: torch.dtype, frozen: bool) -> Run:
    from torch._inductor import config

    placed = copy.deepcopy(model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    given = x.contiguous(memory_format=torch.channels_last)
    forward = torch.compile(placed, options={"freezing": True} if frozen else {})

    @torch.no_grad()
    def run() -> Tensor:
        with devices.autocast(x.device, precision_name(kind)), config.patch(freezing=frozen), _as_it_comes():
            return forward(given)

    return run


def _step(
    model: nn.Module,
    batch: Batch,
    layout: torch.memory_format,
    kind: torch.dtype,
    stock: bool = True,
    compiled: bool = False,
) -> Run:
    own = copy.deepcopy(model).to(memory_format=layout).train()  # pyright: ignore[reportCallIssue]
    forward = torch.compile(own) if compiled else own
    optimizer = AdamWConfig(weight_decay=0.0).build(own)
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # the weights stay for the comparison
    x, labels = batch.images.contiguous(memory_format=layout), batch.labels

    def add_gradient(x: Tensor, labels: Tensor) -> None:
        with devices.autocast(x.device, precision_name(kind)):
            logits = forward(x)
        functional.cross_entropy(logits.float(), labels).backward()

    as_graph = not stock and graphs.is_usable(x.device)  # as in training
    work, steps = add_gradient, count()

    def run() -> Tensor:
        nonlocal work
        with _kernels(stock):
            if as_graph and next(steps) == 1:  # the second: what a graph keeps for its backward pass is not seen
                work = graphs.captured(add_gradient, (x, labels), own)
            optimizer.zero_grad(set_to_none=True)
            work(x, labels)
        optimizer.step()
        return torch.cat([each.grad.flatten().float() for each in own.parameters() if each.grad is not None])

    return run


def _runtimes(model: nn.Module, x: Tensor) -> Iterator[Contender]:
    """Yield ONNX Runtime and OpenVINO where they are installed, on the network as it is and folded."""
    for name, network in (("", model), (", folded", fold(model))):
        if _installed("onnxruntime") and _installed("onnxscript"):
            make = partial(_onnx_runtime, network, x)
            yield Contender(f"ONNX Runtime float32{name}", torch.float32, make)
        for kind in _kinds(x.device) if _installed("openvino") else ():
            yield Contender(f"OpenVINO {precision_name(kind)}{name}", kind, partial(_openvino, network, x, kind))


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _onnx_runtime(model: nn.Module, x: Tensor) -> Run:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    buffer = io.BytesIO()
    with quiet("torch.onnx"):  # it warns of packages that are not needed
        program: Any = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
        program.save(buffer)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: x.contiguous().numpy()}
    return lambda: torch.from_numpy(session.run(None, given)[0])


def _openvino(model: nn.Module, x: Tensor, kind: torch.dtype) -> Run:
    import openvino  # pyright: ignore[reportMissingImports]

    with torch.no_grad():
        converted = openvino.convert_model(torch.export.export(model, (x,)))
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if kind == torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    network = openvino.compile_model(converted, "CPU", settings)
    given = np.ascontiguousarray(x.contiguous().numpy())
    return lambda: torch.from_numpy(np.array(network(given)[0]))
