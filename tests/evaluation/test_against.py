import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

import mixlab
from mixlab.cli import main as cli
from mixlab.errors import DataError
from mixlab.evaluation.paired import paired_difference
from mixlab.evaluation.predictions import Prediction
from mixlab.evaluation.regression import Against, Flip, changes_of
from mixlab.run.bundle import Bundle, read_bundle, write_bundle
from mixlab.run.folder import Run


@pytest.fixture(scope="module")
def trained(drawn: Path, tiny_on, tmp_path_factory: pytest.TempPathFactory) -> Run:
    values = tiny_on(drawn) | {"epochs": 5}
    return mixlab.train(**values, out=tmp_path_factory.mktemp("runs"), quiet=True, device="cpu", workers=0)


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy that a test may spoil."""
    return Run(shutil.copytree(trained.folder, tmp_path / "runs" / trained.name))


def turned(run: Run, folder: Path) -> Path:
    """Write a bundle that says blue where the run says red, and red where it says blue."""
    bundle = read_bundle(run)
    state = bundle.state | {name: -bundle.state[name] for name in ("classifier.weight", "classifier.bias")}
    write_bundle(folder, Bundle(bundle.description, state), "")
    return folder


def test_a_model_against_itself_changes_nothing(run: Run):
    found = mixlab.evaluate(run, workers=0, against=run).against
    assert found is not None
    assert (found.flips, found.difference.verdict, found.failures()) == ((), "within noise", [])


def test_few_pictures_prove_nothing_even_where_none_changed(run: Run):
    found = mixlab.evaluate(run, workers=0, against=run, margin=10).against
    assert found is not None
    [problem] = found.failures()
    assert problem.startswith("top-1 may be 5")
    assert problem.endswith(f" points worse than that of {run.name}, more than 10 points")


def test_every_flip_is_named_with_what_both_said(run: Run, others: Path, tmp_path: Path):
    found = mixlab.evaluate(run, data=others, workers=0, against=turned(run, tmp_path / "turned")).against
    assert found is not None
    assert (found.here, found.there, found.difference.verdict, found.failures()) == (1.0, 0.0, "better", [])
    with (found.folder / "flips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["image"] for row in rows} == {path.relative_to(others).as_posix() for path in others.glob("*/*.png")}
    assert all((row["change"], row["here"]) == ("won", row["class"]) != ("won", row["there"]) for row in rows)
    assert (found.folder / "won.png").read_bytes().startswith(b"\x89PNG")
    assert not (found.folder / "lost.png").exists()
    assert json.loads((found.folder / "against.json").read_text())["won"] == 40


def test_a_worse_model_is_refused_with_the_classes_that_got_worse(run: Run, others: Path, tmp_path: Path):
    before = tmp_path / "before"
    shutil.copytree(run.bundle, before)
    turned(run, run.bundle)
    found = mixlab.evaluate(run, data=others, workers=0, against=before).against
    assert found is not None
    top1, blue, red = found.failures()
    assert top1.startswith("top-1 is worse than that of ")
    assert top1.endswith("by 78.17 to 100.00 points")
    assert (blue, red) == ("class blue is worse: 20 lost, 0 won", "class red is worse: 20 lost, 0 won")


def test_a_margin_asks_for_a_proof(tmp_path: Path):
    """One picture of 40 more wrong is within noise, but does not show that the model is at most a point worse."""
    difference = paired_difference([np.arange(40) > 0], [np.arange(40) >= 0])
    assert difference.verdict == "within noise"
    told = [
        Against(tmp_path, "before", difference, 0.975, 1.0, (), (), margin, {}, 0).failures()
        for margin in (None, 0.01, 0.20)
    ]
    assert (told[0], told[2]) == ([], [])
    assert told[1] == ["top-1 may be 16.50 points worse than that of before, more than 1 points"]


@pytest.mark.parametrize(("lost", "won"), [(0, 3), (5, 1), (9, 0), (12, 4), (30, 31)])
def test_a_class_is_tested_exactly_and_all_classes_together(lost: int, won: int):
    """As scipy's binomial test, times the number of classes (Holm, 1979)."""
    wrong, right = Prediction("a", "b", 0.5), Prediction("a", "a", 0.5)
    answers = [Flip("", "a", wrong, right)] * lost + [Flip("", "a", right, wrong)] * won
    answers += [Flip("", name, right, right) for name in "bcd"]
    [change] = changes_of(answers)
    alone = binomtest(lost, lost + won, alternative="greater").pvalue
    assert change.p_value == pytest.approx(min(1.0, 4 * alone))
    assert (change.name, change.lost, change.won, change.images) == ("a", lost, won, lost + won)


def test_a_class_that_is_new_is_left_out(run: Run, tiny: dict, pictures: Path, tmp_path: Path):
    more = tmp_path / "more"
    shutil.copytree(pictures, more)
    shutil.copytree(more / "red", more / "rot")
    data = tiny["data"] | {"name": str(more)}
    later = mixlab.train(**tiny | {"data": data}, out=tmp_path / "runs", quiet=True, device="cpu", workers=0)
    found = mixlab.evaluate(later, workers=0, against=run).against
    assert found is not None
    assert (found.unknown_there, found.difference.images) == ({"rot": 3}, 6)


def test_pictures_that_the_other_one_learned_are_left_out(tiny: dict, pictures: Path, tmp_path: Path):
    """A folder that has grown is carved anew, and what is test now was training then."""
    run = mixlab.train(**tiny, out=tmp_path / "runs", quiet=True, device="cpu", workers=0)
    for name in ("blue", "red"):
        for index in range(20, 60):
            shutil.copy(pictures / name / f"{index % 20}.png", pictures / name / f"{index}.png")
    later = mixlab.train(**tiny, name="later", out=tmp_path / "runs", quiet=True, device="cpu", workers=0)
    found = mixlab.evaluate(later, workers=0, against=run).against
    assert found is not None
    learned = {*run.read_splits()["train"], *run.read_splits()["validation"]}
    test = later.read_splits()["test"]
    assert 0 < found.learned_there == sum(name in learned for name in test)
    assert found.difference.images == len(test) - found.learned_there
    assert run.readings("test") == 1


def test_no_class_in_common_is_said_before_test_is_read(run: Run, tmp_path: Path):
    bundle = read_bundle(run)
    spec = bundle.description.spec.model_copy(update={"classes": ("green", "yellow")})
    write_bundle(tmp_path / "other", Bundle(bundle.description.model_copy(update={"spec": spec}), bundle.state), "")
    with pytest.raises(DataError, match="knows none of these classes: blue, red; it knows green, yellow"):
        mixlab.evaluate(run, workers=0, against=tmp_path / "other")
    assert run.readings("test") == 0


def test_the_command_ends_with_3_where_the_model_is_worse(run: Run, others: Path, tmp_path: Path, monkeypatch, capsys):
    good = tmp_path / "good"
    shutil.copytree(run.bundle, good)
    turned(run, run.bundle)
    words = ["evaluate", str(run.folder), "--data", str(others), "--against", str(good), "--workers", "0"]
    monkeypatch.setattr(sys, "argv", ["mixlab", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 3
    assert "changed  0 won, 40 lost" in out
    assert "lost blue/" in out
    assert err.startswith("error: top-1 is worse than that of ")
