"""What a temperature that was fitted on few pictures is worth: the loss of the others with it and without.

python benchmarks/few_pictures.py RUN [RUN ...]
"""

import sys
from pathlib import Path

import numpy as np
import torch

from mixlab.evaluation import inference
from mixlab.evaluation.calibration import fit_temperature, softmax
from mixlab.run.bundle import read_bundle
from mixlab.run.folder import Run

DRAWS = 200


def main() -> None:
    print("run, pictures: loss without, loss with, share of draws in which it is worse")
    for folder in map(Path, sys.argv[1:]):
        logits, labels = answers(Run(folder))
        for count in (16, 32, 64, 128):
            dice = np.random.default_rng(0)
            orders = [dice.permutation(len(labels)) for _ in range(DRAWS)]
            pairs = np.array([_losses(logits, labels, order[:count], order[count:]) for order in orders])
            before, after = pairs.mean(0)
            worse = (pairs[:, 1] > pairs[:, 0]).mean()
            print(f"{folder.name}, {count}: {before:.4f}, {after:.4f}, {worse:.1%}")


def answers(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits and labels of a run's test pictures."""
    data = run.experiment.data.load(run.experiment.seed, carve_validation=True)
    model = read_bundle(run).build().eval()
    found = inference.collect(inference.iterate(model, data.test, data.spec, torch.device("cpu")))
    return found.logits, found.labels


def _losses(logits: np.ndarray, labels: np.ndarray, fitted: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    temperature = fit_temperature(logits[fitted], labels[fitted])
    return _loss(logits[others], labels[others], 1.0), _loss(logits[others], labels[others], temperature)


def _loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return float(-np.log(softmax(logits, temperature)[np.arange(len(labels)), labels]).mean())


if __name__ == "__main__":
    main()
