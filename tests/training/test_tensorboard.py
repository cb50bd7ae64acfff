import io
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixlab.errors import Interrupted
from mixlab.experiment import parse_experiment
from mixlab.run.checkpoint import load_newest
from mixlab.run.folder import Run
from mixlab.training import loop, step
from mixlab.training.session import Options
from mixlab.training.tensorboard import tile
from mixlab.training.train import train

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(device="cpu", workers=0, out=tmp_path / "runs", quiet=True, tensorboard=True)


def read(run: Run):
    return accumulator.EventAccumulator(str(run.folder / "tensorboard"), {"images": 0, "scalars": 0}).Reload()


def picture(events, tag: str) -> np.ndarray:
    """Return the only picture of a tag, (height, width, channels), uint8."""
    (found,) = events.Images(tag)
    return np.asarray(Image.open(io.BytesIO(found.encoded_image_string)))


def untile(pixels: np.ndarray, count: int, side: int) -> np.ndarray:
    """Cut a tiled picture up again: (count, side, side, channels)."""
    columns = int(np.ceil(np.sqrt(count)))
    place = (pixels.shape[1] - 1) // columns
    factor = (place - 1) // side
    corners = [(1 + place * (index // columns), 1 + place * (index % columns)) for index in range(count)]
    return np.stack([pixels[y : y + place - 1 : factor, x : x + place - 1 : factor] for y, x in corners])


def test_scalars_are_the_rows_of_the_metrics(tiny: dict, options: Options):
    run = train(parse_experiment(tiny | {"epochs": 3}), options)
    events = read(run)
    names = {"train_loss": "train/loss", "validation_top1": "validation/top1", "learning_rate": "learning_rate"}
    assert {"train/top1", "validation/loss", *names.values()} == set(events.Tags()["scalars"])
    for name, tag in names.items():
        assert [event.value for event in events.Scalars(tag)] == pytest.approx([row[name] for row in run.metrics()])
        assert [event.step for event in events.Scalars(tag)] == [row["step"] for row in run.metrics()]


def test_the_training_batch_is_what_the_network_sees_first(tiny: dict, options: Options, monkeypatch):
    """Caught where the first step gives it to the network, crops, erasing and mixing done."""
    seen, real = [], step._add_gradient

    def catch(state, experiment, batch_size, inputs, *others):
        if state.step == 0:
            seen[:] = [inputs.clone()]
        real(state, experiment, batch_size, inputs, *others)

    monkeypatch.setattr(step, "_add_gradient", catch)
    values = tiny | {"augmentation": {"pad_crop": {"padding": 2}, "random_erasing": {"probability": 0.5}}}
    values["augmentation"]["mix"] = {"mixup": 0.4}
    run = train(parse_experiment(values), options)
    shown = untile(picture(read(run), "training batch"), count=8, side=16)
    assert shown / 255 == pytest.approx(seen[0].permute(0, 2, 3, 1).numpy(), abs=1 / 255)


def test_filters_are_those_of_the_last_step(tiny: dict, options: Options):
    run = train(parse_experiment(tiny), options)
    checkpoint, _ = load_newest(run)
    assert checkpoint is not None
    events = read(run)
    layers = {"blocks.0.depthwise.0", "blocks.1.depthwise.0"}
    assert {f"filters/{name}" for name in layers | {"patches"}} | {"training batch"} == set(events.Tags()["images"])
    patches = checkpoint.tensors["model.stem.0.weight"]
    largest_first = patches.flatten(1).norm(dim=1).argsort(descending=True)
    expected = {"patches": patches[largest_first]}
    expected |= {name: checkpoint.tensors[f"model.{name}.weight"] for name in layers}
    for name, weight in expected.items():
        lowest, highest = weight.amin((1, 2, 3), keepdim=True), weight.amax((1, 2, 3), keepdim=True)
        scaled = ((weight - lowest) / (highest - lowest)).permute(0, 2, 3, 1).numpy()
        shown = untile(picture(events, f"filters/{name}"), count=8, side=weight.shape[-1])
        assert shown[..., : scaled.shape[-1]] / 255 == pytest.approx(scaled, abs=1 / 255)


def test_logging_changes_nothing_and_a_resumed_run_repeats_nothing(tiny: dict, options: Options):
    experiment = parse_experiment(tiny | {"epochs": 3})
    plain = train(experiment, replace(options, tensorboard=False, out=options.out / "plain"))
    run = train(experiment, options)
    os.truncate(max(run.checkpoints.iterdir()) / "tensors.safetensors", 1000)
    (run.folder / "summary.json").unlink()
    time.sleep(1.1)  # event files are read in the order of their names, whose time is whole seconds
    assert train(experiment, options) == run
    assert "resumed  at step 6 of 9" in run.log.read_text()
    assert (run.folder / "metrics.csv").read_bytes() == (plain.folder / "metrics.csv").read_bytes()
    assert (run.bundle / "model.safetensors").read_bytes() == (plain.bundle / "model.safetensors").read_bytes()
    events = read(run)
    assert [event.step for event in events.Scalars("learning_rate")] == [row["step"] for row in run.metrics()]
    assert [len(events.Images(tag)) for tag in ("training batch", "filters/patches")] == [1, 1]


def test_a_run_stopped_inside_its_first_epoch_logs_its_batch_once(tiny: dict, options: Options, monkeypatch):
    real = step.train_step

    def stopped(*arguments, **named):
        real(*arguments, **named)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stopped)
        with pytest.raises(Interrupted):
            train(parse_experiment(tiny), options)
    time.sleep(1.1)
    assert len(read(train(parse_experiment(tiny), options)).Images("training batch")) == 1


@pytest.mark.parametrize("count", [1, 2, 5, 9, 64, 70])
@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (3, 3), (4, 1)])
def test_tiles_can_be_cut_up_again(count: int, channels: int, shown: int):
    images = torch.rand(count, channels, 5, 5)
    expected = images if channels == shown else images.mean(1, keepdim=True)
    tiled = tile(images).permute(1, 2, 0).numpy()
    assert untile(tiled, min(count, 64), 5) == pytest.approx(expected[:64].permute(0, 2, 3, 1).numpy())
