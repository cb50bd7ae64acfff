"""Muon (Jordan et al., 2024) for matrices in one optimiser with AdamW for everything else."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixlab import devices

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, as published
UPDATE_SIZE = 0.2  # root mean square of AdamW's usual update, which a matrix's update gets too (Liu et al., 2025)


class Muon(torch.optim.AdamW):
    """AdamW, but groups with `matrices` move along the orthogonalised momentum of their gradients.

    A matrix and any other parameter move about equally far at the same learning rate. A convolution's kernel counts as
    the matrix (outputs, everything else). Matrices of one shape are orthogonalised together.

    Args:
        groups: of parameters, each with its `weight_decay` and the flag `matrices`.
        momentum: of the gradients of matrices, looked ahead as Nesterov does.
        iterations: of Newton and Schulz.
        implementation: of torch's AdamW: `fused` or `foreach`.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        momentum: float,
        iterations: int,
        **implementation: bool,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, **implementation)
        self.momentum, self.iterations = momentum, iterations

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update all parameters; the gradients of matrices are gone then, so that AdamW leaves these alone."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            if group["matrices"]:
                for moving in _by_shape(group["params"]):
                    self._move(moving, group["lr"], group["weight_decay"])
        super().step()
        return loss

    def _move(self, moving: list[tuple[Tensor, Tensor]], rate: float, weight_decay: float) -> None:
        """Update parameters of one shape, given with their gradients."""
        ahead = torch.stack([self._look_ahead(*each).flatten(1) for each in moving])
        directions = orthogonalised(ahead, self.iterations)
        factor = rate * UPDATE_SIZE * max(directions.shape[1:]) ** 0.5
        for (parameter, _), direction in zip(moving, directions, strict=True):
            parameter.mul_(1 - rate * weight_decay).sub_(direction.view(parameter.shape), alpha=factor)
            parameter.grad = None

    def _look_ahead(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["step"] = torch.tensor(0.0)  # AdamW asks every state that it loads for one
            state["momentum"] = torch.zeros_like(parameter)
        state["step"] += 1
        state["momentum"].lerp_(gradient, 1 - self.momentum)
        return gradient.lerp(state["momentum"], self.momentum)


def orthogonalised(
    matrices: Float[Tensor, "count rows columns"], iterations: int
) -> Float[Tensor, "count rows columns"]:
    """Return each matrix with all of its singular values brought near 1: between 0.5 and 1.5, which is near enough.

    In bfloat16 where the device multiplies it fast.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT, iterations).mT
    a, b, c = COEFFICIENTS
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    x = x.bfloat16() if devices.is_fast_in_bfloat16(x.device) else x
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(matrices.dtype)


def hidden_matrices(model: nn.Module) -> set[Tensor]:
    """Return the weights of the linear layers and convolutions between the one of the pixels and that of the logits.

    Depthwise filters are none: a channel's filter is a vector.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return {layer.weight for layer in layers[1:-1] if getattr(layer, "groups", 1) == 1 and layer.weight.requires_grad}


def _by_shape(parameters: Iterable[Tensor]) -> Iterable[list[tuple[Tensor, Tensor]]]:
    found: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            found[parameter.shape].append((parameter, parameter.grad))
    return found.values()
