from pathlib import Path

import pytest

from mixlab.config import digest
from mixlab.errors import DataError, UsageError
from mixlab.experiment import Experiment, compose, parse_experiment
from mixlab.models.catalogue import ARCHITECTURES
from mixlab.models.inspection import parameters
from mixlab.spec import DataSpec

RECIPES = sorted(path.stem for path in Path(__file__).parent.parent.glob("src/mixlab/recipes/*.toml"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_an_experiment_and_goes_round_as_json(recipe: str):
    experiment = compose(recipe, {}, [])
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


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_a_size_that_fits_every_data_set(recipe: str, architecture: str, spec: DataSpec):
    experiment = compose(recipe, {"model": architecture}, [])
    assert experiment.model.name == architecture
    fitting = spec.model_copy(update={"image_size": experiment.data.image_size})
    assert parameters(experiment.model.build(fitting)) < 3_000_000


def test_what_a_recipe_has_for_an_architecture_lies_between_recipe_and_overrides(tmp_path: Path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'epochs = 7\nmodel = "convmixer_64_4"\n[for.vit]\nepochs = 8\nmodel = "vit_64_4_patch2"\n'
        "[for.vit.optimizer]\nlearning_rate = 0.5\nweight_decay = 0.25\n"
    )
    assert compose(recipe, {}, []).epochs == 7
    vit = compose(recipe, {"model": "vit", "optimizer.learning_rate": 0.125}, [])
    assert (vit.epochs, vit.model.patch_size) == (8, 2)
    assert (vit.optimizer.learning_rate, vit.optimizer.weight_decay) == (0.125, 0.25)
    assert compose(recipe, {"model": "vit_small_patch4"}, []).model.patch_size == 4
    recipe.write_text("[for.vitt]\nepochs = 8\n")
    with pytest.raises(UsageError, match=r"for\.vitt, which is no architecture; did you mean vit\?"):
        compose(recipe, {}, [])


def test_optimizer_and_schedule_may_be_names_or_fields_alone():
    experiment = compose("", {}, ["schedule=cosine", "optimizer=sgd"])
    assert (experiment.schedule.name, experiment.optimizer.name) == ("cosine", "sgd")
    assert parse_experiment({"optimizer": {"learning_rate": 0.5}}).optimizer.learning_rate == 0.5


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


def test_a_comparison_is_no_recipe(tmp_path: Path):
    (tmp_path / "mine.toml").write_text("[variants.a]\nepochs = 3")
    with pytest.raises(UsageError, match=r"mine\.toml describes a comparison: mixlab compare --file"):
        compose(tmp_path / "mine.toml", {}, [])


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
