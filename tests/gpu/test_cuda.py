"""What only a GPU can show; skipped where there is none."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import mixlab
from mixlab.data.augmentation import augment
from mixlab.data.augmentation_config import AugmentationConfig
from mixlab.data.draws import draw
from mixlab.errors import Interrupted
from mixlab.experiment import parse_experiment
from mixlab.run.bundle import read_bundle
from mixlab.spec import DataSpec
from mixlab.training import loop, step
from mixlab.training.session import Options
from mixlab.training.train import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

AUGMENTED = {
    "weight_average": 0.9,
    "augmentation": {
        "resized_crop": {"scale": [0.5, 1]},
        "horizontal_flip": {"probability": 0.5},
        "rotation": {"turns": 0.05},
        "rand_augment": {"operations": 2, "magnitude": 9.0},
        "random_erasing": {"probability": 0.3},
        "mix": {"mixup": 0.4, "cutmix": 1.0},
    },
}


CONVMIXER = {"name": "convmixer", "dim": 16, "depth": 2, "dropout": 0.2, "drop_path": 0.2}
VIT = {"name": "vit", "dim": 16, "depth": 2, "heads": 2, "patch_size": 4, "dropout": 0.2, "attention_dropout": 0.2}
MODELS = [
    *(CONVMIXER | {"kernel_size": kernel_size} for kernel_size in (3, 5, 9)),
    VIT,
    VIT | {"projection": "convolution", "pool": "mean"},
    {"name": "mlp_mixer", "dim": 16, "depth": 2, "patch_size": 4},
    {"name": "resnet9", "width": 4},
    {"name": "resnet", "width": 4},
]


@pytest.mark.parametrize("parts", [1, 2])  # one is a graph
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_a_stopped_run_goes_on_as_if_it_never_stopped(
    tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, model: dict, parts: int
):
    values = tiny | AUGMENTED | {"epochs": 3, "precision": precision, "model": model, "accumulate": parts}
    experiment = parse_experiment(values)
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


def test_augmentation_is_the_same_on_both(spec: DataSpec):
    config = AugmentationConfig.parse(AUGMENTED["augmentation"])
    images, targets = torch.rand(64, 3, 16, 16), torch.eye(3)[torch.arange(64) % 3]
    draws = draw(config, 16, np.arange(64), 0, 0, 0)
    on_cpu, _ = augment(config, spec, images, targets, draws)
    on_gpu, _ = augment(config, spec, images.cuda(), targets.cuda(), draws.to(torch.device("cuda")))
    # the 256 levels of posterize and equalize may round to another one where a pixel lies between two
    assert ((on_cpu - on_gpu.cpu()).abs() > 1e-3).float().mean() < 0.01
