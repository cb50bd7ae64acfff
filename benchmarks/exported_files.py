"""What one answer costs: the network in PyTorch, eager and folded, and its exported files, on one core.

    python benchmarks/exported_files.py RUN [SIZE]

RUN has been exported to onnx, int8 and, where it is installed, openvino. Measured is the processor time of this
process, which other programs disturb less than a clock on the wall; the ways take turns, medians of 15 rounds. Start it
with OMP_NUM_THREADS=1.
"""

import importlib.util
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from mixlab.evaluation.networks import TorchNetwork
from mixlab.exporting.export import FORMATS, default_folder
from mixlab.exporting.parity import Answer
from mixlab.kernels import library
from mixlab.run.bundle import read_bundle
from mixlab.run.folder import Run

ROUNDS = 15


def ways(run: Run) -> dict[str, Answer]:
    bundle = read_bundle(run)
    network = TorchNetwork(bundle, "cpu")
    eager = TorchNetwork(bundle, "cpu")
    eager.folded = eager.model

    def stock(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with library.stock():
            return pictures, eager.logits(list(pictures))

    found: dict[str, Answer] = {
        "PyTorch, eager": stock,
        "mixlab, folded": lambda pictures: (pictures, network.logits(list(pictures))),
    }
    kinds = ["onnx", "int8", *(["openvino"] if importlib.util.find_spec("openvino") else [])]
    for kind in kinds:
        path = default_folder(run, kind) / FORMATS[kind].file
        found[FORMATS[kind].runtime] = FORMATS[kind].open(path, bundle)
    return found


def milliseconds(answer: Answer, pictures: np.ndarray) -> float:
    started = time.process_time()
    answer(pictures)
    return 1000 * (time.process_time() - started)


def main() -> None:
    torch.set_num_threads(1)
    run, size = Run(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else 64
    channels = read_bundle(run).description.spec.channels
    answers = ways(run)
    for count in (1, 32):
        pictures = np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)
        samples: dict[str, list[float]] = {name: [] for name in answers}
        for place in range(ROUNDS + 2):
            for name, answer in answers.items():
                found = milliseconds(answer, pictures)
                if place >= 2:
                    samples[name].append(found)
        for name, found in samples.items():
            print(f"{count:3} pictures  {name:20}  {statistics.median(found):8.2f} ms  (least {min(found):.2f})")


if __name__ == "__main__":
    main()
