import csv
import json
import os
import shlex
from pathlib import Path

import pytest
import torch

from mixlab.errors import RunError
from mixlab.experiment import Experiment
from mixlab.models.catalogue import parse_model
from mixlab.run import timing
from mixlab.run.bundle import Bundle, BundleDescription, read_bundle, write_bundle
from mixlab.run.checkpoint import Checkpoint, load_newest, save_checkpoint
from mixlab.run.folder import Request, Run, find_run, list_runs, open_run, remove_run
from mixlab.spec import DataSpec


def request(**fields) -> Request:
    return Request(experiment=Experiment(**fields))


def opened(root: Path, name: str = "a", **fields) -> Run:
    run = open_run(request(**fields), name, root, new=False)
    run.write_experiment(run.request.experiment)
    return run


def test_the_same_request_returns_to_its_folder_and_new_makes_another(tmp_path: Path):
    first = opened(tmp_path)
    assert open_run(request(), "a", tmp_path, new=False) == first
    assert open_run(request(), "a", tmp_path, new=True).name == "a-2"


def test_a_folder_with_another_experiment_is_refused_with_the_difference(tmp_path: Path):
    opened(tmp_path)
    with pytest.raises(RunError, match=r"holds another experiment \(seed is 0, not 3"):
        open_run(request(seed=3), "a", tmp_path, new=False)


@pytest.mark.parametrize("name", ["a/b", "..", "../x", ".", "/tmp/x"])
def test_a_name_is_one_folder(tmp_path: Path, name: str):
    with pytest.raises(RunError, match="is no name of a folder"):
        open_run(request(), name, tmp_path / "runs", new=False)
    assert not (tmp_path / "runs").exists()


def test_a_foreign_folder_is_left_alone(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="exists and is no run"):
        open_run(request(), "a", tmp_path, new=False)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["thesis.tex"]


def test_a_missing_run_is_answered_with_the_nearest(tmp_path: Path):
    opened(tmp_path, "digits-convmixer")
    with pytest.raises(RunError, match="did you mean digits-convmixer"):
        find_run("digits-convmixr", tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="is a folder, but no run"):
        find_run(tmp_path / "folder", tmp_path)
    with pytest.raises(RunError, match="holds no runs"):
        find_run("x", tmp_path / "none")


def test_two_processes_cannot_train_into_one_folder(tmp_path: Path):
    run = opened(tmp_path)
    with run.lock(), pytest.raises(RunError, match="another mixlab is training"), Run(run.folder).lock():
        pass


def test_removing_takes_the_whole_folder(tmp_path: Path):
    run = opened(tmp_path)
    assert [found.name for found in list_runs(tmp_path)] == ["a"]
    remove_run(run)
    assert not run.folder.exists()


def test_runs_are_listed_by_when_they_began_whatever_was_measured_since(tmp_path: Path):
    for began, name in ((1, "b"), (2, "a")):
        os.utime(opened(tmp_path, name).folder / "experiment.json", (began, began))
    Run(tmp_path / "b").evaluation("test")
    assert [found.name for found in list_runs(tmp_path)] == ["b", "a"]


def test_a_command_to_paste_has_the_folder_as_one_word(tmp_path: Path):
    run = opened(tmp_path / "my runs")
    with pytest.raises(RunError, match="is not finished") as refused:
        _ = run.summary
    assert shlex.split(str(refused.value).partition("go on with: ")[2])[-1] == str(run.folder)


def test_metrics_are_cut_back_to_the_checkpoint_and_half_lines_forgotten(tmp_path: Path):
    run = opened(tmp_path)
    for step in (10, 20, 30):
        run.add_metrics({"step": step, "train_loss": 0.1 + 0.2})
    whole = (run.folder / "metrics.jsonl").read_bytes()
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "tra')
    run.cut_metrics(3)
    assert (run.folder / "metrics.jsonl").read_bytes() == whole
    run.cut_metrics(2)
    assert [row["step"] for row in run.metrics()] == [10, 20]


def test_an_epoch_that_was_interrupted_has_one_speed_and_one_of_nothing_has_none():
    parts = [
        {"epoch": 1.0, "images": 300, "training_seconds": 3.0, "seconds": 3.5},
        {"epoch": 1.0, "images": 0, "training_seconds": 0.5, "seconds": 2.0},  # stopped in validation
        {"epoch": 2.0, "images": 100, "training_seconds": 0.5, "seconds": 0.6},
        {"epoch": 2.0, "images": 200, "training_seconds": 1.5, "seconds": 1.9},
    ]
    assert (timing.speed(parts[:2]), timing.speed(parts[2:]), timing.speed(parts[1:2])) == (100, 150, 0)
    assert (timing.median_speed(parts), timing.median_speed(parts[1:2]), timing.median_speed([])) == (125, 0, 0)
    assert timing.seconds(parts) == 8


