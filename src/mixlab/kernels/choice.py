"""Who does a block on a CUDA device: our kernels where they agree with PyTorch's own operations and are not slower.

Both are tried once for each shape, on random numbers. The choice is kept for the process and for later ones, so that
a run that goes on does so with the same last digits; a run also writes its choices down (environment.json).
"""

import functools
import hashlib
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixlab import durable, places
from mixlab.errors import MixlabError
from mixlab.kernels import library, trial
from mixlab.kernels.trial import Case

_made: dict[str, bool] = {}  # by device and case


def is_ours(kind: str, x: Tensor, rows: int, columns: int, channels: int, side: int) -> bool:
    """Return whether our kernels do a block; ask library.is_usable of the tensor first.

    While a graph is captured, or torch.compile traces, nothing can be measured: there a choice that was not made before
    is PyTorch's own operations.
    """
    if x.device.type == "cpu":
        return True
    if torch.compiler.is_compiling():  # a string, for torch.compile leaves lengths open until they become text
        return _recalled(kind, library.precision(x), f"{rows} {columns} {channels} {side}", x.device)
    return _choose(Case(kind, library.precision(x), rows, columns, channels, side), x.device)


def made() -> dict[str, str]:
    """Return who does what, of all that was asked for in this process."""
    return {name: "mixlab" if ours else "stock" for name, ours in sorted(_made.items())}


def adopt(choices: dict[str, str]) -> None:
    """Take over the choices of an earlier process, as `made` returned them."""
    _made.update({name: who == "mixlab" for name, who in choices.items()})


def folder() -> Path:
    """Return where choices are kept."""
    return places.cache_home() / "kernels"


@library.constant_when_compiled
def _recalled(kind: str, precision: torch.dtype, lengths: str, device: torch.device) -> bool:
    return _recall(Case(kind, precision, *map(int, lengths.split())), device) or False


def _recall(case: Case, device: torch.device) -> bool | None:
    """Return a choice that was made before, here or in an earlier process, or None."""
    name = _name(case, device)
    if name not in _made and (kept := _read(_path(name))):
        _made[name] = kept["ours"]
    return _made.get(name)


def _choose(case: Case, device: torch.device) -> bool:
    known = _recall(case, device)
    if known is not None:
        return known
    if torch.cuda.is_current_stream_capturing():
        return False
    name = _name(case, device)
    try:
        found = _measured(case, device)
    except torch.OutOfMemoryError as error:  # says nothing of the kernels, so later processes try again
        warnings.warn(f"mixlab's kernels are not used for {name}: {error}", stacklevel=2)
        return _made.setdefault(name, False)
    if found["why"]:
        warnings.warn(f"mixlab's kernels are not used for {name}: {found['why']}", stacklevel=2)
    return _made.setdefault(name, _kept(name, found))


def _measured(case: Case, device: torch.device) -> dict[str, Any]:
    """Return what a trial finds; whatever goes wrong in it leaves PyTorch's own operations.

    Raises:
        torch.OutOfMemoryError: where memory ran out.
    """
    try:
        with torch.cuda.device(device):
            found = trial.run(case, device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of Triton, of its compilers or of the driver: their kinds are not ours to know
        return {"ours": False, "why": f"{type(error).__name__}: {error}"[:500]}
    why = "" if found.difference <= 1 else f"their results are {found.difference:.1f} times as far off as is allowed"
    return {"ours": not why and found.our_milliseconds <= found.stock_milliseconds, "why": why, **found._asdict()}


def _kept(name: str, found: dict[str, Any]) -> bool:
    """Keep a choice for later processes and return it, or what another process kept first.

    Where it cannot be kept, an exact run must not depend on it: PyTorch's own operations then.
    """
    path = _path(name)
    try:
        durable.make_folder(path.parent)
        if not _read(path):
            durable.write_json(path, {"case": name, **_versions(), **found})
    except MixlabError as error:
        exact = torch.are_deterministic_algorithms_enabled()
        warnings.warn(f"the choice of kernels for {name} cannot be kept: {error}", stacklevel=2)
        return found["ours"] and not exact
    return (_read(path) or found)["ours"]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = durable.read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("ours"), bool) else {}


def _name(case: Case, device: torch.device) -> str:
    return f"{torch.cuda.get_device_name(device)}: {case}"


def _path(name: str) -> Path:
    words = " ".join([name, *_versions().values()])
    return folder() / f"{hashlib.sha256(words.encode()).hexdigest()[:16]}.json"


@functools.cache
def _versions() -> dict[str, str]:
    return {"mixlab": version("mixlab"), "torch": torch.__version__, "triton": library.triton_version()}
