"""Batch normalisation over what all ranks compute at the same time (torch's own knows CUDA only)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn


def synchronise(model: nn.Module) -> None:
    """Let every nn.BatchNorm2d of a model average over all ranks; names and values of its state stay."""
    for layer in model.modules():
        for name, child in layer.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(layer, name, SyncBatchNorm2d.of(child))


class SyncBatchNorm2d(nn.BatchNorm2d):
    """As nn.BatchNorm2d on the images of all ranks together; outside training it is that."""

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "SyncBatchNorm2d":
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made.load_state_dict(norm.state_dict())
        return made

    def forward(
        self,
        input: Float[Tensor, "batch channels height width"],  # noqa: A002
    ) -> Float[Tensor, "batch channels height width"]:
        if not self.training:
            return super().forward(input)
        x = input.float()
        sums = torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), x.new_full((x.shape[1],), x[:, 0].numel())])
        values, squares, count = _Sum.apply(sums.double())
        mean = values / count
        variance = (squares / count - mean.square()).clamp(min=0)
        self._note(mean.detach(), (variance * count / (count - 1).clamp(min=1)).detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return torch.addcmul(shift.float()[:, None, None], x, scale.float()[:, None, None]).to(input.dtype)

    def _note(self, mean: Tensor, variance: Tensor) -> None:
        """Bring the running statistics up to date."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_(variance.to(self.running_var), momentum)


class _Sum(torch.autograd.Function):
    """The sum over all ranks, whose gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        summed = own.clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        summed = gradient.clone()
        distributed.all_reduce(summed)
        return summed
