"""The machine that a run is on."""

import os
import platform
from importlib.metadata import version
from typing import Any

import torch

from mixlab.kernels import choice, library


def environment(device: str) -> dict[str, Any]:
    """Return what bit-equality depends on besides the experiment."""
    return {
        "mixlab": version("mixlab"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": device,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "kernels": library.name(),  # of the CPU
        **({"gpu_kernels": choice.made()} if choice.made() else {}),  # who does what there, as far as it was chosen
    }
