from pathlib import Path

import pytest

from mixlab.config import digest
from mixlab.errors import DataError, UsageError
from mixlab.experiment import Experiment, compose, parse_experiment, read_recipe

RECIPES = sorted(path.stem for path in Path(__file__).parent.parent.glob("src/mixlab/recipes/*.toml"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_an_experiment_and_goes_round_as_json(recipe: str):
    experiment = parse_experiment(read_recipe(recipe))
    assert parse_experiment(experiment.model_dump(mode="json")) == experiment
    assert digest(parse_experiment(experiment.model_dump(mode="json"))) == digest(experiment)


def test_flags_and_overrides_lie_over_the_recipe_of_the_data_set(pictures: Path):
    experiment = compose("", {"data": str(pictures), "optimizer.learning_rate": 0.5}, ["epochs=3", "model.dim=32"])
    assert experiment.data.name == "folder"
    assert experiment.data.path == str(pictures)
    assert experiment.data.canvas_scale == 1.125, "the recipe's own value stays"
    assert (experiment.epochs, experiment.optimizer.learning_rate) == (3, 0.5)
    assert (experiment.model.dim, experiment.model.depth) == (32, 8)


def test_a_published_size_replaces_the_recipes_model_and_fields_override_it():
    experiment = compose("", {"data": "digits", "model": "convmixer_128_4"}, ["model.kernel_size=7"])
    assert (experiment.model.dim, experiment.model.patch_size, experiment.model.kernel_size) == (128, 2, 7)


def test_another_optimiser_starts_from_its_own_defaults():
    experiment = compose("", {"optimizer.name": "sgd", "optimizer.learning_rate": 0.2}, [])
    assert experiment.optimizer.name == "sgd"
    assert experiment.optimizer.weight_decay == 0.0005


def test_a_recipe_file_is_the_base(tmp_path: Path):
    (tmp_path / "mine.toml").write_text('epochs = 7\ndata = "digits"\nmodel = "convmixer_64_4"\n')
    assert compose(tmp_path / "mine.toml", {}, ["seed=3"]).epochs == 7


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.kernal_size=9"], "unknown key model.kernal_size; did you mean kernel_size?"),
        (["epohs=9"], "unknown key epohs; did you mean epochs?"),
        (["epochs=-1"], "epochs=-1: should be greater than 0"),
        (["batch_size=many"], "batch_size='many'"),
        (["optimizer.name=adamww"], "unknown optimizer 'adamww'; did you mean adamw?"),
        (["augmentation.mix.mixpu=1"], "unknown key augmentation.mix.mixpu; did you mean mixup?"),
        (["model=convmixer_256_88"], "unknown model 'convmixer_256_88'; did you mean convmixer_256_8?"),
        (["accumulate=100", "batch_size=10"], "accumulate=100 is more than batch_size=10"),
        (["schedule_epochs=3", "epochs=5"], "schedule_epochs=3.0 is shorter than epochs=5.0"),
        (["freeze=true"], "freeze=true needs weights"),
    ],
)
def test_errors_name_key_value_and_way_out(overrides: list[str], message: str):
    with pytest.raises(UsageError) as caught:
        compose("", {}, overrides)
    assert message in str(caught.value)


def test_unknown_data_is_answered_with_the_nearest():
    with pytest.raises(DataError, match="did you mean digits"):
        compose("", {"data": "digit"}, [])


def test_digests_differ_between_experiments():
    assert digest(Experiment()) == digest(Experiment())
    assert digest(Experiment()) != digest(Experiment(seed=1))


def test_an_epoch_leaves_out_its_remainder_but_never_everything():
    experiment = Experiment(batch_size=64, epochs=2.5)
    assert experiment.steps_per_epoch(130) == 2
    assert experiment.steps(130) == 5
    assert experiment.steps_per_epoch(10) == 1
