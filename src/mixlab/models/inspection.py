"""What a model is made of and what it costs: layers, shapes, parameters, multiply-accumulates, memory."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Layer:
    """One module as it is met in a forward pass: what it computes and learns itself, without the modules inside."""

    name: str
    kind: str
    shape: tuple[int, ...]  # of the output for a batch of one
    parameters: int
    macs: int  # multiply-accumulates for one image


def parameters(model: nn.Module) -> int:
    """Count the numbers that are learned."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, channels: int, image_size: int) -> int:
    """Count the multiply-accumulates of the forward pass for one image; depthwise layers included."""
    return sum(layer.macs for layer in layers(model, channels, image_size))


def layers(model: nn.Module, channels: int, image_size: int) -> list[Layer]:
    """List the modules in the order in which they end, with output shape, parameters and operations.

    A module that holds others is listed where it computes or learns something itself, as attention does.
    """
    model, image = _on_meta(model, 1, channels, image_size)
    model.eval()
    found: list[Layer] = []
    counter = FlopCounterMode(display=False)
    inside = [0]  # operations of the modules inside the one that runs, for each that runs

    def before(module: nn.Module, inputs: Any) -> None:
        started[module] = counter.get_total_flops()
        inside.append(0)

    def after(module: nn.Module, inputs: Any, output: Tensor) -> None:
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        whole = counter.get_total_flops() - started[module]
        spent = (whole - inside.pop()) // 2
        inside[-1] += whole
        if own or spent or not list(module.children()):
            found.append(Layer(names[module], type(module).__name__, tuple(output.shape), own, spent))

    started: dict[nn.Module, int] = {}
    names = {module: name or "(model)" for name, module in model.named_modules()}
    handles = [module.register_forward_pre_hook(before) for module in names]
    handles += [module.register_forward_hook(after) for module in names]
    with counter, torch.no_grad():
        model(image)
    for handle in handles:
        handle.remove()
    return found


def activation_bytes(model: nn.Module, batch: int, channels: int, image_size: int) -> int:
    """Count the bytes that a float32 forward pass keeps for the backward pass, without running one."""
    model, images = _on_meta(model, batch, channels, image_size)
    model.train()
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        alive.append(tensor)  # an address is only unique while its owner lives
        return tensor

    alive: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(images)
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    return sum(size for key, size in kept.items() if key not in own)


def _on_meta(model: nn.Module, batch: int, channels: int, image_size: int) -> tuple[nn.Module, Tensor]:
    """Copy a model without its numbers, so that a forward pass costs nothing."""
    images = torch.zeros(batch, channels, image_size, image_size, device="meta")
    return copy.deepcopy(model).to("meta"), images
