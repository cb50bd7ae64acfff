"""Trained weights bring along their model and their preprocessing, wherever they come from."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mixlab import api
from mixlab.data.catalogue import parse_data
from mixlab.errors import DataError, RunError
from mixlab.evaluation.classifier import pixels_of
from mixlab.evaluation.evaluate import evaluate
from mixlab.models.catalogue import parse_model
from mixlab.run import hub
from mixlab.run.bundle import Bundle, BundleDescription, read_bundle, write_bundle
from mixlab.run.importing import import_weights
from mixlab.spec import DataSpec
from mixlab.training import fine_tuning
from tests.run.foreign_networks import of_timm

QUICK = {"device": "cpu", "workers": 0, "quiet": True}
MODEL = {"name": "convmixer", "dim": 10, "depth": 2, "kernel_size": 3, "activation": "relu"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    spec = DataSpec(image_size=20, classes=("x", "y"), mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3), resize_mode="squash")
    model = parse_model(MODEL)
    described = BundleDescription(mixlab="", model=model, spec=spec)
    write_bundle(tmp_path / "old", Bundle(described, model.build(spec).state_dict()), "")
    return tmp_path / "old"


def test_what_is_not_asked_for_is_as_the_weights_were_trained(bundle: Path, pictures: Path):
    found = fine_tuning.compose("", {"data": str(pictures), "weights": str(bundle)}, ())
    assert found.model == read_bundle(bundle).description.model
    assert (found.data.image_size, found.data.mean, found.data.resize_mode) == (20, (0.4, 0.5, 0.6), "squash")
    assert found.label_smoothing == 0.1  # of the recipe for folders


def test_what_is_asked_for_is_kept(bundle: Path, pictures: Path):
    asked = {"data": {"name": str(pictures), "image_size": 32}, "weights": str(bundle), "model": "convmixer_128_4"}
    found = fine_tuning.compose("", asked, ["data.mean=[0.1, 0.1, 0.1]"])
    assert (found.model.width, found.data.image_size, found.data.mean) == (128, 32, (0.1, 0.1, 0.1))
    assert found.data.std == (0.1, 0.2, 0.3)
    values = {"data": str(pictures), "weights": str(bundle), "model": {"dropout": 0.2}}
    assert fine_tuning.compose("", values, ()).model.model_dump() == {
        **read_bundle(bundle).description.model.model_dump(),
        "dropout": 0.2,
    }
    recipe, words = {"model": "resnet9"}, ["optimizer.learning_rate=auto"]
    found, auto = fine_tuning.compose_auto(recipe, {"weights": str(bundle)}, words)
    assert (found.model.name, auto) == ("resnet9", True)


def test_grey_pictures_keep_their_own_mean(bundle: Path):
    found = fine_tuning.compose("", {"data": "digits", "weights": str(bundle)}, ())
    assert (found.data.mean, found.data.image_size) == ((), 20)


def test_weights_mean_the_same_from_any_current_folder(
    bundle: Path, tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    run = api.train(data=str(pictures), weights="old", epochs=0.5, batch_size=8, **QUICK, out="runs", name="r")
    torch.save(of_timm(8, 1, 3, 4, 2).state_dict(), "timm.pth")
    named = {"old": bundle, "./old/": bundle, "r": run.folder, "timm.pth": tmp_path / "timm.pth"}
    for place, found in named.items():
        composed, _ = fine_tuning.compose_auto("", {"data": str(pictures), "weights": place}, ())
        assert composed.weights == str(tmp_path / found)
    monkeypatch.setattr(hub, "fetch", lambda address: bundle)
    assert fine_tuning.compose("", {"weights": "hf://a/b"}, ()).weights == "hf://a/b"
    assert "started from | old" in (run.bundle / "README.md").read_text()


def test_the_same_words_in_two_folders_are_two_runs(
    bundle: Path, tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    runs = []
    for name in ("here", "there"):
        shutil.copytree(bundle, tmp_path / name / "w")
        monkeypatch.chdir(tmp_path / name)
        runs.append(api.train(data=str(pictures), weights="w", epochs=0.5, batch_size=8, **QUICK, out=tmp_path))
    assert runs[0] != runs[1]


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_is_not_that_of_other_weights_in_the_same_place(bundle: Path, pictures: Path, finished: bool):
    values = {"data": str(pictures), "weights": str(bundle), "epochs": 0.5, "batch_size": 8, **QUICK, "name": "r"}
    out = bundle.parent
    run = api.train(**values, out=out)
    summary = run.folder / "summary.json"
    if not finished:
        summary.unlink()
    before, other = read_bundle(bundle), read_bundle(bundle)
    other.state["classifier.bias"] += 1
    write_bundle(bundle, other, "")
    with pytest.raises(RunError, match=r"old changed since .*r began with them \(SHA-256 .*--new"):
        api.train(**values, out=out)
    assert api.train(**values, out=out, new=True).name == "r-2"
    splits = run.read_splits()
    run.write_splits({key: value for key, value in splits.items() if key != "weights_sha256"})
    assert api.train(**values, out=out) == run  # of an older mixlab, which wrote nothing down
    run.write_splits(splits)
    write_bundle(bundle, before, "")
    assert api.train(**values, out=out) == run
    assert summary.exists()


def test_a_checkpoint_of_timm_is_fine_tuned_and_used(tmp_path: Path, pictures: Path):
    torch.save(of_timm(8, 2, 3, 4, 5).state_dict(), tmp_path / "timm.pth")
    values = {"data": {"name": str(pictures), "image_size": 16}, "weights": str(tmp_path / "timm.pth"), "freeze": True}
    run = api.train(**values, epochs=1, batch_size=8, out=tmp_path, device="cpu", workers=0, quiet=True)
    state = read_bundle(run).state
    theirs = torch.load(tmp_path / "timm.pth")
    assert torch.equal(state["blocks.1.depthwise.0.weight"], theirs["blocks.1.0.fn.0.weight"])
    assert "new: classifier.weight, classifier.bias" in run.log.read_text()
    classifier = api.load(run, "cpu", reject_below=1)
    files = sorted((pictures / "red").iterdir())[:3]
    features = classifier.features(files, batch_size=2)
    assert (features.shape, features.dtype) == ((3, 8), np.float32)
    logits = features @ state["classifier.weight"].numpy().T + state["classifier.bias"].numpy()
    expected = classifier.network.logits([pixels_of(file, channels=3) for file in files])
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert classifier(files[0]).is_unknown


def test_weights_that_cannot_be_read_end_before_anything_is_written(tmp_path: Path, pictures: Path):
    with pytest.raises(RunError, match="there is no run nowhere"):
        api.train(data=str(pictures), weights="nowhere", out=tmp_path / "runs")
    (tmp_path / "net.onnx").write_text("")
    with pytest.raises(RunError, match="is an exported file; give the run or bundle"):
        api.train(data=str(pictures), weights=str(tmp_path / "net.onnx"), out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_bundle_is_measured_on_given_data(tmp_path: Path, pictures: Path):
    torch.save(of_timm(8, 1, 3, 4, 2).state_dict(), tmp_path / "timm.pth")
    import_weights(tmp_path / "timm.pth", tmp_path / "bundle", ("blue", "red"), image_size=16)
    with pytest.raises(DataError, match="is a bundle, which has no data of its own; give some: --data"):
        api.evaluate(tmp_path / "bundle", device="cpu")
    data, quick = parse_data(str(pictures)), {"device": "cpu", "workers": 0, "draw": False, "root": tmp_path}
    found = evaluate(tmp_path / "bundle", data=data, reject_below="0.5", **quick)
    assert found.metrics.images == 40
    assert found.folder.parent.parent.name.startswith("bundle-")
    assert found.accepted is not None
    assert found.accepted.coverage.value == 1  # of two classes one always has half
    assert found.accepted.accuracy == found.metrics.top1
    none = evaluate(tmp_path / "bundle", data=data, reject_below="1", **quick)
    assert none.accepted is not None
    assert (none.accepted.coverage.value, none.as_json()["accepted"]["accuracy"]) == (0, None)
    assert evaluate(tmp_path / "bundle", data=data, **quick).accepted is None
