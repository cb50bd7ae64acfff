"""Starting from trained weights."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from mixlab.errors import RunError
from mixlab.models.layers import convert_projections
from mixlab.run.trained import read_trained
from mixlab.spec import DataSpec


@dataclass(frozen=True)
class Loaded:
    """What became of a model's tensors."""

    source: str
    taken: int
    fresh: tuple[str, ...]  # names of the tensors that keep their random values

    def __str__(self) -> str:
        fresh = f"; new: {', '.join(self.fresh[:4])}{' ...' if len(self.fresh) > 4 else ''}" if self.fresh else ""
        return f"{self.taken} tensors from {self.source}{fresh}"


def load_weights(model: nn.Module, place: str, spec: DataSpec, frozen: bool) -> Loaded:
    """Copy the tensors of a trained network whose name and shape fit; the head only for equal classes.

    With `frozen`, only the parameters that were not copied learn.

    Raises:
        RunError: where the file cannot be read, or nothing in it fits.
    """
    trained, own = read_trained(place), model.state_dict()
    state, classes = convert_projections(trained.state, own), trained.spec.classes if trained.spec else ()
    head = {name for name in own if name.startswith("classifier.")}
    skipped = head if classes and classes != spec.classes else set()
    taken = {
        name: tensor
        for name, tensor in state.items()
        if name in own and own[name].shape == tensor.shape and name not in skipped
    }
    if not any(name in taken for name, parameter in model.named_parameters() if parameter.ndim >= 2):
        raise RunError(f"nothing in {place} fits this model; give the same --model that it was trained with")
    model.load_state_dict(taken, strict=False)
    if frozen:
        freeze(model, taken)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise RunError(f"freeze=true leaves nothing to learn: {place} has every tensor of this model, head included")
    return Loaded(place, len(taken), tuple(name for name in own if name not in taken))


def freeze(model: nn.Module, names: Iterable[str]) -> None:
    """Let the named parameters no longer learn."""
    named = set(names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in named)
