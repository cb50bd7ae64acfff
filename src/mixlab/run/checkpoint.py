"""Checkpoints: folders of tensors and JSON whose manifest says whether they are intact."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from mixlab import durable
from mixlab.errors import RunError
from mixlab.run.folder import Run

KEPT = 2


class Checkpoint(NamedTuple):
    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]  # JSON

    def on_cpu(self) -> "Checkpoint":
        """Return it with copies of its tensors in the CPU's memory."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        return self._replace(tensors=tensors)


def save_checkpoint(run: Run, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint durably and remove all but the newest two.

    Raises:
        RunError: where it cannot be written; the ones before it stay.
    """
    files = {
        "tensors.safetensors": safetensors.torch.save(checkpoint.on_cpu().tensors),
        "state.json": json.dumps({**checkpoint.state, "step": checkpoint.step}).encode(),
    }
    durable.make_folder(run.checkpoints)
    # A step may be saved twice, before and after the validation of its epoch: no name is ever written over.
    folder = run.checkpoints / f"{checkpoint.step:08d}-{checkpoint.state['epoch']:04d}"
    durable.write_folder(folder, files)
    for old in _newest_first(run)[KEPT:]:
        shutil.rmtree(old)
    return folder


def load_newest(run: Run) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest intact checkpoint, or None, and what is wrong with newer ones."""
    if run.checkpoints.exists():
        durable.remove_partials(run.checkpoints)
    problems = []
    for folder in _newest_first(run):
        try:
            return _read(folder), problems
        except RunError as error:
            problems.append(f"{folder}: {error}")
            damaged = folder.with_name(f"damaged-{folder.name}")  # it must not count as one of the two
            shutil.rmtree(damaged, ignore_errors=True)
            folder.rename(damaged)
    return None, problems


def _read(folder: Path) -> Checkpoint:
    problem = durable.verify_folder(folder)
    if problem:
        raise RunError(problem)
    try:
        state = durable.read_json(folder / "state.json")
        return Checkpoint(state["step"], safetensors.torch.load_file(folder / "tensors.safetensors"), state)
    except (OSError, ValueError, LookupError, TypeError, safetensors.SafetensorError) as error:
        raise RunError(f"it is whole, but no checkpoint: {error}") from None


def _newest_first(run: Run) -> list[Path]:
    return sorted(run.checkpoints.glob("[0-9]*-[0-9]*"), reverse=True)
