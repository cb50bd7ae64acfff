import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from mixlab import api
from mixlab.data.balance import inverse_frequencies
from mixlab.errors import Interrupted, TrainingError, UsageError
from mixlab.experiment import compose_auto, parse_experiment
from mixlab.optim.optimizers import AdamWConfig, SGDConfig
from mixlab.run.folder import Run
from mixlab.training import loop, lr_files, plan, step
from mixlab.training import train as training
from mixlab.training.lr_range import SKIPPED, SMOOTHING, RangeTest, Sweep, smoothed, suggest, uninformed_loss
from mixlab.training.session import Options
from mixlab.training.train import find_learning_rate, resume, train

RATES = Sweep(high=1.0, steps=120).rates(SGDConfig())
STEP = RATES[1] / RATES[0]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(device="cpu", workers=0, out=tmp_path / "runs", quiet=True)


@pytest.fixture
def auto(options: Options) -> Options:
    return replace(options, auto_learning_rate=True)


def content(run: Run) -> dict[str, bytes]:
    """Everything of a run that only the experiment decides."""
    newest = max(run.checkpoints.glob("0*"))
    files = [newest / "tensors.safetensors", newest / "state.json", run.bundle / "model.safetensors"]
    files += [run.folder / name for name in ("metrics.jsonl", "summary.json", "experiment.json")]
    return {str(path.relative_to(run.folder)): path.read_bytes() for path in files}


def slope_down(steepest_at: float, width: float = 0.4) -> list[float]:
    """A loss that falls from 2.3 to 0.3 over log10(rate) as a logistic curve, steepest at a given rate."""
    return [0.3 + 2 / (1 + math.exp((math.log10(rate) - math.log10(steepest_at)) / width)) for rate in RATES]


@pytest.mark.parametrize("at", [1e-4, 1e-3, 0.03])
def test_the_steepest_rate_of_a_logistic_curve_is_its_middle(at: float):
    found = suggest(RATES, slope_down(at))
    assert found is not None
    assert found.steepest == pytest.approx(at, rel=STEP - 1)


def test_a_linear_sweep_finds_the_same_rate_although_its_points_crowd_at_the_upper_end():
    rates = Sweep(high=1.0, steps=400, shape="linear").rates(SGDConfig())
    noise = np.random.default_rng(0).normal(scale=0.01, size=400)
    losses = np.interp(np.log10(rates), np.log10(RATES), slope_down(0.05)) + noise
    found = suggest(rates, smoothed(losses.tolist()))
    assert found is not None
    assert 0.03 < found.steepest < 0.08


def test_the_minimum_tenth_is_a_tenth_of_the_rate_with_the_lowest_loss():
    losses = [2.3 - 0.01 * min(place, 80) + 0.2 * max(place - 80, 0) for place in range(len(RATES))]
    found = suggest(RATES, losses)
    assert found is not None
    assert found.minimum_tenth == pytest.approx(RATES[80] / 10, rel=0.01)
    assert found.steepest < RATES[80]


@pytest.mark.parametrize(
    "losses",
    [
        [2.3] * 120,
        [2.3 + 0.01 * place for place in range(120)],
        [2.3 - 0.01 * math.sin(place) for place in range(120)],
        [9.0, 7.0, 4.0, 2.5, 2.4, *[2.3] * 115],  # falls only while the average settles
    ],
    ids=["flat", "rising", "waves", "settling"],
)
def test_a_loss_that_never_falls_suggests_nothing(losses: list[float]):
    assert suggest(RATES, losses) is None


@pytest.mark.parametrize("seed", range(20))
def test_noise_suggests_nothing(seed: int):
    """Batches of 8 pictures differ by a fifth of their loss, and the lowest of 100 averages is far below the first."""
    losses = smoothed(np.random.default_rng(seed).normal(0.7, 0.14, 100).tolist())
    assert min(losses[SKIPPED:]) < 0.95 * np.mean(losses)
    assert suggest(RATES[:100], losses) is None


@pytest.mark.parametrize("seed", range(20))
def test_noise_before_and_a_fall_to_chance_hide_no_learning(seed: int):
    """As a ViT's: it begins above the loss of chance, falls there at rates at which it learns nothing, and then on."""
    rates = Sweep().rates(AdamWConfig())
    decades = np.log10(rates)
    curve = math.log(10) + 0.15 / (1 + np.exp((decades + 4.3) / 0.15)) - 0.2 / (1 + np.exp((-2.3 - decades) / 0.2))
    losses = smoothed((curve + np.random.default_rng(seed).normal(0, 0.06, len(rates))).tolist())
    found = suggest(rates, losses, math.log(10))
    assert found is not None
    assert 0.003 < found.steepest < 0.05


