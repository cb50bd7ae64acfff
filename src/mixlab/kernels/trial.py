"""A block by our kernels and by PyTorch's own operations: do they agree, and which is faster?"""

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mixlab.kernels import depthwise, mixing, operators

POSITIONS, VALUES = 2**17, 2**25  # of a map, at most: 512 images of 16 x 16, and 64 MB of bfloat16
WARM_UP, ROUNDS = 3, 7
ALLOWED = 5e-3  # distance from float32 that is no mistake: of TF32, which PyTorch's convolutions may use
Form = Callable[[Tensor], list[Tensor]]  # of a map; returns outputs, and gradients where there are some


class Case(NamedTuple):
    """What is chosen for: a kind of work on maps of a shape, by kernels of so many positions a side."""

    kind: str  # training, inference, or depthwise: that layer alone, in training
    precision: torch.dtype
    rows: int
    columns: int
    channels: int
    side: int

    def __str__(self) -> str:
        precision = str(self.precision).removeprefix("torch.")
        return f"{self.kind} {precision} {self.rows}x{self.columns}x{self.channels} k{self.side}"


class Result(NamedTuple):
    """What a trial found."""

    difference: float  # the largest of an output, over what is allowed
    our_milliseconds: float
    stock_milliseconds: float


def run(case: Case, device: torch.device) -> Result:
    """Try both; draws from no generator but its own."""
    automatic = torch.autocast(device.type, case.precision, case.precision != torch.float32, cache_enabled=False)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.set_grad_enabled(True):
        torch.default_generator.manual_seed(0)
        positions = min(POSITIONS, VALUES // case.channels)
        images = max(positions // (case.rows * case.columns), 2)
        x = torch.randn(images, case.channels, case.rows, case.columns)
        x = x.to(device, memory_format=torch.channels_last).to(case.precision)
        ours, stock = FORMS[case.kind](case, device)
        with torch.autocast(device.type, enabled=False):
            exact = stock(x.float())
        with automatic:
            difference = _difference(ours(x), stock(x), exact)
            times = _milliseconds([lambda: ours(x), lambda: stock(x)])
    return Result(difference, *times)


def _training(case: Case, device: torch.device) -> tuple[Form, Form]:
    norm, convolution = nn.BatchNorm2d(case.channels), _layer(case)
    first = nn.Sequential(convolution, nn.GELU(), nn.BatchNorm2d(case.channels))
    second = nn.Sequential(nn.Conv2d(case.channels, case.channels, 1), nn.GELU(), nn.BatchNorm2d(case.channels))
    layers = nn.ModuleList([norm, first, second]).to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def ours(x: Tensor) -> Tensor:
        return mixing.block(mixing.stem(x, first[1], norm), first, second).mean()

    def stock(x: Tensor) -> Tensor:
        h = norm(functional.gelu(x))
        mixed = h + first[2](first[1](depthwise.stock(h, convolution.weight, convolution.bias)))
        return second(mixed).mean((2, 3))

    parameters = list(layers.parameters())
    return _with_gradients(ours, parameters), _with_gradients(stock, parameters)


def _depthwise(case: Case, device: torch.device) -> tuple[Form, Form]:
    weight, bias = parameters = list(_layer(case).to(device).parameters())
    return (
        _with_gradients(lambda x: depthwise.depthwise(x, weight, bias), parameters),
        _with_gradients(lambda x: depthwise.stock(x, weight, bias), parameters),
    )


def _inference(case: Case, device: torch.device) -> tuple[Form, Form]:
    scale, shift, bias, after, last = torch.randn(5, case.channels).to(device).unbind()
    taps = torch.randn(case.channels, 1, case.side, case.side).to(device) / case.side
    matrix = torch.randn(case.channels, case.channels, 1, 1).to(device) / case.channels**0.5
    wide_scale, wide_shift, wide_after = (each[:, None, None] for each in (scale, shift, after))

    @torch.no_grad()
    def ours(x: Tensor) -> list[Tensor]:
        parameters = (scale, shift, taps, bias, after, matrix, last)
        return [operators.mean_of_positions(operators.blocks_inference(operators.activation_inference(x), parameters))]

    @torch.no_grad()
    def stock(x: Tensor) -> list[Tensor]:
        h = torch.addcmul(wide_shift, functional.gelu(x), wide_scale)
        mixed = torch.addcmul(h, functional.gelu(depthwise.stock(h, taps, bias)), wide_after)
        return [functional.gelu(functional.conv2d(mixed, matrix, last)).mean((2, 3))]

    return ours, stock


def _layer(case: Case) -> nn.Conv2d:
    return nn.Conv2d(case.channels, case.channels, case.side, groups=case.channels)


FORMS = {"training": _training, "inference": _inference, "depthwise": _depthwise}


def _with_gradients(forward: Callable[[Tensor], Tensor], parameters: Sequence[Tensor]) -> Form:
    """Return a form that returns the output of another, and the gradients of a random direction of it."""

    def form(x: Tensor) -> list[Tensor]:
        leaf = x.detach().requires_grad_()
        output = forward(leaf).float()
        direction = torch.linspace(-1, 1, output.numel(), device=x.device).sin_().view(output.shape)
        return [output.detach(), *torch.autograd.grad(output, [leaf, *parameters], direction)]

    return form


def _difference(ours: list[Tensor], stock: list[Tensor], exact: list[Tensor]) -> float:
    """Return the largest distance of ours from exact, over what is allowed: twice PyTorch's own, and a little."""

    def distance(found: Tensor, truth: Tensor) -> float:
        return float((found.double() - truth.double()).norm() / truth.double().norm())

    together = zip(ours, stock, exact, strict=True)
    found = [distance(mine, truth) / (2 * distance(theirs, truth) + ALLOWED) for mine, theirs, truth in together]
    return max(found) if all(each == each for each in found) else float("inf")


def _milliseconds(forms: Sequence[Callable[[], object]]) -> list[float]:
    """Return the median time of each, in turn."""
    times: list[list[float]] = [[] for _ in forms]
    for round_ in range(WARM_UP + ROUNDS):
        for form, found in zip(forms, times, strict=True):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            form()
            end.record()
            end.synchronize()
            if round_ >= WARM_UP:
                found.append(begin.elapsed_time(end))
    return [median(each) for each in times]
