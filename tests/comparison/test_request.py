from pathlib import Path

import pytest

from mixlab.comparison.budget import cost_of, matched, with_budget
from mixlab.comparison.compare import costs
from mixlab.comparison.compose import ComparisonFile, compose_request, read_file
from mixlab.comparison.request import Budget, parse_budget, parse_seeds, parse_vary, read_seeds
from mixlab.data.catalogue import DigitsConfig
from mixlab.errors import UsageError
from mixlab.experiment import Experiment
from mixlab.models.catalogue import ARCHITECTURES, parse_model
from mixlab.models.inspection import parameters
from mixlab.run.bundle import Bundle, BundleDescription, write_bundle
from mixlab.spec import DataSpec
from mixlab.training import fine_tuning

TOML = """
seeds = [4, 7]
budget = "images=5000"

[experiment]
data = "digits"
batch_size = 32
optimizer = { name = "adamw", learning_rate = 0.01 }

[variants.small]
model = "convmixer_64_4"

[variants.vit]
model = { name = "vit_64_4_patch2", depth = 2 }
optimizer = { learning_rate = 0.005 }
"""


def request(file: ComparisonFile | None = None, models: tuple = (), vary: tuple = (), **values):
    return compose_request(file or ComparisonFile(), models, vary, values, ())


