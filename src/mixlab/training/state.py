"""The state of training: model, optimiser, weight average and step; going on from it is as never having stopped."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mixlab import randomness
from mixlab.data.balance import inverse_frequencies
from mixlab.data.data_set import DataSet
from mixlab.errors import RunError
from mixlab.experiment import Experiment
from mixlab.kernels import placement
from mixlab.kernels.graphs import Work
from mixlab.models.layers import SameConv2d
from mixlab.run.checkpoint import Checkpoint
from mixlab.spec import DataSpec


@dataclass
class Best:
    """The weights that validation has chosen so far."""

    epoch: int = 0
    top1: float = -1.0
    loss: float = float("inf")
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class TrainState:
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # of float16 gradients; passes everything through where it is off
    average: nn.Module | None  # moving average of the model, or None
    sums: Tensor  # (3,), of the epoch so far: loss, correct, images
    classes: tuple[str, ...]  # in the order of the logits
    class_weights: Tensor | None  # (classes,), of the loss; None: all count the same
    step: int = 0  # optimiser steps taken
    epoch: int = 0  # epochs that stand in metrics.jsonl
    best: Best = field(default_factory=Best)
    graph: tuple[object, Work] | None = None  # the gradient of a batch on a GPU, and what it was captured for

    @property
    def shipped(self) -> nn.Module:
        """The weights that are evaluated: the average where there is one."""
        return self.average or self.model

    def train_mode(self) -> None:
        """Put the model into training mode, except layers that are frozen: their statistics stay as they are."""
        self.model.train()
        for layer in self.model.modules():
            own = list(layer.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                layer.eval()

    def freeze_filters(self) -> None:
        """Let depthwise filters no longer learn; their biases do."""
        for layer in self.model.modules():
            if isinstance(layer, SameConv2d):
                layer.weight.requires_grad_(False)

    def tensors(self) -> dict[str, Tensor]:
        found = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
        if self.average is not None:
            found |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        found |= {f"best.{name}": tensor for name, tensor in self.best.weights.items()}
        return found | {"sums": self.sums}

    def checkpoint(self) -> Checkpoint:
        learned = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        best = {"epoch": self.best.epoch, "top1": self.best.top1, "loss": self.best.loss}
        state = {
            "epoch": self.epoch,
            "best": best if self.best.epoch else {},
            "scaler": self.scaler.state_dict(),
            "classes": list(self.classes),
            "frozen": [name for name, parameter in self.model.named_parameters() if id(parameter) not in learned],
        }
        return Checkpoint(self.step, self.tensors(), state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over everything from a checkpoint.

        Raises:
            RunError: where it belongs to another model or to other classes.
        """
        if checkpoint.state["classes"] != list(self.classes):
            theirs, ours = (", ".join(names) for names in (checkpoint.state["classes"], self.classes))
            raise RunError(f"the checkpoint is of the classes {theirs}, and the data has {ours}; restore the data")
        try:
            self.model.load_state_dict(_group(checkpoint.tensors, "model"))
            if self.average is not None:
                self.average.load_state_dict(_group(checkpoint.tensors, "average"))
        except RuntimeError as error:
            raise RunError(f"the checkpoint does not fit the model: {str(error).splitlines()[1].strip()}") from None
        self._restore_optimizer(_group(checkpoint.tensors, "optimizer"))
        if checkpoint.state["scaler"]:
            self.scaler.load_state_dict(checkpoint.state["scaler"])
        self.sums.copy_(checkpoint.tensors["sums"])
        self.best = Best(**checkpoint.state["best"], weights=_group(checkpoint.tensors, "best"))
        self.step, self.epoch = checkpoint.step, checkpoint.state["epoch"]

    def is_finite(self) -> Tensor:
        """Whether every number that a step changes is finite, (), bool, on the device."""
        modules = [self.model] if self.average is None else [self.model, self.average]
        found = [tensor for module in modules for tensor in [*module.parameters(), *module.buffers()]]
        found += [value for values in self.optimizer.state.values() for value in values.values()]
        measured = [tensor.detach() for tensor in [*found, self.sums] if _is_measured(tensor, self.sums)]
        if self.sums.device.type == "cpu":  # a sum takes a tenth of the time of a norm, and shows the same
            return torch.stack([tensor.sum() for tensor in measured]).isfinite().all()
        norms = torch._foreach_norm(measured, float("inf"))  # pyright: ignore[reportPrivateImportUsage]
        return torch.stack(norms).isfinite().all()

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Any]] = {}
        learned = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for key, tensor in tensors.items():
            index, _, name = key.partition(".")
            parameter = learned[int(index)]
            if tensor.shape == parameter.shape:  # in the memory layout that training gave it
                tensor = torch.empty_like(parameter).copy_(tensor)
            state.setdefault(int(index), {})[name] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def fresh_model(experiment: Experiment, spec: DataSpec) -> nn.Module:
    """Return the model with weights drawn from the experiment's seed."""
    randomness.seed_torch(torch.device("cpu"), experiment.seed, "weights")
    return experiment.model.build(spec)


def state_of(model: nn.Module, experiment: Experiment, data: DataSet, device: torch.device) -> TrainState:
    """Return the state before step 0."""
    model = placement.place(model, device)
    weights = inverse_frequencies(data.train.labels, data.spec.num_classes) if experiment.class_weights else None
    return TrainState(
        model=model,
        optimizer=experiment.optimizer.build(model),
        scaler=torch.amp.GradScaler(device.type, enabled=experiment.precision == "float16"),
        average=copy.deepcopy(model).eval().requires_grad_(False) if experiment.weight_average else None,
        sums=torch.zeros(3, device=device),
        classes=data.spec.classes,
        class_weights=None if weights is None else torch.from_numpy(weights).float().to(device),
    )


def _is_measured(value: Any, like: Tensor) -> bool:
    """Whether a value is a floating tensor on a device; the optimiser counts its steps on the CPU."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.device == like.device


def _group(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
