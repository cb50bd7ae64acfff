import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mixlab
from mixlab import devices
from mixlab.comparison import compare as comparing
from mixlab.comparison.compare import compare, folder_of, is_comparison, read_comparison
from mixlab.comparison.compose import ComparisonFile, compose_request
from mixlab.comparison.request import Budget, ComparisonRequest, Variant
from mixlab.data.catalogue import parse_data
from mixlab.errors import Interrupted, RunError, TrainingError, UsageError
from mixlab.evaluation import leaderboard
from mixlab.experiment import Experiment, parse_experiment
from mixlab.optim.optimizers import AdamWConfig
from mixlab.run.checkpoint import load_newest
from mixlab.run.folder import Run, list_runs
from mixlab.training import loop, step
from mixlab.training import plan as training_plan
from mixlab.training.plan import Plan
from mixlab.training.session import Options


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(device="cpu", workers=0, out=tmp_path / "runs", quiet=True)


def request_of(tiny: dict, seeds: int = 2, **variants: dict) -> ComparisonRequest:
    chosen = variants or {
        "wide": {"model": {"dim": 12}},
        "resnet": {"model": {"name": "resnet9", "width": 4}},
    }
    file = ComparisonFile(seeds=seeds, experiment=tiny | {"epochs": 2}, variants=chosen)
    return compose_request(file, (), (), {}, ())


def test_every_variant_and_seed_is_trained_and_its_test_images_read_once(tiny: dict, options: Options):
    lines: list[str] = []
    found = compare(request_of(tiny), options, say=lines.append)
    board = found.leaderboard
    assert {row.name for row in board.rows} == {"wide", "resnet"}
    for row in board.rows:
        assert [run.seed for run in row.runs] == [0, 1]
        assert all(run.readings == 1 for run in row.runs)
        assert row.mean("top1") == sum(run.top1 for run in row.runs) / 2
    [pair] = board.pairs
    first, second = ({row.name: row for row in board.rows}[name] for name in (pair.first, pair.second))
    assert pair.difference.value == pytest.approx(first.mean("top1") - second.mean("top1"))
    assert (pair.difference.seeds, pair.difference.images) == (2, 6)
    assert "no claim about training variance" in board.headline()
    assert len([line for line in lines if "/4 " in line]) == 4
    assert read_comparison(found.folder) == found
    splits: dict[int, list] = {}
    for run in list_runs(options.out):
        splits.setdefault(run.experiment.seed, []).append(run.read_splits())
    assert all(len(each) == 2 and each[0] == each[1] for each in splits.values()), "a seed has one split for all"
    assert splits[0][0] != splits[1][0]


def test_finished_runs_are_not_repeated(tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch):
    first = compare(request_of(tiny, seeds=1), options)
    steps: list[int] = []
    monkeypatch.setattr(loop, "train_step", lambda *arguments: steps.append(1))
    again = compare(request_of(tiny, seeds=1), options)
    assert (again.folder, again.leaderboard, steps) == (first.folder, first.leaderboard, [])