def test_times_that_an_older_mixlab_wrote_are_read():
    rows = [
        {"epoch": float(place), "seconds": 2.0, "images_per_second": speed} for place, speed in [(1, 0.0), (2, 50.0)]
    ]
    assert (timing.median_speed(rows), timing.seconds(rows)) == (50, 4)


def rows_of_csv(run: Run) -> list[dict]:
    with (run.folder / "metrics.csv").open(newline="") as file:
        return [{name: json.loads(text) for name, text in row.items()} for row in csv.DictReader(file)]


def test_the_csv_has_the_rows_of_the_jsonl_to_the_last_digit(tmp_path: Path):
    run = opened(tmp_path)
    run.cut_metrics(0)
    assert rows_of_csv(run) == []
    for step in (10, 20, 30):
        run.add_metrics({"step": step, "train_loss": 0.1 + 0.2, "learning_rate": 1e-17 / step})
        assert rows_of_csv(run) == run.metrics()
    (run.folder / "metrics.csv").write_text("half a")  # a killed writer leaves the one before, and never half; yet
    run.cut_metrics(2)
    assert rows_of_csv(run) == run.metrics()
    assert len(run.metrics()) == 2


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((50,), float(step))}, {"epoch": step})


def test_two_checkpoints_are_kept_and_the_newest_intact_one_is_used(tmp_path: Path):
    run = opened(tmp_path)
    for step in (1, 2, 3):
        save_checkpoint(run, checkpoint(step))
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["00000002-0002", "00000003-0003"]
    newest, problems = load_newest(run)
    assert newest is not None
    assert (newest.step, newest.tensors["w"][0].item(), problems) == (3, 3.0, [])
    os.truncate(run.checkpoints / "00000003-0003" / "tensors.safetensors", 100)
    older, problems = load_newest(run)
    assert older is not None
    assert older.step == 2
    assert "does not match its SHA-256" in problems[0]
    save_checkpoint(run, checkpoint(4))
    kept = sorted(path.name for path in run.checkpoints.iterdir() if path.name[0].isdigit())
    assert kept == ["00000002-0002", "00000004-0004"], "a damaged one does not count"


def test_no_checkpoint_is_no_error(tmp_path: Path):
    assert load_newest(opened(tmp_path)) == (None, [])


def test_readings_of_a_split_are_counted(tmp_path: Path):
    run = opened(tmp_path)
    assert run.readings("test") == 0
    assert run.count_reading("test", 10) == 1
    assert run.count_reading("validation", 10) == 1
    assert run.count_reading("test", 10) == 2


@pytest.fixture
def bundle(tmp_path: Path, spec: DataSpec) -> Path:
    model = parse_model({"name": "convmixer", "dim": 4, "depth": 1})
    description = BundleDescription(mixlab="0", model=model, spec=spec, temperature=1.5)
    write_bundle(tmp_path / "bundle", Bundle(description, model.build(spec).state_dict()), "card")
    return tmp_path / "bundle"


def test_a_bundle_goes_round(bundle: Path, spec: DataSpec):
    found = read_bundle(bundle)
    assert found.description.spec == spec
    assert found.description.temperature == 1.5
    assert not found.build().training


def test_a_damaged_bundle_is_refused(bundle: Path):
    content = bytearray((bundle / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (bundle / "model.safetensors").write_bytes(content)
    with pytest.raises(RunError, match="does not match the SHA-256"):
        read_bundle(bundle)
    (bundle / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"is no bundle: model\.safetensors is missing"):
        read_bundle(bundle)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.complex64, torch.bool, torch.float16])
def test_weights_of_other_numbers_are_refused(bundle: Path, kind: torch.dtype):
    found = read_bundle(bundle)
    state = {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in found.state.items()}
    write_bundle(bundle, Bundle(found.description, state), "")
    with pytest.raises(RunError, match=rf"is {str(kind).removeprefix('torch.')} .*; expected float32"):
        read_bundle(bundle)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": 3}', '{"mixlab": "1"', '{"mixlab":"1","evil":1}'])
def test_a_strange_description_is_refused_in_one_line(bundle: Path, text: str):
    (bundle / "bundle.json").write_text(text)
    with pytest.raises(RunError, match=r"cannot be used|bundle\.json is damaged"):
        read_bundle(bundle)


def test_a_bundle_is_json_and_safetensors_only(bundle: Path):
    assert {path.name for path in bundle.iterdir()} == {
        "README.md",
        "bundle.json",
        "manifest.json",
        "model.safetensors",
    }
    json.loads((bundle / "bundle.json").read_text())


def test_a_run_that_never_began_gives_its_name_to_another(tmp_path: Path):
    open_run(Request(experiment=Experiment(seed=1)), "run", tmp_path, new=False)
    again = open_run(Request(experiment=Experiment(seed=2)), "run", tmp_path, new=False)
    assert again.request.experiment.seed == 2
