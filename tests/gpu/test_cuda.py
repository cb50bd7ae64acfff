"""What only a GPU can show; skipped where there is none."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import mixlab
from mixlab.errors import Interrupted
from mixlab.experiment import parse_experiment
from mixlab.run.bundle import read_bundle
from mixlab.training import loop, step
from mixlab.training.session import Options
from mixlab.training.train import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

AUGMENTED = {
    "accumulate": 2,
    "weight_average": 0.9,
    "augmentation": {
        "resized_crop": {"scale": [0.5, 1]},
        "horizontal_flip": {"probability": 0.5},
        "random_erasing": {"probability": 0.3},
        "mix": {"mixup": 0.4, "cutmix": 1.0},
    },
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kernel_size", [3, 5, 9])
def test_a_stopped_run_goes_on_as_if_it_never_stopped(
    tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, kernel_size: int
):
    model = tiny["model"] | {"kernel_size": kernel_size, "dim": 16, "dropout": 0.2, "drop_path": 0.2}
    experiment = parse_experiment(tiny | AUGMENTED | {"epochs": 3, "precision": precision, "model": model})
    options = [Options(device="cuda", workers=0, out=tmp_path / name, quiet=True) for name in ("whole", "broken")]
    whole = train(experiment, options[0])
    real, taken = step.train_step, []

    def stopping(*arguments, **named):
        real(*arguments, **named)
        taken.append(1)
        if len(taken) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stopping)
        with pytest.raises(Interrupted):
            train(experiment, options[1])
    broken = train(experiment, options[1])
    left, right = read_bundle(whole).state, read_bundle(broken).state
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert whole.metrics() == broken.metrics()


def test_the_cpu_answers_as_the_gpu_does(tiny: dict, tmp_path: Path, pictures: Path):
    run = mixlab.train(**tiny | {"epochs": 4}, out=tmp_path / "runs", device="cuda", quiet=True)
    answers = [mixlab.load(run, device)(pictures / "red" / "0.png") for device in ("cpu", "cuda")]
    np.testing.assert_allclose(answers[0].probabilities, answers[1].probabilities, atol=1e-4)
