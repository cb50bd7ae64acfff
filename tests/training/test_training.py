import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mixlab import api, devices
from mixlab.api import evaluate
from mixlab.data import loading
from mixlab.errors import DataError, Interrupted, RunError, TrainingError, UsageError
from mixlab.experiment import Experiment, parse_experiment
from mixlab.kernels import library
from mixlab.run import timing
from mixlab.run.bundle import read_bundle
from mixlab.run.checkpoint import load_newest
from mixlab.run.folder import Run
from mixlab.training import loop, plan, step
from mixlab.training.lr_range import Sweep
from mixlab.training.session import Options
from mixlab.training.signals import StopSignals
from mixlab.training.state import fresh_model, state_of
from mixlab.training.train import find_learning_rate, open_folder, resume, train
from mixlab.training.train import plan as make_plan

EVERYTHING = {
    "label_smoothing": 0.1,
    "weight_average": 0.9,
    "accumulate": 2,
    "class_weights": True,
    "augmentation": {
        "resized_crop": {"scale": [0.5, 1]},
        "pad_crop": {"padding": 2},
        "horizontal_flip": {"probability": 0.5},
        "vertical_flip": {"probability": 0.2},
        "zoom": {"amount": 0.1},
        "rotation": {"turns": 0.05},
        "rand_augment": {"operations": 2, "magnitude_deviation": 2.0, "probability": 0.8},
        "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
        "random_grayscale": {"probability": 0.2},
        "random_erasing": {"probability": 0.3},
        "coarse_dropout": {"size": 0.3},
        "mix": {"mixup": 0.4, "cutmix": 1.0, "probability": 0.7},
    },
}


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(device="cpu", workers=0, out=tmp_path / "runs", quiet=True)


