import csv
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mixlab.cli import launch
from mixlab.cli import main as cli
from mixlab.cli.common import size_bytes
from mixlab.cli.predict import find_pictures
from mixlab.data import downloads
from mixlab.errors import DataError, UsageError
from mixlab.experiment import Experiment
from mixlab.run.folder import Run
from tests.run.foreign_networks import of_timm


def mixlab(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    """Run one command in this process: exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["mixlab", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.fixture
def call(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIXLAB_DATA", str(tmp_path / "home"))
    return lambda *words: mixlab(capsys, monkeypatch, *words)


SMALL = ("model.dim=8", "model.depth=1", "model.patch_size=2", "data.image_size=16", "batch_size=8", "--workers", "0")


def train(call, pictures: Path, *words: str) -> tuple[int, str, str]:
    return call("train", "--data", str(pictures), "--epochs", "2", *SMALL, *words)


def test_a_whole_life_of_a_run(call, pictures: Path):
    code, out, err = train(call, pictures, "--json")
    assert code == 0
    run = json.loads(out)["run"]
    assert "epoch 2/2" in err
    code, out, _ = call("evaluate", run, "--json")
    assert (code, json.loads(out)["readings"]) == (0, 1)
    code, out, _ = call("predict", run, str(pictures / "red"), "--json", "--top", "2")
    found = json.loads(out)["predictions"]
    assert (code, len(found), len(found[0]["top"])) == (0, 20, 2)
    code, out, _ = call("runs", "list", "--json")
    assert json.loads(out)["runs"][0]["state"] == "finished"
    code, out, _ = call("runs", "show", Path(run).name)
    assert "model.dim = 8" in out
    assert call("runs", "rm", run, "--yes")[0] == 0
    assert not Path(run).exists()


def test_predict_reports_a_bad_file_in_its_row_and_goes_on(call, pictures: Path, tmp_path: Path, monkeypatch):
    run = json.loads(train(call, pictures, "--json")[1])["run"]
    (tmp_path / "bad.jpg").write_text("text")
    code, out, _ = call("predict", run, str(tmp_path / "bad.jpg"), str(pictures / "red" / "0.png"))
    assert code == 1
    assert "cannot be read" in out.splitlines()[0]
    assert "%" in out.splitlines()[1]
    code, out, _ = call("predict", run, str(pictures / "*" / "1.png"), "--csv", "--top", "1")
    assert (code, len(out.splitlines())) == (0, 3)
    stdin = io.TextIOWrapper(io.BytesIO((pictures / "red" / "0.png").read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert call("predict", run, "-")[0] == 0
    assert call("predict", run, "*.nothing")[0] == 2


def test_answers_are_computed_in_the_precision_that_is_asked_for(call, pictures: Path):
    run, picture = json.loads(train(call, pictures, "--json")[1])["run"], str(pictures / "red" / "0.png")
    texts = [call("predict", run, picture, "--json", *words)[1] for words in ([], ["--precision", "bfloat16"])]
    exact, rounded = (json.loads(text)["predictions"][0]["top"][0]["probability"] for text in texts)
    assert exact != rounded == pytest.approx(exact, abs=0.02)
    code, out, _ = call("evaluate", run, "--split", "validation", "--precision", "bfloat16", "--against", run)
    assert code == 0
    assert "computed in bfloat16" in out
    assert ", there in float32 " in out
    assert call("predict", run, picture, "--precision", "half")[0] == 2


def test_predict_says_unknown_below_a_confidence(call, pictures: Path):
    run, picture = json.loads(train(call, pictures, "--json")[1])["run"], str(pictures / "red" / "0.png")
    assert "  unknown (" in call("predict", run, picture, "--reject-below", "1")[1]
    assert json.loads(call("predict", run, picture, "--reject-below", "1", "--json")[1])["predictions"][0]["unknown"]
    assert "unknown (" not in call("predict", run, picture)[1]
    code, _, err = call("predict", run, picture, "--reject-below", "precision=0.9999")
    assert (code, "validation images cannot vouch for precision=0.9999" in err) == (1, True)
    code, _, err = call("predict", run, picture, "--reject-below", "often")
    assert (code, "reject below often: expected a confidence such as 0.7" in err) == (2, True)


def test_a_checkpoint_is_imported_used_and_fine_tuned(call, pictures: Path, tmp_path: Path):
    torch.save(of_timm(8, 1, 3, 4, 2).state_dict(), tmp_path / "timm.pth")
    (tmp_path / "names.txt").write_text("blue\nred\n")
    place = str(tmp_path / "bundle")
    words = ("--classes", str(tmp_path / "names.txt"), "--image-size", "16", "--mean", "0.5,0.5,0.5")
    code, out, _ = call("import", str(tmp_path / "timm.pth"), "--out", place, *words)
    assert (code, out.splitlines()[0]) == (
        0,
        "convmixer_custom: dim 8, depth 1, kernel 3, patch 4, gelu; 2 classes, 16 px",
    )
    features = tmp_path / "features.npz"
    code, out, err = call("predict", place, str(pictures / "red"), "--features", str(features), "--csv")
    assert (code, len(out.splitlines()), "features of 20 pictures, 8 numbers each" in err) == (0, 21, True)
    assert np.load(features)["features"].shape == (20, 8)
    code, out, _ = call("train", "--data", str(pictures), "--weights", place, "--dry-run", "--json")
    assert (code, json.loads(out)["model"], json.loads(out)["image_size"]) == (0, "convmixer_custom", 16)
    assert call("evaluate", place)[0] == 1
    for words, text in (
        (("--out", place), "exists; choose another --out"),
        (("--out", f"{place}2", "--mean", "a"), "expected a number for each channel"),
        (("--out", f"{place}2", "--classes", "none.txt"), "none.txt cannot be read"),
        ((), "Missing option '--out'"),
    ):
        code, _, err = call("import", str(tmp_path / "timm.pth"), *words)
        assert (code > 0, text in err, len(err.splitlines())) == (True, True, 1)
    code, _, err = call("predict", place, str(pictures), "--features", "features.csv")
    assert (code, "expected a file that ends in .npz" in err) == (2, True)


def test_predict_goes_on_after_an_empty_folder_and_has_no_more_columns_than_classes(
    call, pictures: Path, tmp_path: Path
):
    run = json.loads(train(call, pictures, "--json")[1])["run"]
    (tmp_path / "empty").mkdir()
    picture = str(pictures / "red" / "0.png")
    code, out, err = call("predict", run, str(tmp_path / "empty"), picture, "*.nothing", "--top", "99", "--csv")
    assert code == 1
    assert err.splitlines() == [
        f"skipped  the folder {tmp_path / 'empty'} holds no pictures",
        "skipped  no file matches *.nothing",
    ]
    header, row = csv.reader(out.splitlines())
    assert header == ["file", "class_1", "probability_1", "class_2", "probability_2", "unknown", "error"]
    assert (len(row), row[0], row[-2:]) == (7, picture, ["0", ""])
    code, _, err = call("predict", run, str(tmp_path / "empty"), "*.nothing")
    assert (code, "holds no pictures; no file matches *.nothing" in err) == (2, True)
    code, _, err = call("predict", run, "")
    assert (code, "no file matches ''" in err) == (2, True)
    code, _, err = call("explain", run, str(tmp_path / "empty"))
    assert (code, "holds no pictures" in err) == (2, True)


def test_a_folder_to_predict_is_searched_as_training_searches_it(pictures: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "crimson").symlink_to(pictures / "red")
    (tmp_path / "links" / "up").symlink_to(tmp_path)
    for name in ("links/._0.png", "links/.hidden/0.png", "links/__MACOSX/red/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("what macOS adds")
    (tmp_path / "links" / "loose.png").write_bytes((pictures / "red" / "0.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    crimson = [f"links/crimson/{index}.png" for index in range(20)]
    assert find_pictures(["links"]) == ([(name, Path(name)) for name in [*crimson, "links/loose.png"]], [])
    monkeypatch.chdir(tmp_path / "links")
    assert find_pictures(["."])[0][-1] == ("loose.png", Path("loose.png"))


def test_a_folder_that_cannot_be_read_is_named_before_anything_is_predicted(tmp_path: Path, monkeypatch):
    def listdir(place):
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr("mixlab.data.folder.os.listdir", listdir)
    with pytest.raises(DataError, match=r"cannot read folder .*: Permission denied"):
        find_pictures([str(tmp_path)])


def test_explain_lists_what_it_drew_and_reports_a_bad_file(call, pictures: Path, tmp_path: Path):
    run = json.loads(train(call, pictures, "--json")[1])["run"]
    (tmp_path / "bad.jpg").write_text("text")
    code, out, err = call("explain", run, str(tmp_path / "bad.jpg"), str(pictures / "red" / "0.png"))
    assert code == 1
    assert "bad.jpg cannot be read: not an image" in err
    assert "heat_0.png" in out
    assert out.splitlines()[-1] == f"written  {run}/explain (4 pictures, explain.json)"
    code, out, _ = call("explain", run, str(pictures / "red" / "0.png"), "--json")
    assert (code, len(json.loads(out)["files"])) == (0, 4)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["trian"], 2, "No such command 'trian'. Did you mean 'train'?"),
        (["train", "--epoch", "3"], 2, "--epochs"),
        (["train", "--epochs", "many"], 2, "'many' is not a valid float"),
        (["train", "epochs"], 2, "expected key=value"),
        (["train", "model.kernal_size=9"], 2, "unknown key model.kernal_size; did you mean kernel_size?"),
        (["train", "--model", "convmixer_256_9"], 2, "did you mean convmixer_256_8"),
        (["train", "--data", "cifar11"], 1, "did you mean cifar10"),
        (["train", "--data", "./brids"], 1, "brids does not exist"),
        (["train", "--data", "cifar10"], 1, "Add --download"),
        (["train", "--epochs", "0"], 2, "epochs=0"),
        (["train", "--precision", "float8"], 2, "precision='float8'"),
        (["train", "--optimizer", "adamww"], 2, "did you mean adamw"),
        (["train", "-c", "none.toml"], 2, "cannot read none.toml"),
        (["train", "--device", "cuda", "--epochs", "1"], 2, "this machine has only"),
        (["train", "--device", "gpu"], 2, "unknown device 'gpu'"),
        (["train", "--max-time", "soon"], 2, "expected a time such as"),
        (["train", "--resume", "none"], 1, "there is no run none"),
        (["train", "--resume", "none", "--epochs", "3"], 2, "leave out --epochs"),
        (["evaluate", "none"], 1, "there is no run none"),
        (["predict", "none", "x.jpg"], 1, "there is no run none"),
        (["predict", "none", "~nosuchuser/x.jpg"], 1, "there is no such user"),
        (["evaluate", "~nosuchuser/x"], 1, "there is no such user"),
        (["report", "~nosuchuser/x"], 1, "there is no such user"),
        (["train", "data.labels_csv=~nosuchuser/x.csv", "--data", ".", "--out", "../r"], 1, "there is no such user"),
        (["train", "--data", "."], 2, "lies in the data's folder"),
        (["explain", "none"], 1, "there is no run none"),
        (["models", "show", "resnot"], 2, "unknown model 'resnot'; did you mean resnet?"),
        (["compare", "--models", "convmixer,vit", "--budget", "epochs=2", "--epochs", "3"], 2, "both say how long"),
        (["compare", "--models", "convmixer,vit", "--budget", "images=1e6", "epochs=3"], 2, "both say how long"),
        (["compare", "--data", "digits"], 2, "nothing to compare"),
        (["compare", "--models", "convmixer", "--seeds", "0"], 2, "--seeds 0"),
        (["compare", "--models", "convmixer", "seed=7"], 2, "one alone: --seeds 7,"),
        (["reproduce", "e3", "seed=5"], 2, "one alone: --seeds 7,"),
        (["compare", "--models", "convmixer", "--vary", "model.dim=3"], 2, "--vary model.dim=3"),
        (["compare", "--file", "none.toml"], 2, "cannot read"),
        (["report", "none"], 1, "there is no run none"),
        (["reproduce", "e3-txt"], 2, "did you mean e3-text?"),
        (["reproduce", "e1b"], 1, "cifar10 is not at"),
        (["data", "check", "nowhere"], 1, "neither a data set nor a folder"),
        (["data", "check", "digits", "--sheet", "sheet.jpg"], 2, "expected a file that ends in .png"),
        (["data", "check", "digits", "--resize-mode", "pad"], 2, "unknown key data.resize_mode"),
        (["data", "check", "home"], 1, "home holds no images to train on"),
        (["data", "check", "digits", "--fail-on", "nere"], 2, "'nere' is not one of 'exact', 'near'"),
        (["train", "--class-weights", "--balanced"], 2, "choose one"),
        (["data", "download", "digits"], 1, "cannot be downloaded"),
        (["runs", "show", "none"], 1, "there is no run none"),
        (["train", "--data", ""], 2, "expected the name of a data set"),
        (["train", "--data", "~nosuchuser/x"], 1, "there is no such user"),
        (["train", "--device", "cpu:1"], 2, "only CUDA devices have numbers"),
        (["train", "--save-every", "soon"], 2, "--save-every soon"),
        (["train", "--resume", "none", "--dry-run"], 2, "leave out --dry-run"),
        (["train", "data.image_size=100000"], 2, "data.image_size=100000"),
        (["train", "--lr", "fast"], 2, "'fast' is neither a number nor auto"),
        (["train", "--resume", "none", "--lr", "auto"], 2, "leave out --lr"),
        (["lr-fnd"], 2, "No such command 'lr-fnd'. Did you mean 'lr-find'?"),
        (["lr-find", "--form", "1e-5"], 2, "--from"),
        (["lr-find", "--from", "0.1", "--to", "0.01"], 2, "the rate must rise, and does not from 0.1 to 0.01"),
        (["lr-find", "--from", "0.2"], 2, "the rate must rise, and does not from 0.2 to 0.1"),
        (["lr-find", "--from", "0"], 2, "--from"),
        (["lr-find", "--steps", "5"], 2, "--steps"),
        (["lr-find", "--shape", "cubic"], 2, "'cubic' is not one of"),
        (["lr-find", "model.kernal_size=9"], 2, "did you mean kernel_size?"),
        (["lr-find", "--data", "./brids"], 1, "brids does not exist"),
        (["models", "show", "convmixer_256_8", "nonsense.dim=5"], 2, "unknown key nonsense.dim"),
    ],
)
def test_a_mistake_gets_one_line_and_its_exit_code(call, tmp_path: Path, words: list[str], code: int, message: str):
    (tmp_path / "home").mkdir(exist_ok=True)
    found, out, err = call(*words)
    assert found == code, err
    assert message in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert out == ""
    assert {path.name for path in tmp_path.iterdir()} <= {"home", "runs", "pictures"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["train", "--data", "digits"], 2, "WORLD_SIZE=2, but RANK, MASTER_ADDR, MASTER_PORT not set"),
        (["train", "--data", "~nosuchuser/x"], 1, "there is no such user"),
        (["runs", "list"], 2, "only mixlab train runs in several processes (WORLD_SIZE=2); start runs alone"),
    ],
)
def test_a_process_that_is_not_told_its_rank_says_what_is_wrong(
    call, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, message: str
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    found, _, err = call(*words)
    assert found == code
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RANK", "first", "RANK=first: expected the number of this process, 0 to 1"),
        ("RANK", "2", "RANK=2: expected the number of this process, 0 to 1"),
        ("MASTER_PORT", "http", "MASTER_PORT=http: expected the number of a port"),
    ],
)
def test_a_rank_that_is_told_nonsense_says_so(
    call, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
):
    told = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29632", name: value}
    for key, text in told.items():
        monkeypatch.setenv(key, text)
    assert call("train", "--data", "digits") == (2, "", f"error: {message}\n")


@pytest.mark.parametrize(("encoding", "shown"), [("cp1252", b"\\u0444"), ("utf-8", "\u0444".encode())])
def test_words_that_a_terminal_cannot_show_are_spelt_out(encoding: str, shown: bytes):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"}
    found = subprocess.run([sys.executable, "-m", "mixlab", "\u0444"], env=environment, capture_output=True)
    assert found.returncode == 2
    assert found.stderr.startswith(b"error: No such command '" + shown + b"'")


def test_names_that_are_not_utf8_are_written_with_their_own_bytes(call):
    call("--version")
    assert "\udcff".encode("utf-8", "mixlab") == b"\xff"
    assert "\ud800".encode("utf-8", "mixlab") == rb"\ud800"
    assert "\udcff".encode("cp1252", "mixlab") == rb"\udcff"


def test_a_misspelled_folder_is_answered_with_its_neighbour(call, pictures: Path):
    code, _, err = call("train", "--data", str(pictures.parent / "picture"))
    assert code == 1
    assert f"Did you mean {pictures}" in err


def test_a_name_that_holds_another_experiment_is_refused(call, pictures: Path):
    assert train(call, pictures, "--name", "mine")[0] == 0
    code, _, err = train(call, pictures, "--name", "mine", "--seed", "4")
    assert code == 1
    assert "holds another experiment (seed is 0, not 4)" in err


def test_a_dry_run_prints_the_plan_and_writes_nothing(call, pictures: Path, tmp_path: Path):
    code, out, _ = train(call, pictures, "--dry-run")
    assert code == 0
    assert "28 training, 6 validation, 6 test images" in out
    assert "parameters" in out
    assert not (tmp_path / "runs").exists()


def test_lr_find_prints_points_suggestions_and_its_picture(call, pictures: Path):
    words = ("lr-find", "--data", str(pictures), *SMALL, "--from", "1e-5", "--steps", "40")
    code, out, err = call(*words)
    assert code == 0, err
    assert len(out.splitlines()) > 12
    assert "steepest fall" in out
    assert "minimum / 10" in out
    folder = Path("runs/lr-find-pictures-convmixer_custom")
    assert out.splitlines()[-1].endswith(f"{folder}/lr_range.png")
    assert {path.name for path in folder.iterdir()} == {"lr_range.png", "lr_range.csv", "lr_range.json"}
    found = json.loads(call(*words, "--json")[1])
    assert found["rates"][0] == pytest.approx(1e-5)
    assert f"{found['steepest']:g}" in out
    assert (found["folder"], len(found["losses"])) == (str(folder), 40)
    code, out, _ = call("runs", "list")
    assert (code, "holds no runs yet" in out) == (0, True)


def test_a_home_folder_is_found_behind_an_equals_sign(call, pictures: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    code, out, err = train(call, pictures, "--out=~/my runs", "--name", "q")
    assert code == 0, err
    assert shlex.split(out.splitlines()[-2]) == ["next", "mixlab", "evaluate", str(tmp_path / "my runs" / "q")]
    assert json.loads(call("runs", "list", "--out=~/my runs", "--json")[1])["runs"][0]["run"] == "q"
    assert not Path("~").exists()


def test_counts_are_shown_with_all_their_digits(call):
    run = Run(Path("runs/a"))
    run.folder.mkdir(parents=True)
    run.write_experiment(Experiment())
    run.add_metrics({"epoch": 12345.5, "step": 1234567, "train_loss": 0.123456})
    _, out, _ = call("runs", "show", "a")
    assert out.splitlines()[-3].split() == ["12,345.5", "1,234,567", "0.1235"]


def test_lr_auto_starts_and_returns_one_run(call, pictures: Path):
    first, again = (json.loads(train(call, pictures, "--lr", "auto", "--json")[1]) for _ in range(2))
    assert first == again
    assert "-auto_lr-" in first["run"]
    code, out, _ = call("runs", "show", first["run"])
    assert (code, "optimizer.learning_rate = 0.01\n" in out) == (0, False)


def test_processes_that_start_again_go_on_with_the_folder_that_new_made(call, pictures: Path, monkeypatch):
    starts = []
    monkeypatch.setattr(launch, "start", lambda processes, words: starts.append((processes, words)))
    assert train(call, pictures, "--name", "q")[0] == 0
    assert train(call, pictures, "--nproc", "2", "--name", "q", "--new", "--", "seed=0")[0] == 0
    ((processes, words),) = starts
    assert (processes, "--new" in words, words[-2:]) == (2, False, ["--", "seed=0"])
    for _ in range(2):
        code, out, _ = call(*words[:-2], "--nproc", "1", "--json", *words[-2:])
        assert (code, Path(json.loads(out)["run"]).name) == (0, "q-2")
    assert {path.name for path in Path("runs").iterdir()} == {"q", "q-2"}


def test_models_can_be_listed_and_shown(call):
    code, out, _ = call("models", "list")
    assert code == 0
    assert "convmixer_1536_20" in out
    code, out, _ = call("models", "show", "convmixer_256_10")
    assert "741,130" in out.splitlines()[-1]
    assert "blocks.0.depthwise.0" in out


def test_the_cache_is_shown_used_and_cleared(call, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MIXLAB_CACHE", str(tmp_path / "cache"))
    assert call("data", "cache") == (0, f"nothing in {tmp_path / 'cache' / 'pixels'}\n", "")
    code, _, err = train(call, pictures, "--cache")
    assert (code, err.count("cache    decoding")) == (0, 2)
    assert "decoding" not in train(call, pictures, "--new")[2]
    code, out, _ = call("data", "cache")
    assert (code, out.count(str(pictures)), "3 x 16 x 16" in out) == (0, 2, True)
    found = json.loads(call("data", "cache", "--json")[1])
    assert [each["kind"] for each in found["kept"]] in (["training", "evaluation"], ["evaluation", "training"])
    code, out, _ = call("data", "cache", "--clear")
    assert out.endswith(f"in {tmp_path / 'cache' / 'pixels'}, removed\n")
    assert call("data", "cache")[1].startswith("nothing")
    monkeypatch.setenv("MIXLAB_CACHE", str(pictures / "blue" / "0.png"))
    code, _, err = train(call, pictures, "--cache", "--new")
    assert (code, err.count("cannot be kept"), err.count("going on without it")) == (0, 1, 1)


def test_data_commands(call, pictures: Path):
    (pictures / "red" / "bad.jpg").write_text("text")
    code, out, _ = call("data", "check", str(pictures))
    assert (code, "red/bad.jpg (not an image" in out) == (0, True)
    assert call("data", "check", str(pictures), "--strict")[0] == 3
    code, out, _ = call("data", "stats", "digits", "--json")
    assert len(json.loads(out)["classes"]) == 10


def test_a_damaged_run_does_not_hide_the_others(call, pictures: Path):
    train(call, pictures, "--name", "good")
    train(call, pictures, "--name", "bad")
    Path("runs/bad/summary.json").write_text("{")
    code, out, err = call("runs", "list")
    assert (code, "damaged" in out, "finished" in out) == (0, True, True)
    assert "summary.json cannot be read" in err


def test_an_unknown_class_in_validation_can_be_left_out(call, pictures: Path, tmp_path: Path):
    for split in ("train", "val"):
        shutil.copytree(pictures, tmp_path / "parts" / split)
    shutil.copytree(pictures / "red", tmp_path / "parts" / "val" / "kestrel")
    code, _, err = train(call, tmp_path / "parts")
    assert code == 1
    assert "has a class that training does not: 'kestrel' (20 images). Add it, or pass --ignore-unknown-classes" in err
    code, out, _ = train(call, tmp_path / "parts", "--ignore-unknown-classes", "--json")
    assert code == 0
    run = json.loads(out)["run"]
    shutil.rmtree(tmp_path / "parts" / "train")
    other = ("--data", str(tmp_path / "parts" / "val"))
    assert "'kestrel'" in call("evaluate", run, *other)[2]
    code, out, err = call("evaluate", run, *other, "--ignore-unknown-classes")
    assert (code, "left out 20 pictures of kestrel" in err, "40 pictures" in out) == (0, True, True)
    assert call("evaluate", run, "--ignore-unknown-classes")[0] == 2


@pytest.mark.parametrize(
    "words", [("--data", "cifar10", "--match-parameters", "convmixer"), ("--data", "imagenette160")]
)
def test_a_comparison_fetches_its_data_before_it_needs_them(call, monkeypatch: pytest.MonkeyPatch, words: tuple):
    def fetch(name: str) -> None:
        raise DataError(f"asked for {name}")

    monkeypatch.setattr(downloads, "fetch", fetch)
    code, _, err = call("compare", "--models", "convmixer,vit", *words, "--download")
    assert (code, err) == (1, f"error: asked for {words[1]}\n")


def test_the_doctor_resumes_exactly(call):
    code, out, _ = call("doctor")
    assert code == 0
    assert "bit for bit" in out


def test_help_does_not_wait_for_torch():
    script = "import sys; import mixlab.cli.main; print('torch' in sys.modules or 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_every_command_explains_itself(call):
    for words in (
        [],
        ["train"],
        ["evaluate"],
        ["predict"],
        ["lr-find"],
        ["explain"],
        ["import"],
        ["compare"],
        ["report"],
        ["reproduce"],
        ["models", "show"],
        ["runs", "rm"],
        ["data", "check"],
        ["doctor"],
    ):
        code, out, _ = call(*words, "--help")
        assert code == 0
        assert "Usage: mixlab" in out


def test_data_check_fails_on_what_it_is_asked_to_and_draws_a_sheet_outside_the_data(call, pictures: Path):
    assert call("data", "check", str(pictures))[0] == 0
    shutil.copy(pictures / "blue" / "0.png", pictures / "red" / "0-copy.png")
    (pictures / "rows.csv").write_text("blue/0.png,a\nblue/1.png,a\nred/1.png,b\nred/0-copy.png,b,test\n")
    words = ("data", "check", str(pictures), "data.labels_csv=rows.csv")
    code, out, err = call(*words)
    assert code == 3
    assert "leak        1 group of exact copies in two splits (1 train and test, 1 in two classes): blue/0.png" in out
    assert err.startswith(f"error: {pictures}: 1 group of exact copies in two splits")
    assert [call(*words, "--fail-on", on)[0] for on in ("near", "unreadable", "never")] == [3, 0, 0]
    code, out, _ = call(*words, "--json", "--sheet", "sheets/sheet.png", "--resize-mode", "pad", "data.image_size=16")
    found = json.loads(out)
    assert found["resize_mode"] == "pad"
    assert [place["split"] for place in found["findings"][-2]["items"][0]] == ["train", "test"]
    assert Path("sheets/sheet.png").read_bytes().startswith(b"\x89PNG")
    before = set(pictures.rglob("*"))
    code, _, err = call(*words, "--sheet", str(pictures / "blue" / "sheet.png"))
    assert (code, set(pictures.rglob("*"))) == (2, before)
    assert "is inside the data set's own folder" in err


def test_pack_prints_what_it_wrote_and_names_what_it_left_out(call, pictures: Path):
    (pictures / "red" / "3.png").write_text("no picture")
    code, out, err = call("data", "pack", str(pictures), "packed", "--shard-size", "20KB", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["counts"]["train"] == {"blue": 20, "red": 19}
    assert list(found["left_out"]) == ["red/3.png"]
    assert err.count("packed   train/") == found["shards"] > 1
    code, out, _ = call("data", "stats", "packed", "--json")
    assert sum(sum(counts.values()) for counts in json.loads(out)["splits"].values()) == 39
    code, _, err = call("data", "pack", str(pictures), "packed")
    assert (code, "is there already" in err) == (1, True)
    code, _, err = call("data", "pack", "digits", "other")
    assert (code, "nothing to pack" in err) == (1, True)


@pytest.mark.parametrize(
    ("text", "size"), [("256MB", 256_000_000), ("1.5 GiB", 3 * 2**29), ("2k", 2000), ("4096", 4096), ("10B", 10)]
)
def test_sizes(text: str, size: int):
    assert size_bytes("--shard-size", text) == size


@pytest.mark.parametrize("text", ["", "0", "-1MB", "MB", "1XB", "1 M B", "1e6"])
def test_what_is_no_size(text: str):
    with pytest.raises(UsageError, match="expected a size such as 256MB"):
        size_bytes("--shard-size", text)