@pytest.mark.parametrize("seed", range(20))
def test_one_noisy_step_is_not_the_steepest(seed: int):
    noise = np.random.default_rng(seed).normal(0, 0.2, len(RATES))
    found = suggest(RATES, smoothed((np.array(slope_down(0.01)) + noise).tolist()))
    assert found is not None
    assert 0.005 < found.steepest < 0.06  # the average lags 4 steps, a factor of 1.6


@pytest.mark.parametrize(
    "fields", [{}, {"label_smoothing": 0.2}, {"class_weights": True, "label_smoothing": 0.1}, {"balanced": True}]
)
def test_knowing_nothing_costs_what_the_best_constant_answer_costs(tiny: dict, fields: dict):
    experiment = parse_experiment({**tiny, "batch_size": 1, "label_smoothing": 0.0, **fields})
    labels = np.array([0] * 30 + [1] * 6 + [3] * 12)
    shown = torch.from_numpy(labels[np.concatenate(experiment.order(labels, 0))])
    weights = torch.from_numpy(inverse_frequencies(labels, 4)) if experiment.class_weights else None
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")
    targets = functional.one_hot(shown, 4).double()

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        answers = logits.expand(len(targets), 4)
        found = functional.cross_entropy(answers, targets, weights, label_smoothing=experiment.label_smoothing)
        found.backward()
        return found

    optimizer.step(loss)
    assert uninformed_loss(experiment, labels, 4) == pytest.approx(loss().item(), rel=1e-3)


@pytest.mark.parametrize("count", range(SKIPPED + 3))
def test_too_few_points_suggest_nothing(count: int):
    assert suggest(RATES[:count], slope_down(0.01)[:count]) is None


@given(st.floats(-3, 3), st.floats(0.01, 100), st.floats(-4, -1))
def test_suggestions_scale_with_the_rates_and_ignore_the_unit_of_the_loss(shift: float, unit: float, at: float):
    losses = slope_down(10**at)
    plain, other = suggest(RATES, losses), suggest([10**shift * rate for rate in RATES], [unit * x for x in losses])
    assert plain is not None
    expected = [10**shift * rate for rate in plain]
    assert other == pytest.approx(expected, rel=STEP - 1 + 0.01)  # of two equal slopes either may win; three digits


@given(
    st.floats(-5, -0.5),
    st.lists(st.floats(0, 0.02), min_size=120, max_size=120),
    st.lists(st.floats(3, 1e6), max_size=20),
)
def test_suggestions_lie_before_the_lowest_loss_and_ignore_its_tail(at: float, noise: list[float], tail: list[float]):
    losses = [loss + extra for loss, extra in zip(slope_down(10**at), noise, strict=True)]
    rates = [*RATES, *[RATES[-1] * STEP ** (place + 1) for place in range(len(tail))]]
    found = suggest(RATES, losses)
    assert found is not None
    assert suggest(rates, [*losses, *tail]) == found
    lowest = RATES[SKIPPED + int(np.argmin(losses[SKIPPED:]))]
    assert RATES[SKIPPED] * 0.99 <= found.steepest <= lowest * 1.01
    assert found.minimum_tenth == pytest.approx(lowest / 10, rel=0.01)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_smoothing_is_a_weighted_mean_of_what_was_seen(losses: list[float]):
    for place, average in enumerate(smoothed(losses)):
        weights = [SMOOTHING ** (place - other) for other in range(place + 1)]
        expected = sum(w * x for w, x in zip(weights, losses, strict=False)) / sum(weights)
        assert average == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_rates_rise_from_end_to_end():
    assert RATES[0] == pytest.approx(1e-6)
    assert RATES[-1] == pytest.approx(1.0)
    assert np.diff(np.log(RATES)) == pytest.approx(math.log(STEP))
    assert np.diff(Sweep(shape="linear").rates(AdamWConfig())) == pytest.approx((0.1 - 1e-6) / 99)
    assert [Sweep().rates(config)[-1] for config in (SGDConfig(), AdamWConfig())] == pytest.approx([1.0, 0.1])