def content(run: Run) -> dict[str, bytes]:
    """Everything of a run that must not depend on where it was interrupted."""
    newest = max((run.folder / "checkpoints").glob("0*"))
    files = [newest / "tensors.safetensors", newest / "state.json", run.bundle / "model.safetensors"]
    files += [run.folder / name for name in ("metrics.jsonl", "metrics.csv", "summary.json")]
    return {str(path.relative_to(run.folder)): path.read_bytes() for path in files}


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Send SIGTERM to this process after so many training steps."""
    real, taken = step.train_step, []

    def counted(*arguments, **named):
        real(*arguments, **named)
        taken.append(1)
        if len(taken) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "train_step", counted)


def test_training_learns_and_returns_what_is_finished(tiny: dict, options: Options):
    run = train(parse_experiment(tiny | {"epochs": 6}), options)
    assert run.summary["validation"]["top1"] == 1.0
    assert run.metrics()[-1]["train_loss"] < run.metrics()[0]["train_loss"]
    before = content(run)
    assert train(parse_experiment(tiny | {"epochs": 6}), options) == run
    assert content(run) == before
    expected = {"experiment.json", "request.json", "environment.json", "command.txt", "metrics.jsonl", "timing.jsonl"}
    expected |= {"train.log", "metrics.csv", "checkpoints", "summary.json", "bundle", "plots", "splits.json"}
    assert expected <= {path.name for path in run.folder.iterdir()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop", [1, *(pytest.param(each, marks=pytest.mark.slow) for each in (3, 5)), 8])
def test_a_stopped_run_goes_on_as_if_it_never_stopped(
    tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch, stop: int, precision: str
):
    values = tiny | EVERYTHING | {"epochs": 3, "precision": precision}
    values["model"] = tiny["model"] | {"dropout": 0.2, "drop_path": 0.2}
    experiment = parse_experiment(values)
    whole = train(experiment, options)
    with monkeypatch.context() as patch:
        stop_after(patch, stop)
        with pytest.raises(Interrupted, match=f"SIGTERM: saved at step {stop}"):
            train(experiment, Options(device="cpu", workers=0, out=options.out / "again", quiet=True))
    broken = train(experiment, Options(device="cpu", workers=2, stream=True, out=options.out / "again", quiet=True))
    assert content(broken) == content(whole)
    assert f"SIGTERM: saved at step {stop}" in broken.log.read_text()


@pytest.mark.parametrize("stop", [2, 5])
def test_what_changes_during_training_changes_at_the_same_step_after_a_stop(
    tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch, stop: int
):
    values = tiny | {"epochs": 3, "optimizer": "muon", "freeze_filters": 0.5, "image_sizes": [[0, 8], [0.6, 12]]}
    values |= {"balanced": True, "augmentation": {"horizontal_flip": {"probability": 0.5, "alternating": True}}}
    values["model"] = tiny["model"] | {"filters": "covariance"}
    experiment = parse_experiment(values)
    whole = train(experiment, options)
    with monkeypatch.context() as patch:
        stop_after(patch, stop)
        with pytest.raises(Interrupted):
            train(experiment, Options(device="cpu", workers=0, out=options.out / "again", quiet=True))
    again = train(experiment, Options(device="cpu", workers=0, out=options.out / "again", quiet=True))
    assert content(again) == content(whole)


def test_filters_stay_and_sizes_grow_from_the_steps_that_were_asked_for(
    tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch
):
    seen, real = [], step.train_step

    def watched(state, experiment, spec, *others):
        real(state, experiment, spec, *others)
        seen.append((spec.image_size, state.model.blocks[0].depthwise[0].weight.detach().clone()))

    monkeypatch.setattr(loop, "train_step", watched)
    experiment = parse_experiment(tiny | {"epochs": 4, "freeze_filters": 0.5, "image_sizes": [[0.25, 8], [0.75, 12]]})
    train(experiment, options)
    sizes, filters = zip(*seen, strict=True)
    usual, count = 16, len(seen)
    assert list(sizes) == [usual] * (count // 4) + [8] * (count // 2) + [12] * (count // 4)
    changed = [not torch.equal(left, right) for left, right in itertools.pairwise(filters)]
    assert changed == [True] * (count // 2 - 1) + [False] * (count // 2)


def test_sizes_that_a_model_cannot_take_are_refused(tiny: dict, options: Options):
    with pytest.raises(UsageError, match="vit is built for one image size"):
        parse_experiment(tiny | {"model": "vit_small_patch4", "image_sizes": [[0, 8]]})
    with pytest.raises(UsageError, match=r"such as \[\[0, 16\], \[0.5, 32\]\]"):
        parse_experiment(tiny | {"image_sizes": 32})
    with pytest.raises(UsageError, match="must rise"):
        parse_experiment(tiny | {"image_sizes": [[0.5, 8], [0.2, 12]]})
    with pytest.raises(UsageError, match="image_sizes has 2 px: "):
        train(parse_experiment(tiny | {"image_sizes": [[0, 2]], "model": tiny["model"] | {"patch_size": 4}}), options)


def test_workers_and_memory_change_nothing(tiny: dict, options: Options):
    experiment = parse_experiment(tiny | EVERYTHING)
    runs = [
        train(experiment, Options(device="cpu", workers=workers, stream=stream, quiet=True, out=options.out / str(at)))
        for at, (workers, stream) in enumerate([(0, False), (0, True), (1, True), (2, True)])
    ]
    assert all(content(run) == content(runs[0]) for run in runs)


def test_the_cache_changes_nothing(tiny: dict, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MIXLAB_CACHE", str(tmp_path / "cache"))
    (Path(tiny["data"]["name"]) / "blue" / "bad.jpg").write_text("text")
    experiment = parse_experiment(tiny | EVERYTHING)

    def run(name: str, stream: bool, cache: bool, limit: int) -> Run:
        monkeypatch.setattr(loading, "MEMORY_LIMIT", limit)
        chosen = Options(device="cpu", workers=1, stream=stream, cache=cache, quiet=True, out=options.out / name)
        return train(experiment, chosen)

    ways = [(False, False, 2**30), (False, True, 2**30), (False, False, 0), (False, True, 0), (True, True, 0)]
    runs = [run(str(at), *way) for at, way in enumerate(ways)]
    assert all(content(each) == content(runs[0]) for each in runs)
    assert all(each.log.read_text().count("blue/bad.jpg: not an image") == 1 for each in runs)
    said = [each.log.read_text() for each in runs]
    assert ["decoding" in text for text in said] == [False, True, False, False, False]
    assert [f"in {tmp_path / 'cache' / 'pixels'} (mixlab data cache" in text for text in said] == [
        False,
        True,
        True,
        True,
        True,
    ]
    shutil.rmtree(tmp_path / "cache")
    assert "anew each epoch, too many for memory (--cache" in run("large", False, False, 0).log.read_text()


def test_a_signal_during_validation_loses_nothing(tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch):
    experiment = parse_experiment(tiny)
    whole = train(experiment, options)
    real = loop.inference.iterate

    def interrupted(*arguments, **named):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **named)

    again = Options(device="cpu", workers=0, out=options.out / "again", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(loop.inference, "iterate", interrupted)
        with pytest.raises(Interrupted, match="SIGINT"):
            train(experiment, again)
    assert content(train(experiment, again)) == content(whole)


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            stop.check()
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Interrupted, match="SIGTERM"):
                stop.check()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("stop", ["training", "validation"])
def test_the_time_before_a_stop_counts(tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch, stop: str):
    real, looked, taken = step.train_step, loop.inference.iterate, []

    def slow(*arguments, **named):
        real(*arguments, **named)
        time.sleep(0.05)
        taken.append(1)
        if (stop, len(taken)) == ("training", 2):
            os.kill(os.getpid(), signal.SIGTERM)

    def interrupted(*arguments, **named):
        if (stop, len(taken)) == ("validation", 3):
            taken.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        return looked(*arguments, **named)

    monkeypatch.setattr(loop, "train_step", slow)
    monkeypatch.setattr(loop.inference, "iterate", interrupted)
    experiment = parse_experiment(tiny)
    with pytest.raises(Interrupted):
        train(experiment, options)
    run = train(experiment, options)
    rows = run.timings()
    assert [row["images"] for row in rows] == ([16, 8, 24] if stop == "training" else [24, 0, 24])
    for epoch in (1.0, 2.0):
        parts = timing.of_epoch(rows, epoch)
        assert timing.seconds(parts) >= sum(row["training_seconds"] for row in parts) >= 3 * 0.05
        assert 0 < timing.speed(parts) <= 8 / 0.05


def test_a_batch_larger_than_the_set_counts_the_images_of_the_set(tiny: dict, options: Options):
    run = train(parse_experiment(tiny | {"batch_size": 1000}), options)
    images = len(json.loads((run.folder / "splits.json").read_text())["train"])
    assert [row["images"] for row in run.timings()] == [images, images]


def test_runs_are_kept_and_found_below_a_home_folder(
    tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Options
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    quick = {"device": "cpu", "workers": 0, "quiet": True, "out": "~/my runs"}
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Interrupted) as stopped:
            api.train(**tiny, **quick, name="q")
    command = shlex.split(str(stopped.value).partition("go on with: ")[2])
    assert command == ["mixlab", "train", "--resume", str(tmp_path / "my runs" / "q")]
    run = api.resume("q", **quick)
    assert (run.folder, run.is_finished) == (tmp_path / "my runs" / "q", True)
    assert api.evaluate("q", "validation", out="~/my runs", device="cpu", workers=0).metrics.images > 0
    assert not Path("~").exists()
    with pytest.raises(TypeError, match="epochs"):
        api.resume("q", epochs=3)


@pytest.mark.parametrize("moment", ["training.train.finish", "experiment.Experiment.load_data"])
def test_a_signal_outside_the_steps_says_how_to_go_on_where_something_began(
    tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch, moment: str
):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"mixlab.{moment}", stopped)
        with pytest.raises((Interrupted, KeyboardInterrupt)) as error:
            train(parse_experiment(tiny), options)
    [folder] = options.out.iterdir()
    if moment.endswith("finish"):
        assert str(error.value) == f"interrupted; go on with: mixlab train --resume {folder}"
    else:
        assert isinstance(error.value, KeyboardInterrupt)
    assert train(parse_experiment(tiny), options).is_finished


def test_a_run_whose_data_was_moved_goes_on_where_it_lies_now(
    tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch
):
    experiment, old = parse_experiment(tiny), Path(tiny["data"]["name"])
    whole = train(experiment, replace(options, out=options.out / "whole"))
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Interrupted):
            train(experiment, options)
    [run] = [Run(path.parent) for path in options.out.glob("*/request.json")]
    new = old.rename(old.with_name("moved"))
    with pytest.raises(DataError, match=f"no longer at {old}; if it was moved, .*--resume .* --data FOLDER"):
        resume(run, options)
    (old / "red").mkdir(parents=True)
    with pytest.raises(DataError, match=f"{old} is not where the data of {run.folder} lies: "):
        resume(run, options, str(old))
    assert content(resume(run, options, str(new))) == content(whole)
    shutil.rmtree(old)
    assert evaluate(run, workers=0).metrics.images > 0
    again = parse_experiment(tiny | {"data": tiny["data"] | {"name": str(new)}})
    assert train(again, replace(options, name=run.name)).folder == run.folder


def test_data_that_lies_nowhere_cannot_be_moved(options: Options):
    run = open_folder(parse_experiment({"data": "digits"}), options)
    with pytest.raises(UsageError, match="trained on digits, which comes with mixlab; leave out --data"):
        resume(run, options, "/somewhere")


def test_without_tensorboard_a_training_that_asks_for_it_does_not_begin(
    tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="pip install 'mixlab\\[tensorboard\\]'"):
        train(parse_experiment(tiny), replace(options, tensorboard=True))
    assert not options.out.exists()


def test_outside_the_main_thread_training_works(tiny: dict, options: Options):
    thread = threading.Thread(target=lambda: train(parse_experiment(tiny), options))
    thread.start()
    thread.join()
    assert next(options.out.iterdir()).joinpath("summary.json").exists()


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(tiny: dict, options: Options):
    experiment = parse_experiment(tiny)
    run = train(experiment, options)
    before = content(run)
    newest = max(run.checkpoints.iterdir())
    os.truncate(newest / "tensors.safetensors", 1000)
    (run.folder / "summary.json").unlink()
    assert content(resume(run, options)) == before
    assert "damaged checkpoint" in run.log.read_text()


def test_the_average_is_what_ships(tiny: dict, options: Options):
    run = train(parse_experiment(tiny | {"weight_average": 0.9, "select": "last"}), options)
    checkpoint, _ = load_newest(run)
    assert checkpoint is not None
    shipped = read_bundle(run).state["classifier.weight"]
    assert torch.equal(shipped, checkpoint.tensors["average.classifier.weight"])
    assert not torch.equal(shipped, checkpoint.tensors["model.classifier.weight"])


def test_the_best_epoch_is_chosen_by_validation(tiny: dict, options: Options):
    run = train(parse_experiment(tiny | {"epochs": 5}), options)
    rows = run.metrics()
    best = max(rows, key=lambda row: (row["validation_top1"], -row["validation_loss"]))
    assert run.summary["chosen"]["epoch"] == best["epoch"]
    assert run.summary["validation"]["top1"] == pytest.approx(best["validation_top1"])


def test_published_protocol_keeps_every_training_image_and_watches_test(tiny: dict, options: Options):
    run = train(parse_experiment(tiny | {"protocol": "published"}), options)
    assert len(run.read_splits()["train"]) == 34
    assert run.read_splits()["validation"] == []
    assert run.readings("test") == 2
    assert "test_top1" in run.metrics()[0]
    assert run.summary["chosen"]["epoch"] == 2


def test_honest_training_never_opens_test_images(tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch):
    """Remove the test files once the splits are known: training does not notice."""
    experiment = parse_experiment(tiny)
    data = experiment.data.load(experiment.seed, carve_validation=True)
    monkeypatch.setattr(type(experiment.data), "load", lambda *arguments, **named: data)
    for name in data.test.names:
        (Path(experiment.data.path) / name).write_bytes(b"")  # pyright: ignore[reportAttributeAccessIssue]
    assert train(experiment, options).is_finished


def test_accumulation_without_batch_norm_equals_the_whole_batch(tiny: dict, options: Options):
    values = tiny | {"model": tiny["model"] | {"norm": "layer"}, "optimizer": {"name": "sgd"}, "precision": "float32"}
    whole = train(parse_experiment(values), options)
    parts = train(parse_experiment(values | {"accumulate": 4}), options)
    for name, tensor in read_bundle(whole).state.items():
        torch.testing.assert_close(read_bundle(parts).state[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tiny: dict, options: Options):
    values = tiny | {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "clip_norm": 0}
    with pytest.raises(TrainingError, match=r"step \d+ left a number that is not finite; its files: \S+png, "):
        train(parse_experiment(values), options)
    run = Run(next(options.out.iterdir()))
    checkpoint, _ = load_newest(run)
    assert checkpoint is None or all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())
    assert not run.is_finished


def test_unreadable_files_are_skipped_and_named_or_stop_a_strict_run(tiny: dict, options: Options):
    for index in range(3):
        (Path(tiny["data"]["name"]) / "blue" / f"bad{index}.jpg").write_text("text")
    run = train(parse_experiment(tiny), options)
    assert "not an image" in run.log.read_text()
    assert len(run.read_splits()["unreadable"]) >= 1
    with pytest.raises(DataError, match="cannot be read"):
        train(parse_experiment(tiny), Options(device="cpu", out=options.out, quiet=True, strict=True, new=True))
    with pytest.raises(DataError, match=r"was trained without \d files that cannot be read, such as blue/bad\d.jpg"):
        train(parse_experiment(tiny), replace(options, strict=True))


def test_pictures_that_are_all_unreadable_are_refused(tiny: dict, options: Options):
    for path in Path(tiny["data"]["name"]).rglob("*.png"):
        path.write_text("text")
    experiment = parse_experiment(tiny)
    with pytest.raises(DataError, match="none of 28 training pictures can be read; mixlab data check names"):
        train(experiment, options)
    with pytest.raises(DataError, match="not one picture of these steps can be read; mixlab data check names"):
        find_learning_rate(parse_experiment(tiny | {"accumulate": 1}), options, Sweep(steps=20))


def test_trained_weights_move_to_other_classes_with_a_new_head(tiny: dict, options: Options, pictures: Path):
    first = train(parse_experiment(tiny), options)
    shutil.copytree(pictures / "red", pictures / "green")
    experiment = parse_experiment(tiny | {"weights": str(first.folder), "freeze": True})
    second = train(experiment, options)
    old, new = read_bundle(first).state, read_bundle(second).state
    assert new["classifier.weight"].shape[0] == 3
    for name, tensor in old.items():
        if not name.startswith("classifier."):
            assert torch.equal(tensor, new[name]), name
    assert "new: classifier.weight, classifier.bias" in second.log.read_text()


def test_the_same_classes_keep_their_head(tiny: dict, options: Options):
    first = train(parse_experiment(tiny), options)
    file = first.bundle / "model.safetensors"
    second = train(parse_experiment(tiny | {"weights": str(file), "seed": 5}), options)
    assert "from" in second.log.read_text()
    with pytest.raises(RunError, match="leaves nothing to learn"):
        train(parse_experiment(tiny | {"weights": str(file), "freeze": True}), options)
    other = {"model": {"name": "convmixer", "dim": 12, "depth": 1}, "weights": str(file)}
    with pytest.raises(RunError, match=r"nothing in .* fits"):
        train(parse_experiment(tiny | other), options)


@pytest.mark.parametrize("layout", ["one class", "one image"])
def test_too_little_data_is_refused_by_name(tiny: dict, options: Options, layout: str):
    root = Path(tiny["data"]["name"])
    shutil.rmtree(root / "red")
    if layout == "one image":
        (root / "red").mkdir()
        shutil.copy(root / "blue" / "0.png", root / "red" / "0.png")
        assert train(parse_experiment(tiny), options).is_finished  # it goes to training
    else:
        with pytest.raises(DataError, match="class"):
            train(parse_experiment(tiny), options)


def test_time_limits_become_epochs_once_and_stay(tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch):
    limited = Options(device="cpu", workers=0, out=options.out, quiet=True, max_seconds=2.0)
    monkeypatch.setattr(plan, "_measure", lambda *arguments: (0.01, 0.0))  # 0.08 s a step, 3 steps an epoch
    run = train(parse_experiment(tiny | {"epochs": 50}), limited)
    assert run.experiment.epochs == pytest.approx(0.93 * 2.0 / 0.24, abs=0.01)
    assert run.metrics()[-1]["step"] == round(run.experiment.epochs * 3)
    assert "it took" not in run.log.read_text()
    monkeypatch.setattr(plan, "_measure", lambda *arguments: (0.02, 0.0))
    assert train(parse_experiment(tiny | {"epochs": 50}), limited) == run
    with pytest.raises(TrainingError, match="too short to learn anything"):
        train(parse_experiment(tiny | {"epochs": 50}), Options(device="cpu", out=options.out, max_seconds=0.01))


def test_a_training_that_took_longer_than_it_was_given_says_so(
    tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plan, "_measure", lambda *arguments: (0.0001, 0.0))
    monkeypatch.setattr(timing, "seconds", lambda rows: 90.0)
    run = train(parse_experiment(tiny | {"epochs": 3}), replace(options, max_seconds=60.0))
    assert "note     it took 1 min 30 s of the 1 min 00 s it was given: the machine was slower" in run.log.read_text()


def test_a_dry_run_writes_nothing_and_counts_everything(tiny: dict, options: Options):
    found = make_plan(parse_experiment(tiny), options)
    assert not options.out.exists()
    assert (found.train_images, found.validation_images, found.test_images) == (28, 6, 6)
    assert found.steps == 6
    assert found.seconds > 0
    assert found.memory_bytes > 10_000


def test_the_plan_says_what_no_patch_holds(tiny: dict, options: Options):
    whole, cut = (
        make_plan(parse_experiment(tiny | {"model": tiny["model"] | {"patch_size": size}}), options) for size in (4, 5)
    )
    assert [line for line in cut.lines() if line.startswith("note")] == [
        "note     1 px of 16 at the right and bottom edge are in no patch"
    ]
    assert not [line for line in whole.lines() if line.startswith("note")]


def test_automatic_precision_is_settled_before_step_0_and_stays(
    tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch
):
    experiment = parse_experiment(tiny)
    assert experiment.precision == "auto"
    with monkeypatch.context() as patch:
        patch.setattr(devices, "is_fast_in_bfloat16", lambda device: False)
        patch.setattr(library, "is_faster_in_bfloat16", lambda device: False)
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            train(experiment, options)
    monkeypatch.setattr(devices, "is_fast_in_bfloat16", lambda device: True)
    assert train(experiment, options).experiment.precision == "float32"
    assert make_plan(experiment, options).precision == "bfloat16"
    assert make_plan(parse_experiment(tiny | {"model": "vit_64_4_patch2"}), options).precision == "float32"


def test_where_a_cpu_is_slow_in_bfloat16_only_blocks_with_kernels_have_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "is_fast_in_bfloat16", lambda device: False)
    found: dict[bool, list[str]] = {}
    for ours in (False, True):
        monkeypatch.setattr(library, "is_faster_in_bfloat16", lambda device, ours=ours: ours)
        models = ("convmixer_64_4", {"name": "convmixer", "norm": "layer"}, "resnet9", "vit_64_4_patch2")
        experiments = [parse_experiment({"data": "digits", "model": model}) for model in models]
        found[ours] = [plan.settle(each, torch.device("cpu")).precision for each in experiments]
    assert found == {False: ["float32"] * 4, True: ["bfloat16"] + ["float32"] * 3}


def test_checkpoints_inside_an_epoch_change_nothing(tiny: dict, options: Options):
    often = Options(device="cpu", workers=0, out=options.out / "often", quiet=True, save_seconds=0.0)
    experiment = parse_experiment(tiny | EVERYTHING)
    assert content(train(experiment, often)) == content(train(experiment, options))


def test_experiments_do_not_depend_on_the_clock_or_the_global_generators(tiny: dict, options: Options):
    first = train(parse_experiment(tiny | EVERYTHING), options)
    np.random.seed(int(time.time()))
    torch.manual_seed(int(time.time()))
    second = train(parse_experiment(tiny | EVERYTHING), Options(device="cpu", out=options.out / "b", quiet=True))
    assert content(first) == content(second)


def test_seeds_differ(tiny: dict, options: Options):
    runs = [train(parse_experiment(tiny | {"seed": seed}), options) for seed in (0, 1)]
    assert runs[0].metrics() != runs[1].metrics()
    assert json.loads((runs[1].folder / "experiment.json").read_text())["seed"] == 1
    assert isinstance(runs[1].experiment, Experiment)


def test_fine_tuning_goes_on_without_its_source(tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch):
    source = train(parse_experiment(tiny), options)
    (Path(tiny["data"]["name"]) / "blue").rename(Path(tiny["data"]["name"]) / "azure")
    experiment = parse_experiment(tiny | {"weights": str(source.folder), "freeze": True})
    whole = train(experiment, Options(device="cpu", out=options.out / "whole", quiet=True))
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            train(experiment, options)
    shutil.rmtree(source.folder)
    assert content(train(experiment, options)) == content(whole)


def test_a_kill_between_the_row_and_its_checkpoint_repeats_no_row(tiny: dict, options: Options, monkeypatch):
    """Stopped in validation, then killed after the row of that epoch was written."""
    experiment = parse_experiment(tiny)
    whole = train(experiment, options)
    again = Options(device="cpu", workers=0, out=options.out / "again", quiet=True)

    def stop(*arguments, **named):
        raise Interrupted("SIGINT")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_watch", stop)
        with pytest.raises(Interrupted):
            train(experiment, again)

    def killed(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", killed)
        with pytest.raises(Interrupted):
            train(experiment, again)
    assert content(train(experiment, again)) == content(whole)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_running_out_of_memory_says_what_to_try(tiny: dict, options: Options, monkeypatch, error: Exception):
    def full(*arguments, **named):
        raise error

    monkeypatch.setattr(loop, "train_step", full)
    with pytest.raises(TrainingError, match=r"out of memory at batch 8 .* --batch-size 4, or --accumulate 2"):
        train(parse_experiment(tiny), options)


def test_a_streaming_run_names_unreadable_files_once_and_a_strict_one_stops(tiny: dict, options: Options):
    for index in range(3):
        (Path(tiny["data"]["name"]) / "blue" / f"bad{index}.jpg").write_text("text")
    run = train(parse_experiment(tiny | {"epochs": 3}), Options(device="cpu", out=options.out, quiet=True, stream=True))
    assert all(run.log.read_text().count(f"bad{index}.jpg: not an image") <= 1 for index in range(3))
    assert "not an image" in run.log.read_text()
    strict = Options(device="cpu", out=options.out, quiet=True, stream=True, strict=True, new=True)
    with pytest.raises(DataError, match="cannot be read"):
        train(parse_experiment(tiny), strict)


@pytest.fixture
def streaming(tiny: dict, options: Options, tmp_path: Path):
    """A long training with two workers in a process group of its own, after its first checkpoint."""
    (tmp_path / "recipe.json").write_text(json.dumps(tiny | {"epochs": 400}))
    script = (
        "import json, sys; from pathlib import Path; from mixlab.experiment import parse_experiment;"
        "from mixlab.training.train import train; from mixlab.training.session import Options;"
        f"train(parse_experiment(json.loads(Path({str(tmp_path / 'recipe.json')!r}).read_text())),"
        f" Options(device='cpu', workers=2, stream=True, out=Path({str(options.out)!r}), name='run'))"
    )
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], start_new_session=True, stderr=said)
    while not list(options.out.glob("run/checkpoints/0*")):
        time.sleep(0.05)
        assert process.poll() is None, (tmp_path / "said").read_text()
    yield process
    process.kill()
    process.wait()


def group_is_gone(group: int) -> bool:
    """Wait until no process of a group is left, for 20 seconds at most."""
    for _ in range(400):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_signal_to_the_whole_group_saves_and_leaves(streaming: subprocess.Popen, options: Options, tmp_path: Path):
    """As schedulers and `timeout` send it: worker processes get it too, and must not die of it first."""
    os.killpg(streaming.pid, signal.SIGTERM)
    streaming.wait(60)
    assert "SIGTERM: saved at step" in (tmp_path / "said").read_text()
    checkpoint, problems = load_newest(Run(options.out / "run"))
    assert checkpoint is not None
    assert not problems
    assert group_is_gone(streaming.pid)


def test_workers_that_were_left_alone_do_not_hold_up_the_end(tmp_path: Path):
    """As after an interrupt while a loader starts: the process ends although a worker still waits for work."""
    script = (
        "import multiprocessing, os, sys, time; from mixlab.data.loading import _prepare_worker, life_signs;"
        "from mixlab.cli import main as cli;"
        "child = multiprocessing.get_context('fork').Process("
        "target=lambda: (_prepare_worker(0, os.getppid(), life_signs.no_signs(1)), time.sleep(600)), daemon=True);"
        "child.start(); time.sleep(1); sys.argv = ['mixlab', 'runs', 'list']; cli.main()"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, timeout=50, capture_output=True)
    assert ended.returncode == 0


def test_workers_do_not_outlive_a_killed_training(streaming: subprocess.Popen):
    streaming.kill()
    streaming.wait(60)
    assert group_is_gone(streaming.pid)


def test_batches_without_a_readable_file_are_passed_over(tiny: dict, options: Options):
    for index in range(10):
        (Path(tiny["data"]["name"]) / "blue" / f"{index}.png").write_bytes(b"")
    run = train(parse_experiment(tiny | {"batch_size": 1, "epochs": 1}), options)
    assert run.is_finished
    assert run.log.read_text().count("0 bytes") >= 5


def test_a_part_too_small_for_batch_norm_is_refused(tiny: dict, options: Options):
    values = tiny | {"batch_size": 1, "model": tiny["model"] | {"patch_size": 16}}
    with pytest.raises(TrainingError, match="BatchNorm cannot average one value"):
        train(parse_experiment(values), options)


def test_names_that_are_not_utf8_are_trained_on_and_measured(tiny: dict, options: Options):
    folder = os.fsencode(Path(tiny["data"]["name"]) / "blue")
    for index, name in enumerate((b"caf\xe9.png", b"t\xe9.png", b"no\xe9l.jpg")):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes((Path(os.fsdecode(folder)) / f"{index}.png").read_bytes())
    Path(os.fsdecode(folder + b"/bad\xe9.jpg")).write_bytes(b"")
    run = train(parse_experiment(tiny), options)
    assert evaluate(run, workers=0).metrics.images > 5


def test_resumed_optimiser_state_has_the_memory_layout_of_training(tiny: dict, options: Options):
    run = train(parse_experiment(tiny), options)
    checkpoint, _ = load_newest(run)
    assert checkpoint is not None
    experiment = run.experiment
    data = experiment.data.load(experiment.seed, carve_validation=True)
    state = state_of(fresh_model(experiment, data.spec), experiment, data, torch.device("cpu"))
    state.restore(checkpoint)
    for parameter, values in state.optimizer.state.items():
        assert values["exp_avg"].stride() == parameter.stride()
    state.classes = ("a", "b")
    with pytest.raises(RunError, match="the checkpoint is of the classes blue, red, and the data has a, b"):
        state.restore(checkpoint)


def test_a_worker_that_the_signal_ended_first_is_no_error(
    tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch
):
    """A signal to the whole group can reach a worker before it ignores signals; torch then misses it."""
    experiment = parse_experiment(tiny)
    whole = train(experiment, options)
    real = loop.batches

    def broken(images, order, workers):
        for place, batch in enumerate(real(images, order, workers)):
            if place == 1:
                os.kill(os.getpid(), signal.SIGTERM)
                raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")
            yield batch

    again = Options(device="cpu", workers=0, out=options.out / "again", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "batches", broken)
        with pytest.raises(Interrupted, match="SIGTERM: saved at step 1"):
            train(experiment, again)
    assert content(train(experiment, again)) == content(whole)


def test_a_training_that_cannot_begin_leaves_no_folder(tiny: dict, options: Options, pictures: Path):
    for path in (pictures / "red").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="images of one class only"):
        train(parse_experiment(tiny), options)
    assert list(options.out.iterdir()) == []
