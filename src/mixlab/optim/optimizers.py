"""Torch's optimisers as configs, with weight decay where it belongs."""

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from mixlab.config import Config
from mixlab.optim.muon import Muon, hidden_matrices

Decay = Annotated[float, Field(ge=0, lt=1)]


class AdamWConfig(Config):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    name: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 0.01  # peak; the schedule gives its share at each step
    weight_decay: NonNegativeFloat = 0.01
    decay_all: bool = False  # decay norms, biases and gammas too
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    epsilon: PositiveFloat = 1e-8

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(model, self.weight_decay, self.decay_all)
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, eps=self.epsilon, **fastest(groups))


class MuonConfig(Config):
    """Muon (Jordan et al., 2024) for the matrices between stem and classifier, AdamW for everything else."""

    name: Literal["muon"] = "muon"
    learning_rate: PositiveFloat = 0.01  # peak, of both
    weight_decay: NonNegativeFloat = 0.01
    decay_all: bool = False  # decay norms, biases and gammas too
    momentum: Decay = 0.95  # of matrices
    iterations: PositiveInt = 5  # of Newton and Schulz, that make an update orthogonal
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    epsilon: PositiveFloat = 1e-8

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        hidden = hidden_matrices(model)
        groups = [{**group, "matrices": False} for group in parameter_groups(model, self.weight_decay, self.decay_all)]
        matrices = [parameter for parameter in groups[0]["params"] if parameter in hidden]
        groups[0]["params"] = [parameter for parameter in groups[0]["params"] if parameter not in hidden]
        groups.append({"params": matrices, "weight_decay": self.weight_decay, "matrices": True})
        groups = [group for group in groups if group["params"]]
        return Muon(
            groups, self.learning_rate, self.betas, self.epsilon, self.momentum, self.iterations, **fastest(groups)
        )


class AdamConfig(Config):
    """Adam (Kingma and Ba, 2015); weight decay is added to the gradient."""

    name: Literal["adam"] = "adam"
    learning_rate: PositiveFloat = 0.001
    weight_decay: NonNegativeFloat = 0.0
    decay_all: bool = False
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    epsilon: PositiveFloat = 1e-8

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(model, self.weight_decay, self.decay_all)
        return torch.optim.Adam(groups, lr=self.learning_rate, betas=self.betas, eps=self.epsilon, **fastest(groups))


class SGDConfig(Config):
    """Stochastic gradient descent with momentum; weight decay is added to the gradient."""

    name: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat = 0.1
    weight_decay: NonNegativeFloat = 0.0005
    decay_all: bool = False
    momentum: Decay = 0.9
    nesterov: bool = False

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(model, self.weight_decay, self.decay_all)
        return torch.optim.SGD(
            groups,
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov and self.momentum > 0,
            **fastest(groups),
        )


def fastest(groups: list[dict]) -> dict[str, bool]:
    """Return the name of torch's fastest implementation: on a CPU one kernel for a whole update, elsewhere few."""
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return {"fused": True} if devices == {"cpu"} else {"foreach": True}


OptimizerConfig = Annotated[AdamWConfig | MuonConfig | AdamConfig | SGDConfig, Field(discriminator="name")]


def parameter_groups(model: nn.Module, weight_decay: float, decay_all: bool) -> list[dict]:
    """Split the parameters that learn into those that decay (matrices and kernels) and those that do not."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in learned if decay_all or parameter.ndim >= 2]
    others = [parameter for parameter in learned if not (decay_all or parameter.ndim >= 2)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