@pytest.mark.parametrize("values", [{"low": 0.1, "high": 0.01}, {"low": 0.5}, {"low": 0.1, "high": 0.1}])
def test_rates_that_do_not_rise_are_refused(values: dict):
    with pytest.raises(UsageError, match=r"the rate must rise.*--from"):
        Sweep.parse(values).rates(AdamWConfig())


@pytest.mark.parametrize("values", [{"steps": 3}, {"low": 0}, {"high": -1}, {"shape": "cubic"}, {"hihg": 1}])
def test_a_sweep_that_cannot_be_is_refused(values: dict):
    with pytest.raises(UsageError, match=next(iter(values))):
        Sweep.parse(values)


def test_the_same_seed_gives_the_same_test_with_any_workers(tiny: dict, options: Options):
    def found(seed: int, **given) -> RangeTest:
        return find_learning_rate(parse_experiment(tiny | {"seed": seed}), replace(options, **given), Sweep(steps=40))

    first = found(0)
    assert found(0) == found(0, stream=True, workers=2) == first
    assert found(1).losses != first.losses
    assert first.steepest is not None
    assert not options.out.exists()


def test_it_sees_the_batches_of_training(tiny: dict, options: Options):
    """With a rate that hardly rises its first epoch is the first epoch of a training at that rate."""
    values = tiny | {"schedule": {"name": "constant"}, "optimizer": {"name": "sgd", "learning_rate": 0.01}}
    values |= {"epochs": 1, "augmentation": {"horizontal_flip": {"probability": 0.5}, "mix": {"mixup": 0.3}}}
    experiment = parse_experiment(values)
    found = find_learning_rate(experiment, options, Sweep(low=0.01, high=0.01 + 1e-9, steps=20))
    row = train(experiment, options).metrics()[0]
    assert np.mean(found.raw_losses[: row["step"]]) == pytest.approx(row["train_loss"], rel=1e-5)


def test_it_starts_from_given_weights(tiny: dict, options: Options):
    source = train(parse_experiment(tiny | {"epochs": 6}), options)
    fresh = find_learning_rate(parse_experiment(tiny), options, Sweep(steps=20))
    tuned = find_learning_rate(parse_experiment(tiny | {"weights": str(source.folder)}), options, Sweep(steps=20))
    assert tuned.raw_losses[0] < fresh.raw_losses[0]


def test_it_stops_where_the_loss_diverges(tiny: dict, options: Options):
    experiment = parse_experiment(tiny | {"optimizer": {"name": "sgd"}, "clip_norm": 0})
    found = find_learning_rate(experiment, options, Sweep(high=1e8))
    assert len(found.rates) == len(found.losses) == len(found.raw_losses) < 100
    assert np.isfinite(found.losses).all()


def test_without_a_fall_there_is_a_note_and_no_rate(tiny: dict, options: Options, tmp_path: Path):
    found = find_learning_rate(parse_experiment(tiny), options, Sweep(low=1e-9, high=1e-8, steps=20))
    assert (found.steepest, found.minimum_tenth) == (None, None)
    assert found.note.startswith("the loss never fell from 1e-09 to 1e-08")
    with pytest.raises(TrainingError, match="--lr auto found no rate"):
        found.auto()
    lr_files.write(tmp_path, parse_experiment(tiny), found)
    assert json.loads((tmp_path / "lr_range.json").read_text())["steepest"] is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("losses", [slope_down(0.01), [2.3] * 120, [0.0] * 120])
def test_the_files_hold_what_was_measured(tiny: dict, tmp_path: Path, losses: list[float]):
    found = RangeTest(tuple(RATES), tuple(losses), tuple(losses), *(suggest(RATES, losses) or (None, None)))
    picture = lr_files.write(tmp_path, parse_experiment(tiny), found)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    rows = (tmp_path / "lr_range.csv").read_text().splitlines()
    assert rows[0] == "learning_rate,smoothed_loss,loss"
    assert [float(row.split(",")[0]) for row in rows[1:]] == RATES
    assert json.loads((tmp_path / "lr_range.json").read_text())["losses"] == losses