def test_an_interrupted_comparison_goes_on_as_if_it_never_stopped(
    tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch
):
    whole = compare(request_of(tiny, seeds=1), options)
    real, taken = step.train_step, []

    def counted(*arguments, **named):
        real(*arguments, **named)
        taken.append(1)
        if len(taken) == 9:  # inside the second run
            os.kill(os.getpid(), signal.SIGTERM)

    other = Options(device="cpu", workers=0, out=options.out / "again", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", counted)
        with pytest.raises(Interrupted, match=r"saved at step .; the same command goes on with the comparison"):
            compare(request_of(tiny, seeds=1), other)
    assert sorted(run.is_finished for run in list_runs(other.out)) == [False, True]
    again = compare(request_of(tiny, seeds=1), other)
    assert [_without_clock(row) for row in again.leaderboard.rows] == [
        _without_clock(row) for row in whole.leaderboard.rows
    ]
    assert again.leaderboard.pairs == whole.leaderboard.pairs


def test_a_variant_that_fails_is_reported_and_the_others_go_on(tiny: dict, options: Options):
    request = request_of(
        tiny, seeds=1, good={"epochs": 3}, bad={"clip_norm": 0.0, "optimizer": {"learning_rate": 1e30}}
    )
    found = compare(request, options)
    good, bad = found.leaderboard.rows
    assert (good.name, len(good.runs), len(good.failures)) == ("good", 1, 0)
    assert (bad.name, len(bad.runs)) == ("bad", 0)
    assert "left a number that is not finite" in bad.failures[0].reason
    assert found.leaderboard.pairs == ()
    assert found.leaderboard.differing == {}, "a row without a run was not compared"
    page = found.report().read_text()
    assert "Failed: bad, seed 0: step " in page


def test_where_every_run_fails_the_reason_is_named(tiny: dict, options: Options):
    with pytest.raises(TrainingError, match=r"not one of 1 runs finished; the first: step \d+ left"):
        compare(request_of(tiny, 1, bad={"clip_norm": 0.0, "optimizer": {"learning_rate": 1e30}}), options)


@pytest.mark.slow
def test_several_at_once_give_what_one_after_the_other_gives(tiny: dict, options: Options):
    one = compare(request_of(tiny, seeds=1), options)
    two = compare(request_of(tiny, seeds=1), Options(device="cpu", workers=0, out=options.out / "two"), jobs=2)
    assert [_without_clock(row) for row in two.leaderboard.rows] == [
        _without_clock(row) for row in one.leaderboard.rows
    ]


def _signalled(number: int, to_group: bool, folder: Path) -> tuple[int, str]:
    """Start a comparison of two trainings at once, send a signal when both have saved; return code and words."""
    words = "compare --data digits --models convmixer_64_4 --seeds 2 --jobs 2 --budget epochs=1000 --device cpu".split()
    words += ["--out", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "mixlab", *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        while len(list(folder.glob("digits-*/checkpoints/0*/manifest.json"))) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        (os.killpg if to_group else os.kill)(process.pid, number)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_trainings_that_run_at_once_save_where_the_comparison_is_stopped(number: int, to_group: bool, tmp_path: Path):
    """Ctrl-C on a terminal and a scheduler signal the whole group, `kill` the one process that was started."""
    code, said = _signalled(number, to_group, tmp_path)
    assert code == 130, said
    steps = sorted(int(step) for step in re.findall(r"convmixer_64_4 seed \d saved at step (\d+)", said))
    checkpoints = [checkpoint for run in list_runs(tmp_path) if (checkpoint := load_newest(run)[0])]
    assert steps == sorted(checkpoint.step for checkpoint in checkpoints), said
    assert len(steps) == 2, said


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told_of_it(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text("import mixlab\nmixlab.compare(['convmixer_64_4'], data='digits', epochs=1, seeds=2, jobs=2)\n")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "ended with exit code 1 before it could train" in done.stderr
    assert '`if __name__ == "__main__":` around the call' in done.stderr


@pytest.mark.slow
def test_trainings_save_and_end_where_the_comparison_is_killed(tmp_path: Path):
    _signalled(signal.SIGKILL, to_group=False, folder=tmp_path)
    for run in list_runs(tmp_path):
        for _ in range(400):
            with contextlib.suppress(RunError), run.lock():
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"{run.folder} is still trained")


def test_a_time_is_left_to_each_run(tiny: dict, options: Options):
    file = ComparisonFile(budget="time=2s", experiment=tiny | {"epochs": 100000}, variants={"a": {}})
    found = compare(compose_request(file, (), (), {}, ()), options)
    [row] = found.leaderboard.rows
    assert row.runs[0].epochs < 100000
    assert found.leaderboard.budget == "2 seconds each"


def test_watched_test_accuracy_is_shown_as_optimistic(tiny: dict, options: Options):
    values = {"protocol": "published"}
    found = compare(request_of(tiny, 1, a=values, b=values | {"model": {"dim": 4}}), options)
    assert all(row.runs[0].best_watched is not None for row in found.leaderboard.rows)
    assert all(row.runs[0].validation_top1 is None for row in found.leaderboard.rows)
    assert "would be optimistic" in found.report().read_text()


def test_rows_rank_by_validation_and_say_so_where_test_disagrees():
    def row(name: str, validation: float, test: float) -> leaderboard.Row:
        values = {"run": name, "seed": 0, "epochs": 1, "chosen_epoch": 1, "seconds": 1, "images_per_second": 1}
        values |= {"train_top1": 0.5, "validation_top1": validation, "top1": test, "top5": 1, "loss": 1, "ece": 0.1}
        run = leaderboard.Measured(**values, best_watched=None, readings=1)
        return leaderboard.Row(name=name, model="m", parameters=1, macs=1, runs=(run,))

    rows = leaderboard.rank(
        [row("b", 0.7, 0.9), row("a", 0.8, 0.6), leaderboard.Row(name="c", model="m", parameters=1, macs=1)]
    )
    assert [each.name for each in rows] == ["a", "b", "c"]
    images = [f"{number:04}" for number in range(1000)]
    answers = {name: {0: {image: int(image) < right for image in images}} for name, right in (("a", 600), ("b", 900))}
    pairs = leaderboard.pairs_of(rows, answers | {"c": {}})
    board = leaderboard.Leaderboard(data="d", protocol="honest", budget="", seeds=(0,), rows=rows, pairs=pairs)
    assert board.headline().startswith("a is chosen by validation but loses on test to b: -30.0 points")


def test_differing_fields_name_what_was_not_kept_equal(tiny: dict):
    request = request_of(tiny, 1, a={}, b={"batch_size": 4, "model": {"dim": 4}})
    found = leaderboard.differing_fields({each.name: each.experiment for each in request.variants})
    assert found == {"batch_size": {"a": 8, "b": 4}}


@pytest.mark.slow
def test_what_runs_found_out_is_said_to_differ(tiny: dict, options: Options, monkeypatch: pytest.MonkeyPatch):
    def fitted(experiment: Experiment, plan: Plan, seconds: float) -> Experiment:
        return experiment.model_copy(update={"epochs": 1 + experiment.seed / 4 if experiment.model.width == 4 else 2})

    monkeypatch.setattr(training_plan, "fit_epochs", fitted)
    variants = {"found": {"model": {"dim": 4}, "optimizer": {"learning_rate": "auto"}}, "given": {}}
    file = ComparisonFile(seeds=2, budget="time=10h", experiment=tiny, variants=variants)
    found = compare(compose_request(file, (), (), {}, ()), options)
    rates = [run.experiment.optimizer.learning_rate for run in found.runs("found")]
    assert rates[0] != rates[1], "the oracle needs two"
    assert found.leaderboard.differing == {
        "epochs": {"found": [1, 1.25], "given": 2},
        "optimizer.learning_rate": {"found": sorted(rates), "given": AdamWConfig().learning_rate},
    }
    text = found.report().read_text()
    assert "<td>1 to 1.25</td><td>2</td>" in text
    assert "The learning rate of found was tuned, by a range test before each run; nothing else was." in text
    assert "one was tuned" not in text
    assert "The same number of epochs" not in text


def test_the_api_compares_and_reports(pictures: Path, tmp_path: Path):
    found = mixlab.compare(
        data=pictures,
        vary={"model.dim": [4, 8]},
        epochs=1,
        batch_size=8,
        out=tmp_path / "runs",
        workers=0,
        **{"data.image_size": 16, "model.depth": 1},
    )
    assert {row.name for row in found.leaderboard.rows} == {"dim=4", "dim=8"}
    path = found.report(tmp_path / "mine.html")
    assert path.read_text().startswith("<!doctype html>")
    assert mixlab.report(found.folder) == found.folder / "report.html"
    (run,) = found.runs("dim=4")
    assert (is_comparison(found.folder), is_comparison(run.folder)) == (True, False)
    assert (run.experiment.model.width, run.experiment.data.image_size) == (4, 16)
    assert mixlab.report(run.folder) == run.folder / "report.html"
    with pytest.raises(UsageError, match=r"no row 'dim=5'; did you mean dim=[48]"):
        found.runs("dim=5")


def test_the_api_compares_named_variants(pictures: Path, tmp_path: Path):
    variants = {"narrow": {"model": {"name": "convmixer", "dim": 4, "depth": 1}}, "vit": {"model": "vit_64_4_patch2"}}
    options = {"data": pictures, "epochs": 1, "batch_size": 8, "out": tmp_path, "workers": 0, "data.image_size": 16}
    found = mixlab.compare(variants=variants, seeds=[3], **options)
    assert {row.name: row.model for row in found.leaderboard.rows} == {
        "narrow": "convmixer_custom",
        "vit": "vit_64_4_patch2",
    }
    assert [run.experiment.seed for run in found.runs("vit")] == [3]
    with pytest.raises(UsageError, match=r"variants\.vit"):
        mixlab.compare(variants={"vit": "vit_64_4_patch2"}, **options)  # pyright: ignore[reportArgumentType]


def test_models_that_are_compared_have_one_precision(tiny: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "is_fast_in_bfloat16", lambda device: True)
    convolutions, attention = parse_experiment(tiny), parse_experiment(tiny | {"model": "vit_64_4_patch2"})

    def found(*experiments: Experiment) -> list[str]:
        return [each.precision for each in comparing._in_one_precision(experiments, torch.device("cpu"))]

    assert found(convolutions, convolutions) == ["auto", "auto"]
    assert found(convolutions, attention) == ["float32", "float32"]
    asked_for = convolutions.model_copy(update={"precision": "bfloat16"})
    assert found(asked_for, attention) == ["bfloat16", "float32"]


def test_what_is_no_comparison_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match="no finished comparison"):
        read_comparison(tmp_path)
    (tmp_path / "leaderboard.json").write_text(json.dumps({"rows": 3}))
    with pytest.raises(RunError, match="cannot be read"):
        read_comparison(tmp_path)


def test_a_leaderboard_prints_itself_as_a_table():
    runs = tuple(_measured(seed).model_copy(update={"top1": 0.9 + seed / 100}) for seed in range(2))
    rows = (
        leaderboard.Row(name="wide", model="m", parameters=1234567, macs=2_500_000, runs=runs),
        leaderboard.Row(name="bad", model="m", parameters=5, macs=0),
    )
    board = leaderboard.Leaderboard(data="d", protocol="honest", budget="", seeds=(0, 1), rows=rows)
    assert str(board).splitlines() == [
        "#  model  parameters  M MACs      val top-1     test top-1            ECE   img/s",
        "1  wide    1,234,567     2.5  50.00% ± 0.00  90.50% ± 0.71  10.00% ± 0.00       1",
        "2  bad             5     0.0                                               failed",
        "wide: test top-1 90.50%.",
    ]


def test_a_comparison_that_has_not_finished_is_named_as_one(tiny: dict, options: Options):
    found = compare(request_of(tiny, 1, a={}), options)
    (found.folder / "leaderboard.json").unlink()
    with pytest.raises(RunError, match=r"is no finished comparison.* its command goes on with it"):
        mixlab.report(found.folder)


def test_a_device_that_is_not_there_starts_nothing(tiny: dict, options: Options):
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        compare(request_of(tiny), replace(options, device="gpu"))
    assert not options.out.exists()


def test_variants_that_one_budget_makes_equal_are_refused(tiny: dict, options: Options):
    variants = [Variant(name=str(epochs), experiment=parse_experiment(tiny | {"epochs": epochs})) for epochs in (5, 10)]
    request = ComparisonRequest(variants=variants, budget=Budget(kind="epochs", amount=1))
    with pytest.raises(UsageError, match="5 and 10 are the same experiment"):
        compare(request, options)
    assert not options.out.exists()


@pytest.mark.parametrize(
    ("option", "way_out"),
    [
        ({"name": "same"}, "name='same' is for a single training: .*give out="),
        ({"new": True}, "new=True is for a single training: .*give another out="),
        ({"max_seconds": 0.001}, r'max_seconds=0\.001 is for a single training: .*give budget="time=\.\.\."'),
    ],
)
def test_options_of_a_single_training_are_refused(tiny: dict, options: Options, option: dict, way_out: str):
    with pytest.raises(UsageError, match=way_out):
        mixlab.compare(variants={"a": {}}, **tiny, out=options.out, device="cpu", workers=0, quiet=True, **option)
    assert not options.out.exists()


def test_the_folder_depends_on_the_request_alone(tiny: dict, tmp_path: Path):
    assert folder_of(request_of(tiny), tmp_path) == folder_of(request_of(tiny), tmp_path)
    assert folder_of(request_of(tiny), tmp_path) != folder_of(request_of(tiny, seeds=3), tmp_path)
    assert comparing.SPLIT == "test"


def _without_clock(row: leaderboard.Row) -> leaderboard.Row:
    runs = tuple(run.model_copy(update={"seconds": 0.0, "images_per_second": 0.0}) for run in row.runs)
    return row.model_copy(update={"runs": runs})


def test_what_cannot_be_read_is_named_on_screen_and_in_the_report(tiny: dict, pictures: Path, options: Options):
    for index in range(6):
        (pictures / "red" / f"{index}.png").write_bytes(b"no picture")
    lines: list[str] = []
    found = compare(request_of(tiny, 2, a={}), options, say=lines.append)
    named = [line for line in lines if line.startswith("skipped")]
    unreadable = found.leaderboard.rows[0].runs[0].unreadable
    assert len(unreadable) == 6
    assert set(unreadable) & set(parse_data(str(pictures)).load(0, True).test.names), "some are test files"
    assert named == [f"skipped  {name}: {reason}" for name, reason in unreadable.items()]
    page = found.report().read_text()
    splits = Run(found.folder.parent / found.leaderboard.rows[0].runs[0].run).read_splits()
    readable = sum(name not in unreadable for name in splits["train"])
    assert f"{readable} train" in page
    assert "6, left out" in page


def test_what_was_finished_before_is_said_and_not_timed(tiny: dict, options: Options):
    compare(request_of(tiny, 1, a={}), options)
    lines: list[str] = []
    compare(request_of(tiny, 1, a={}), options, say=lines.append)
    assert "finished before" in lines[-1]
    assert "left" not in lines[-1]


def test_below_three_seeds_nothing_is_said_of_models_but_of_trained_ones():
    def board(seeds: int) -> leaderboard.Leaderboard:
        images = [f"{number:04}" for number in range(1000)]
        answers = {
            name: {seed: {image: int(image) < right + seed for image in images} for seed in range(seeds)}
            for name, right in (("a", 900), ("b", 600))
        }
        rows = tuple(
            leaderboard.Row(
                name=name, model="m", parameters=1, macs=1, runs=tuple(_measured(seed) for seed in range(seeds))
            )
            for name in answers
        )
        pairs = leaderboard.pairs_of(rows, answers)
        return leaderboard.Leaderboard(
            data="d", protocol="honest", budget="", seeds=tuple(range(seeds)), rows=rows, pairs=pairs
        )

    assert board(2).headline().startswith("a as trained here does better on test than b by 30.0 points")
    assert "another seed may turn it round" in board(2).headline()
    assert board(3).headline().startswith("a beats b by 30.0 points")
    assert board(3).pairs[0].by_seed == (pytest.approx(0.3),) * 3


def _measured(seed: int) -> leaderboard.Measured:
    values = {"run": f"run{seed}", "seed": seed, "epochs": 1, "chosen_epoch": 1, "seconds": 1, "images_per_second": 1}
    values |= {"train_top1": 0.5, "validation_top1": 0.5, "top1": 0.5, "top5": 1, "loss": 1, "ece": 0.1}
    return leaderboard.Measured(**values, best_watched=None, readings=1)