def test_a_file_gives_variants_seeds_and_budget(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    found = request(read_file(path))
    assert found.seeds == (4, 7)
    assert found.budget == Budget(kind="images", amount=5000)
    small, vit = (variant.experiment for variant in found.variants)
    assert [variant.name for variant in found.variants] == ["small", "vit"]
    assert (small.batch_size, vit.batch_size) == (32, 32)
    assert (vit.model.name, vit.model.depth, vit.model.dim) == ("vit", 2, 64)
    assert (small.optimizer.learning_rate, vit.optimizer.learning_rate) == (0.01, 0.005)


def test_models_get_what_the_data_sets_recipe_has_for_them():
    convmixer, resnet = (each.experiment for each in request(models=("convmixer", "resnet9"), data="digits").variants)
    assert (convmixer.model.dim, resnet.model.name) == (64, "resnet9")
    assert convmixer.optimizer.learning_rate != resnet.optimizer.learning_rate
    assert convmixer.augmentation == resnet.augmentation


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A bundle whose model and preprocessing no recipe has."""
    spec = DataSpec(image_size=20, classes=("x", "y"), mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3), resize_mode="squash")
    model = parse_model({"name": "vit", "dim": 12, "depth": 1, "heads": 2, "patch_size": 4})
    described = BundleDescription(mixlab="", model=model, spec=spec)
    write_bundle(tmp_path / "old", Bundle(described, model.build(spec).state_dict()), "")
    return str(tmp_path / "old")


def experiments_of(file: ComparisonFile, *models: str, **values) -> list[Experiment]:
    return [each.experiment for each in request(file, models, **values).variants]


def test_weights_bring_their_model_and_preprocessing_as_for_a_single_training(weights: str, pictures: Path):
    values = {"data": str(pictures), "weights": weights}
    found = request(vary=(("freeze", [False, True]),), **values).variants
    assert [each.experiment for each in found] == [
        fine_tuning.compose("", values | {"freeze": freeze}, ()) for freeze in (False, True)
    ]
    own, named = experiments_of(
        ComparisonFile(variants={"own": {}, "named": {"model": {"name": "convmixer", "dim": 8}}}), **values
    )
    assert own == found[0].experiment
    assert (named.model.name, named.model.width, named.data.image_size) == ("convmixer", 8, 20)
    assert [each.model.name for each in experiments_of(ComparisonFile(), "vit", "resnet9", **values)] == [
        "vit",
        "resnet9",
    ]


def test_what_a_file_says_of_a_model_or_of_data_leaves_the_rest_to_the_weights(weights: str):
    shared = {"weights": weights, "model": {"dropout": 0.2}, "data": "imagenette160"}
    variants = {"a": {}, "b": {"model": {"pool": "mean"}}, "c": {"data": {"image_size": 24}}}
    found = experiments_of(ComparisonFile(experiment=shared, variants=variants))
    assert [(each.model.width, each.model.model_dump()["dropout"]) for each in found] == [(12, 0.2)] * 3
    assert found[1].model.model_dump()["pool"] == "mean"
    assert [each.data.image_size for each in found] == [20, 20, 24]
    [plain] = experiments_of(ComparisonFile(experiment={"data": "imagenette160"}, variants={"a": {}}))
    assert plain.data.image_size == 128


def test_a_recipe_that_is_named_gives_varied_models_what_they_need():
    file, models = ComparisonFile(recipe="cifar10"), ["convmixer_64_4", "vit_64_4_patch2"]
    varied = [each.experiment for each in request(file, vary=(("model", models),)).variants]
    assert varied == experiments_of(file, *models)
    assert varied[0].optimizer.learning_rate != varied[1].optimizer.learning_rate


def test_every_combination_of_values_is_a_variant():
    vary = (("model.kernel_size", [3, 5]), ("optimizer.learning_rate", [0.01, 0.02]))
    found = request(models=("convmixer_64_4",), vary=vary)
    assert [variant.name for variant in found.variants] == [
        "convmixer_64_4 kernel_size=3 learning_rate=0.01",
        "convmixer_64_4 kernel_size=3 learning_rate=0.02",
        "convmixer_64_4 kernel_size=5 learning_rate=0.01",
        "convmixer_64_4 kernel_size=5 learning_rate=0.02",
    ]
    assert [each.experiment.model.kernel_size for each in found.variants] == [3, 3, 5, 5]


def test_a_variant_can_ask_for_the_range_test():
    found = request(models=("convmixer",), vary=(("optimizer.learning_rate", [0.01, "auto"]),))
    assert [variant.auto_learning_rate for variant in found.variants] == [False, True]


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("epochs=30", "epochs", 30),
        ("images=1e6", "images", 1e6),
        ("macs=2e15", "macs", 2e15),
        ("time=10m", "time", 600),
        ("time=90", "time", 90),
        ("time=2h", "time", 7200),
        ("time=1h30m", "time", 5400),
        ("", "own", 1),
    ],
)
def test_budgets_are_read(text: str, kind: str, amount: float):
    assert parse_budget(text) == Budget(kind=kind, amount=amount)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epocs=3", "did you mean epochs"),
        ("30", "expected epochs="),
        ("epochs=many", "a number above 0"),
        ("time=-1", "budget time=-1: expected a time such as 90s, 25m or 1h30m"),
        ("time=5mh", "budget time=5mh: expected a time"),
        ("time=0", "expected a time"),
        ("epochs=5m", "budget epochs=5m: expected a number above 0"),
        ("images=3h", "a number above 0"),
        ("macs=1e12s", "a number above 0"),
    ],
)
def test_other_budgets_are_refused(text: str, message: str):
    with pytest.raises(UsageError, match=message):
        parse_budget(text)


def test_a_budget_pays_for_epochs():
    experiment = request(models=("convmixer_64_4",), data="digits").variants[0].experiment
    experiment = experiment.model_copy(update={"schedule_epochs": 80.0})  # planned for twice its 40 epochs
    cost = cost_of(experiment, experiment.data.load(0, carve_validation=True))
    per_epoch = 1293 // 64 * 64
    assert with_budget(experiment, Budget(), cost) == experiment
    assert with_budget(experiment, Budget(kind="time", amount=60), cost) == experiment
    for budget, epochs in (
        (Budget(kind="epochs", amount=5), 5),
        (Budget(kind="images", amount=2.5 * per_epoch), 2.5),
        (Budget(kind="macs", amount=3 * cost.macs * per_epoch), 1),
    ):
        found = with_budget(experiment, budget, cost)
        assert (found.epochs, found.schedule_epochs) == (pytest.approx(epochs), pytest.approx(2 * epochs))
    with pytest.raises(UsageError, match="does not pay for one step of 64 images"):
        with_budget(experiment, Budget(kind="images", amount=10), cost)


def test_models_of_equal_operations_see_images_in_inverse_proportion():
    experiments = [each.experiment for each in request(models=("convmixer", "vit"), data="digits").variants]
    budget, spent = Budget(kind="macs", amount=1e10), []
    for experiment in experiments:
        cost = cost_of(experiment, experiment.data.load(0, carve_validation=True))
        spent.append(with_budget(experiment, budget, cost).epochs * 1280 * cost.macs * 3)
    assert spent == [pytest.approx(1e10, rel=1e-3)] * 2


def test_a_batch_is_no_more_images_than_there_are():
    found = costs(request(ComparisonFile(budget="images=50000"), ("convmixer",), (("batch_size", [64, 2048]),)))
    seen = [each.steps(cost.train_images) * min(each.batch_size, cost.train_images) for _, each, cost in found]
    assert seen == [pytest.approx(50000, abs=1293)] * 2
    with pytest.raises(UsageError, match="does not pay for one step of 1293 images"):
        with_budget(found[1][1], Budget(kind="images", amount=1292), found[1][2])


def test_steps_at_smaller_sizes_cost_fewer_operations():
    vary = (("image_sizes", [[], [[0, 4], [0.99, 8]]]),)
    spent = []
    for _, each, cost in costs(request(ComparisonFile(budget="macs=1e11"), ("convmixer",), vary)):
        area = each.relative_area(cost.train_images, each.data.image_size)
        spent.append(each.epochs * 1280 * cost.macs * 3 * area)
    assert spent == [pytest.approx(1e11, rel=1e-2)] * 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("goal", [30_000, 200_000])
def test_widths_are_matched_to_a_number_of_parameters(architecture: str, goal: int, spec: DataSpec):
    small = {"vit": {"dim": 16, "heads": 4, "depth": 2, "patch_size": 4}, "mlp_mixer": {"dim": 16, "patch_size": 4}}
    small |= {"resnet": {"width": 8}, "resnet9": {"width": 8}}
    config = parse_model({"name": architecture, **small.get(architecture, {"dim": 32, "depth": 2})})
    found = matched(config, spec, goal)
    assert abs(parameters(found.build(spec)) - goal) / goal < 0.25
    for step in (-4, 4):  # no neighbour is nearer
        if found.width + step > 0:
            other = parameters(config.with_width(found.width + step).build(spec))
            assert abs(other - goal) >= abs(parameters(found.build(spec)) - goal)


def test_a_named_variant_gives_the_others_their_size():
    file = ComparisonFile(match_parameters="convmixer")
    found = request(file, models=("convmixer", "vit"), data="digits").variants
    sizes = [cost_of(each.experiment, each.experiment.data.load(0, True)).parameters for each in found]
    assert found[0].experiment.model.dim == 64
    assert abs(sizes[1] - sizes[0]) / sizes[0] < 0.15
    with pytest.raises(UsageError, match="no variant has this name; did you mean convmixer"):
        request(ComparisonFile(match_parameters="convmixr"), models=("convmixer", "vit"))


@pytest.mark.parametrize(
    ("models", "vary", "message"),
    [
        ((), (), "nothing to compare"),
        (("convmixer", "convmixer_64_4"), (), "are the same experiment"),
        (("convmixer", "convmixer"), (), "convmixer is given twice"),
        (("convmixer",), (("model.dim", [3, 3]),), "convmixer dim=3 is given twice"),
        (("convmixer", "convnet"), (), "unknown model 'convnet'"),
        (("convmixer",), (("model.kernal_size", [3, 5]),), "did you mean kernel_size"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_starts(models: tuple, vary: tuple, message: str):
    with pytest.raises(UsageError, match=message):
        request(models=models, vary=vary, data="digits")


def test_a_mistake_names_its_variant():
    with pytest.raises(UsageError, match=r"unknown key model.kernel_size; .* \(variant resnet9\)"):
        compose_request(ComparisonFile(), ("convmixer", "resnet9"), (), {}, ("model.kernel_size=3",))
    found = request(models=("convmixer", "vit"), vary=(("model.patch_size", [2, 16]),), data="digits")
    with pytest.raises(UsageError, match=r"is larger than the image .* \(variant convmixer patch_size=16"):
        costs(found)


@pytest.mark.parametrize("budget", ["epochs=2", "images=1e6", "macs=1e15"])
@pytest.mark.parametrize(
    ("vary", "values", "overrides"),
    [((), {"epochs": 3}, ()), ((), {}, ("epochs=3",)), ((("epochs", [2, 3]),), {}, ())],
)
def test_a_budget_and_epochs_are_not_both_asked_for(budget: str, vary: tuple, values: dict, overrides: tuple):
    models = ("convmixer", "vit")
    with pytest.raises(UsageError, match=f"epochs and the budget {budget} both say how long to train"):
        compose_request(ComparisonFile(budget=budget), models, vary, values, overrides)
    assert compose_request(ComparisonFile(budget="time=10m"), models, vary, values, overrides)


@pytest.mark.parametrize("key", ["experiment", "variants"])
def test_a_file_does_not_ask_for_epochs_beside_a_budget_of_others(key: str):
    def file(budget: str, **variants: float) -> ComparisonFile:
        shared = {"experiment": {"epochs": 5}} if key == "experiment" else {}
        return ComparisonFile(budget=budget, variants={n: {"epochs": e} for n, e in variants.items()}, **shared)

    with pytest.raises(UsageError, match=r"epochs and the budget epochs=1 both say how long to train.* \(variant a\)"):
        request(file("epochs=1", a=5, b=10), data="digits")
    [equal] = request(file("epochs=5", a=5), data="digits").variants
    assert equal.experiment.epochs == 5
    assert request(file("time=10m", a=5, b=10), data="digits")


def test_the_epochs_of_a_recipe_give_way_to_a_budget():
    assert request(ComparisonFile(budget="epochs=30", recipe="cifar10"), models=("convmixer", "vit"))


@pytest.mark.parametrize("place", ["vary", "values", "overrides", "experiment", "variants", "recipe"])
def test_a_seed_is_no_field_of_a_comparison(place: str, tmp_path: Path):
    (tmp_path / "mine.toml").write_text("seed = 7")
    given = {
        "experiment": {"experiment": {"seed": 7}, "variants": {"a": {}}},
        "variants": {"variants": {"a": {"seed": 7}}},
        "recipe": {"recipe": str(tmp_path / "mine.toml"), "variants": {"a": {}}},
    }.get(place, {"variants": {"a": {}}})
    vary, values = [("seed", [7, 8])] if place == "vary" else [], {"seed": 7} if place == "values" else {}
    words = ["seed=7"] if place == "overrides" else []
    with pytest.raises(UsageError, match=r"seed=7: all variants .*one alone: --seeds 7,.* seeds = \[7\]"):
        compose_request(ComparisonFile(**given), (), vary, values, words)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether validation images were carved, for each time that digits are loaded."""
    real, carved = DigitsConfig.load, []

    def counted(config: DigitsConfig, seed: int, carve_validation: bool):
        carved.append(carve_validation)
        return real(config, seed, carve_validation)

    monkeypatch.setattr(DigitsConfig, "load", counted)
    return carved


def test_data_that_variants_share_is_loaded_once(loads: list[bool]):
    found = request(ComparisonFile(match_parameters="vit"), models=("convmixer", "vit", "resnet9"), data="digits")
    assert len(loads) == 1
    costs(found)
    assert len(loads) == 2


def test_protocols_of_the_same_data_are_counted_apart(loads: list[bool]):
    variants = {protocol: {"protocol": protocol} for protocol in ("honest", "published")}
    file = ComparisonFile(experiment={"data": "digits"}, variants=variants)
    assert [cost.train_images for _, _, cost in costs(request(file))] == [1293, 1438]
    assert loads == [True, False]


def test_words_of_the_command_line_are_read():
    assert parse_vary("model.kernel_size=3,5") == ("model.kernel_size", [3, 5])
    assert parse_vary("model.activation=gelu,relu") == ("model.activation", ["gelu", "relu"])
    assert (read_seeds("3"), read_seeds("4, 5"), read_seeds("7,"), read_seeds("0, ")) == (3, (4, 5), (7,), (0,))
    assert (parse_seeds(3), parse_seeds([4, 5])) == ((0, 1, 2), (4, 5))
    for read, word in (
        (parse_vary, "model.kernel_size=3"),
        (read_seeds, "0"),
        (read_seeds, "-1"),
        (read_seeds, "a"),
        (read_seeds, "7,,"),
        (read_seeds, ","),
        (read_seeds, "²"),
    ):
        with pytest.raises(UsageError, match="expected"):
            read(word)


def test_a_seed_given_twice_is_refused():
    with pytest.raises(UsageError, match="seeds 1, 1: one is given twice"):
        parse_seeds((1, 1))


def test_a_field_of_the_experiment_has_its_table_in_a_file(tmp_path: Path):
    (tmp_path / "mine.toml").write_text('data = "digits"\n[variants.a]\nepochs = 3')
    with pytest.raises(
        UsageError, match=r"mine[.]toml: data is a field of the experiment; put it under \[experiment\]"
    ):
        read_file(tmp_path / "mine.toml")
