"""A file that does not answer as the network does is never left under its ready name."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mixlab import api
from mixlab.cli.main import mixlab
from mixlab.errors import CheckFailed, DataError, RunError, UsageError
from mixlab.evaluation.networks import TorchNetwork
from mixlab.exporting import export as exporting
from mixlab.exporting import openvino_files, parity
from mixlab.exporting.aside import files_aside
from mixlab.exporting.export import FORMATS, export
from mixlab.exporting.judges import find_judges
from mixlab.exporting.parity import Answer, Said, calibrated, compare, verdict
from mixlab.models.catalogue import parse_model
from mixlab.run.bundle import METADATA, Bundle, BundleDescription, as_text, read_bundle, read_description, write_bundle
from mixlab.spec import DataSpec


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that knows the two classes of `pictures`."""
    torch.manual_seed(0)
    spec = DataSpec(image_size=16, classes=("blue", "red"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    config = parse_model({"name": "convmixer", "dim": 8, "depth": 2, "kernel_size": 3})
    description = BundleDescription(mixlab="", model=config, spec=spec, temperature=1.5)
    write_bundle(tmp_path / "bundle", Bundle(description, config.build(spec).state_dict()), "")
    return tmp_path / "bundle"


def said(*rows: list[float]) -> Said:
    probabilities, logits = calibrated(np.array(rows, dtype=np.float32), 1.0)
    return Said(probabilities, logits)


def test_a_tie_within_the_limit_has_no_best_class():
    found = compare(said([1.0, 1.00005], [3, 0]), said([1.00005, 1.0], [3, 0]))
    assert (found.agreement, found.misses) == (0.5, 0)
    assert compare(said([1.0, 1.01]), said([1.01, 1.0])).misses == 1


def test_a_float_file_may_not_differ():
    assert verdict("onnx", compare(said([1, 2]), said([1.00005, 2])), 1, 1) == ""
    assert "differ by up to 2.0e-04" in verdict("onnx", compare(said([1, 2]), said([1.0002, 2])), 1, 1)
    assert "differ by up to inf" in verdict("onnx", compare(said([1, 2]), said([1, np.nan])), 1, 1)
    assert "1 get another class" in verdict("onnx", compare(said([1, 2]), said([2, 1])), 1, 1)
    other_temperature = Said(calibrated(np.array([[1, 2]]), 1.1)[0], np.array([[1, 2]]))
    assert "differ by up to" in verdict("onnx", compare(said([1, 2]), other_temperature), 1, 1)


def test_eight_bits_may_lose_half_a_point():
    difference = compare(said([1, 2]), said([2, 1]))
    assert verdict("int8", difference, before=0.9, after=0.895) == ""
    assert verdict("int8", difference, before=0.9, after=1.0) == ""
    assert "falls by 0.60 points" in verdict("int8", difference, before=0.9, after=0.894)


def fake(monkeypatch: pytest.MonkeyPatch, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Let "onnx" and "int8" be files of any text, whose answers are those of the network, changed."""

    def opened(path: Path, bundle: Bundle) -> Answer:
        assert path.read_text() == "new"
        network = TorchNetwork(bundle, "cpu")
        return lambda pictures: calibrated(change(network.logits(list(pictures))), bundle.description.temperature)

    def written(path: Path, *_) -> None:
        (path.parent / "float32").mkdir()
        for file in (path, path.with_suffix(".json"), path.parent / "float32" / "model.onnx"):
            file.write_text("new")

    for kind in ("onnx", "int8"):
        monkeypatch.setitem(FORMATS, kind, FORMATS[kind]._replace(write=written, open=opened))
    monkeypatch.setattr(parity, "ROUNDS", 1)
    monkeypatch.setattr(parity, "SHORTEST", 0.0)


def test_a_file_that_answers_as_the_network_gets_its_name(
    bundle: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake(monkeypatch, lambda logits: logits)
    found = api.export(bundle, "onnx", data=str(pictures), images=30)
    assert found.path == tmp_path / "export" / "onnx" / "model.onnx"
    assert found.path.read_text() == "new"
    report = json.loads((found.path.parent / "parity.json").read_text())
    assert (report["pictures"], report["what"], report["problem"]) == (30, "pictures", "")
    assert report["ways"][-1]["bytes"] == len("new")  # not those of model.json
    assert sorted(path.name for path in found.path.parent.iterdir()) == ["model.json", "model.onnx", "parity.json"]


def test_a_file_that_does_not_leaves_what_was_there(
    bundle: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake(monkeypatch, lambda logits: logits[:, ::-1])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").write_text("old")
    result = CliRunner().invoke(
        mixlab, ["export", str(bundle), "--data", str(pictures), "--out", str(tmp_path / "out")]
    )
    assert isinstance(result.exception, CheckFailed)
    assert result.exception.exit_code == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]
    assert (tmp_path / "out" / "model.onnx").read_text() == "old"
    with pytest.raises(CheckFailed, match=r"get another class \(ONNX Runtime\)"):
        api.export(bundle, "int8", data=str(pictures))
    assert not (tmp_path / "export").exists()


def test_only_what_a_killed_export_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    (tmp_path / f".export.{killed.pid}.partial").mkdir()
    (tmp_path / ".browser.partial").write_text("of somebody else")
    with files_aside(tmp_path) as ours:
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with files_aside(tmp_path) as others:
            assert sorted(tmp_path.iterdir()) == sorted([tmp_path / ".browser.partial", ours, others])
    assert list(tmp_path.iterdir()) == [tmp_path / ".browser.partial"]


def test_those_that_calibrate_do_not_judge(bundle: Path, pictures: Path):
    model, data = read_bundle(bundle).description, api.data_sets.parse_data(str(pictures))
    judges = find_judges(None, data, model, 10, calibrate=True)
    assert len(judges.images) == 10
    assert len(judges.calibration) == 17
    assert not set(judges.images.names) & set(judges.calibration.names)
    assert set(judges.images.labels) == set(judges.calibration.labels) == {0, 1}
    judges = find_judges(None, data, model, 0)
    assert (len(judges.images), len(judges.calibration)) == (34, 0)
    assert not set(judges.images.names) & set(data.load(0, False).test.names), "test pictures are for evaluate alone"


def test_what_cannot_be_exported_is_said(bundle: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match="unknown kind of file 'onx'; did you mean onnx"):
        api.export(bundle, "onx")
    with pytest.raises(DataError, match="name some with --data"):
        export(bundle)
    with pytest.raises(UsageError, match="expected a folder; the file in it"):
        api.export(bundle, out=tmp_path / "birds.onnx", data=str(pictures))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make"):
        api.export(bundle, out=tmp_path / "file" / "below", data=str(pictures))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(RunError, match=r"pip install 'mixlab\[export\]'"):
        api.export(bundle)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RunError, match=r"pip install 'mixlab\[export,openvino\]'"):
        api.export(bundle, "openvino")
    for word in ("0", "-1", "many"):
        assert CliRunner().invoke(mixlab, ["export", "run", "--images", word]).exit_code == 2


ALONE = """
import sys
sys.modules["mixlab"] = None
import numpy, torch
extra = {"mixlab": ""}
module = torch.export.load(sys.argv[1], extra_files=extra).module()
pictures = torch.from_numpy(numpy.load(sys.argv[2]))
with torch.inference_mode():
    probabilities, logits = module(pictures)
numpy.save(sys.argv[3], logits.numpy())
print(extra["mixlab"], end="")
"""


@pytest.mark.slow
def test_a_torch_program_runs_without_mixlab(bundle: Path, pictures: Path, tmp_path: Path):
    path = api.export(bundle, "torch", data=str(pictures), out=tmp_path).path
    given = np.random.default_rng(0).integers(0, 256, (1, 1, 33, 3), dtype=np.uint8)
    np.save(tmp_path / "pictures.npy", given)
    words = [sys.executable, "-c", ALONE, path, tmp_path / "pictures.npy", tmp_path / "logits.npy"]
    found = subprocess.run(words, cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
    read = read_bundle(bundle)
    assert found.stdout == as_text(read.description)
    expected = TorchNetwork(read, "cpu").logits(list(given))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-5)


@pytest.mark.slow
def test_eight_bits_answer_nearly_the_same(bundle: Path, pictures: Path, tmp_path: Path):
    found = api.export(bundle, "int8", data=str(pictures), out=tmp_path, images=0)
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["model_int8.onnx", "parity.json"]
    assert 0 < found.parity.difference.logits < 0.5
    picture = next((pictures / "red").iterdir())
    answer, expected = api.load(found.path)(picture), api.load(bundle)(picture)
    np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=0.1)
    with pytest.raises(UsageError, match="computes in are its own"):
        api.load(found.path, precision="bfloat16")


@pytest.mark.slow
def test_openvino_answers_the_same(bundle: Path, pictures: Path, tmp_path: Path):
    openvino = pytest.importorskip("openvino")
    found = api.export(bundle, "openvino", data=str(pictures), out=tmp_path / "out")
    assert sorted(path.name for path in found.path.parent.iterdir()) == ["model.bin", "model.xml", "parity.json"]
    text = openvino.Core().read_model(found.path).get_rt_info(METADATA).value
    assert read_description(text, found.path) == read_bundle(bundle).description
    assert openvino_files.imported() is openvino


@pytest.mark.slow
def test_a_run_is_exported_into_its_own_folder(tiny: dict, tmp_path: Path):
    run = api.train(**tiny, out=tmp_path / "runs", quiet=True, workers=0, device="cpu")
    words = ["export", str(run.folder), "--json"]
    result = CliRunner().invoke(mixlab, words, catch_exceptions=False)
    found = json.loads(result.stdout)
    assert found["path"] == str(run.folder / "export" / "onnx" / "model.onnx")
    assert (found["what"], found["difference"]["misses"]) == ("validation", 0)
    assert api.load(found["path"]).spec == api.load(run.folder).spec
    unfinished = replace(run, folder=tmp_path / "unfinished")
    unfinished.folder.mkdir()
    unfinished.write_experiment(run.experiment)
    with pytest.raises(RunError, match="not finished"):
        exporting.export(unfinished)


@pytest.mark.slow
def test_rejection_goes_with_the_file(bundle: Path, pictures: Path, tmp_path: Path):
    path = api.export(bundle, "onnx", data=str(pictures), out=tmp_path / "out", reject_below=0.7).path
    assert api.load(path).reject_below == 0.7
