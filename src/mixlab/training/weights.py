"""Starting from trained weights."""

from collections.abc import Iterable
from dataclasses import dataclass

import safetensors
import safetensors.torch
from torch import Tensor, nn

from mixlab.errors import RunError
from mixlab.models.layers import convert_projections
from mixlab.places import expand_user
from mixlab.run import bundle
from mixlab.run.folder import find_run
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
    """Copy the tensors of a run, bundle or safetensors file whose name and shape fit; the head only for equal classes.

    With `frozen`, only the parameters that were not copied learn.

    Raises:
        RunError: where the file cannot be read, or nothing in it fits.
    """
    state, classes = _read(place)
    own = model.state_dict()
    state = convert_projections(state, own)
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


def _read(place: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    path = expand_user(place)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise RunError(f"{place} is not a .safetensors file; other formats can carry code and are not read")
        try:
            return safetensors.torch.load_file(path), ()
        except safetensors.SafetensorError as error:
            raise RunError(f"{place} is not a readable safetensors file: {error}") from None
    found = bundle.read_bundle(path if bundle.is_bundle(path) else find_run(place))
    return found.state, found.description.spec.classes
