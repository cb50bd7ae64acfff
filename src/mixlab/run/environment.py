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
        **(_gpu(device) if device.startswith("cuda") else {}),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "kernels": library.name(),  # of the CPU
        **({"gpu_kernels": choice.made()} if choice.made() else {}),  # who does what there, as far as it was chosen
    }


def _gpu(device: str) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device.partition(",")[0])  # "cuda:0, 2 ranks"
    return {"gpu": name, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