def test_lr_auto_trains_as_if_the_number_had_been_given(tiny: dict, options: Options, auto: Options):
    """Bit by bit: nothing of the range test lasts but its number."""
    values = tiny | {"weight_average": 0.9, "augmentation": {"mix": {"mixup": 0.4}}}
    values["model"] = tiny["model"] | {"dropout": 0.2, "drop_path": 0.2}
    chosen = train(parse_experiment(values), auto)
    rate = chosen.experiment.optimizer.learning_rate
    given = train(parse_experiment(values | {"optimizer": {"name": "adamw", "learning_rate": rate}}), options)
    assert content(chosen) == content(given)
    assert rate == find_learning_rate(parse_experiment(values), options, Sweep()).steepest
    assert f"lr       {rate:g}, by a range test" in chosen.log.read_text()
    assert {path.name for path in chosen.plots.iterdir()} >= {"lr_range.png", "lr_range.csv", "lr_range.json"}


def test_lr_auto_is_resolved_once(tiny: dict, auto: Options, monkeypatch: pytest.MonkeyPatch):
    """The same command goes on with, and returns, the run whose rate was measured; a number is another run."""
    experiment, real, taken = parse_experiment(tiny), step.train_step, []
    whole = train(experiment, replace(auto, out=auto.out / "whole"))

    def stopped(*arguments, **named):
        real(*arguments, **named)
        taken.append(1)
        if len(taken) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stopped)
        with pytest.raises(Interrupted):
            train(experiment, auto)
    monkeypatch.setattr(training, "measure", lambda *arguments: pytest.fail("measured again"))
    run = train(experiment, auto)
    assert content(run) == content(whole)
    assert train(experiment, auto) == run
    assert resume(run, Options(device="cpu", quiet=True)) == run
    assert train(run.experiment, replace(auto, auto_learning_rate=False)) != run


@pytest.mark.slow
def test_lr_auto_and_a_time_limit_share_the_time(tiny: dict, auto: Options, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plan, "_measure", lambda *arguments: (0.01, 0.0))  # 0.08 s a step, 3 steps an epoch
    experiment = parse_experiment(tiny | {"epochs": 50})
    run = train(experiment, replace(auto, max_seconds=17.0))
    assert run.experiment.epochs == pytest.approx(0.93 * (17.0 - 8.0) / 0.24, abs=0.01)
    assert run.experiment.optimizer.learning_rate != experiment.optimizer.learning_rate
    assert "17s-auto_lr" in run.name
    with pytest.raises(TrainingError, match="range test of --lr auto takes about 8 s, more than half of 15 s"):
        train(experiment, replace(auto, max_seconds=15.0))


def test_a_dry_run_counts_the_range_test_and_writes_nothing(tiny: dict, options: Options, auto: Options):
    found = training.plan(parse_experiment(tiny), auto)
    assert found.range_test_steps == 100
    assert found.seconds > found.range_test_seconds > 0
    assert any(line.startswith("lr       auto: range test of 100 steps") for line in found.lines())
    assert not any(line.startswith("lr ") for line in training.plan(parse_experiment(tiny), options).lines())
    assert not options.out.exists()


def test_auto_is_known_wherever_a_value_can_stand(tmp_path: Path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[optimizer]\nname = "sgd"\nlearning_rate = "auto"\n')
    key, word = "optimizer.learning_rate", "optimizer.learning_rate=auto"
    flag, override = compose_auto("", {key: "auto"}, ()), compose_auto("", {key: 0.5}, (word,))
    assert flag == override == compose_auto("", {"optimizer": {"learning_rate": "auto"}}, ())
    assert flag[1]
    assert compose_auto(recipe, {}, ())[1]
    experiment, is_auto = compose_auto(recipe, {key: "auto"}, (f"{key}=0.5",))
    assert (experiment.optimizer.learning_rate, is_auto) == (0.5, False)
    with pytest.raises(UsageError, match=r"optimizer\.learning_rate='fast'"):
        compose_auto("", {key: "fast"}, ())


@pytest.mark.slow
def test_python_has_the_same_words(tiny: dict, tmp_path: Path):
    named = {"device": "cpu", "workers": 0, "quiet": True}
    found = api.find_learning_rate(**tiny, **named, low=1e-5, steps=100)
    assert found.rates[0] == pytest.approx(1e-5)
    assert found == api.find_learning_rate(**tiny, **named, low=1e-5)
    run = api.train(**tiny, **named, out=tmp_path, lr="auto")
    assert run == api.train(**tiny, **named, out=tmp_path, learning_rate="auto")
    assert run.request.auto_learning_rate
    assert api.train(**tiny, **named, out=tmp_path, lr=0.003).experiment.optimizer.learning_rate == 0.003
