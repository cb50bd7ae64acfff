from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixlab.comparison.compare import compare, costs
from mixlab.errors import DataError, UsageError
from mixlab.experiment import Experiment, lay, parse_experiment
from mixlab.models.inspection import parameters
from mixlab.reproduction import reproduce
from mixlab.reproduction.reproduce import beside, names, read, request_of
from mixlab.spec import DataSpec
from mixlab.training.session import Options

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenette160": 10, "folder": 1000}
PUBLISHED = [
    (name, variant, int(figures["parameters"]))
    for name in names()
    for variant, figures in read(name).published.items()
    if "parameters" in figures
]


def experiment_of(name: str, variant: str) -> Experiment:
    found = read(name)
    return parse_experiment(lay(found.experiment, dict(found.variants[variant])))


def data_name(name: str) -> str:
    data = read(name).experiment["data"]
    return data if isinstance(data, str) else data["name"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data home with small files in the layouts of CIFAR-10, CIFAR-100 and Imagenette."""
    monkeypatch.setenv("MIXLAB_DATA", str(tmp_path))
    generator = np.random.default_rng(0)
    ten, hundred = tmp_path / "cifar-10-batches-py", tmp_path / "cifar-100-python"
    for folder, files, classes in ((ten, 6, 10), (hundred, 2, 100)):
        folder.mkdir()
        train = [f"data_batch_{number}" for number in range(1, 6)] if files == 6 else ["train"]
        for file in [*train, "test_batch" if files == 6 else "test"]:
            count = 100 if files == 6 else 300
            rows = generator.integers(0, 256, (count, 3072 + (1 if classes == 10 else 2)), dtype=np.uint8)
            rows[:, -3073] = np.arange(count) % classes
            (folder / f"{file}.bin").write_bytes(rows.tobytes())
    for split in ("train", "val"):
        for label in range(3):
            folder = tmp_path / "imagenette2-160" / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(8):
                pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return tmp_path


@pytest.mark.parametrize("name", names())
def test_every_recipe_says_where_its_figures_come_from(name: str):
    found = read(name)
    assert found.title
    assert found.source
    assert set(found.published) <= set(found.variants)
    for figures in found.published.values():
        assert set(figures) <= {"parameters", *reproduce.MEASURES}
        assert all(0 < value <= 1 for figure, value in figures.items() if figure != "parameters")
    for variant in found.variants:
        experiment = experiment_of(name, variant)
        assert experiment.protocol == ("honest" if name.startswith("e5") else "published")


@pytest.mark.parametrize(("name", "variant", "count"), PUBLISHED)
def test_every_published_number_of_parameters_is_ours(name: str, variant: str, count: int):
    experiment = experiment_of(name, variant)
    classes = tuple(map(str, range(CLASSES[data_name(name)])))
    spec = DataSpec(image_size=experiment.data.image_size, classes=classes, mean=(0.5,) * 3, std=(0.25,) * 3)
    with torch.device("meta"):
        ours = parameters(experiment.model.build(spec))
    # the paper's tables are in thousands, cut or rounded
    assert ours == count or (name == "e6-table4" and abs(ours - count) <= 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_every_quick_form_runs_to_the_end(name: str, home: Path, tmp_path: Path):
    found = read(name)
    values = {"data": str(home / "imagenette2-160")} if name == "imagenet" else {}
    overrides = ["epochs=0.1", "batch_size=8", "schedule_epochs=0"]
    if name == "e2":
        overrides += ["model.dim=16", "model.mlp_dim=16", "model.depth=1"]
    request = request_of(found, True, values, overrides)
    chosen = request.variants if len(request.variants) < 4 else request.variants[:2]
    request = request.model_copy(update={"variants": chosen})
    done = compare(request, Options(device="cpu", workers=0, out=tmp_path / "runs", quiet=True))
    assert all(row.runs and not row.failures for row in done.leaderboard.rows)
    lines = beside(found, done.leaderboard)
    assert {line.variant for line in lines} == {variant.name for variant in chosen}
    for line in lines:
        assert "%" in line.ours or line.figure == "parameters"


def test_a_dry_run_counts_what_the_whole_recipe_would_do(home: Path):
    request = request_of(read("imagenet"), False, {"data": str(home / "imagenette2-160")}, [])
    found = {name: (experiment, cost) for name, experiment, cost in costs(request)}
    assert set(found) == {"convmixer_1536_20", "convmixer_768_32", "convmixer_1024_20_ks9_p14", "convmixer_512_16"}
    experiment, cost = found["convmixer_768_32"]
    assert (experiment.epochs, experiment.data.image_size, cost.train_images) == (150, 224, 24)
    assert cost.macs == pytest.approx(20.7e9, rel=0.01)


@pytest.mark.parametrize("quick", [False, True])
def test_epochs_as_a_flag_and_as_a_word_are_the_same_experiment(quick: bool):
    """E3 was 30 epochs of a schedule planned for 100."""
    flag = request_of(read("e3"), quick, {"epochs": 3.0}, [])
    assert flag == request_of(read("e3"), quick, {}, ["epochs=3"])
    assert {(each.experiment.epochs, each.experiment.schedule_epochs) for each in flag.variants} == {(3, 10)}
    for values, words in (({"epochs": 3.0}, ["schedule_epochs=20"]), ({}, ["schedule_epochs=20", "epochs=3"])):
        own = request_of(read("e3"), quick, values, words)
        assert {each.experiment.schedule_epochs for each in own.variants} == {20}
    with pytest.raises(UsageError, match="epochs='many'"):
        request_of(read("e3"), quick, {}, ["epochs=many"])


def test_published_and_own_figures_stand_side_by_side(home: Path, tmp_path: Path):
    request = request_of(read("e1a"), True, {}, ["batch_size=8", "model.dim=8", "model.depth=1"])
    done = compare(request, Options(device="cpu", workers=0, out=tmp_path / "runs", quiet=True))
    [row] = done.leaderboard.rows
    count, train, test = beside(read("e1a"), done.leaderboard)
    assert (count.published, count.ours) == ("741,130", f"{row.parameters:,}")
    assert (train.figure, train.published) == ("train top-1", "79.38 %")
    assert (test.figure, test.published, test.ours) == ("test top-1", "85.12 %", f"{100 * row.mean('top1'):.2f} %")


def test_data_may_lie_elsewhere_and_are_no_others(home: Path, tmp_path: Path):
    (tmp_path / "moved").mkdir()
    (home / "cifar-10-batches-py").rename(tmp_path / "moved" / "cifar-10-batches-bin")
    for place in ("moved", "moved/cifar-10-batches-bin"):
        [variant] = request_of(read("e1b"), False, {"data": str(tmp_path / place)}, []).variants
        assert variant.experiment.data.name == "cifar10"
        assert len(variant.experiment.data.load(0, False).train) == 500
    [variant] = request_of(read("e1b"), False, {"data": str(home / "imagenette2-160")}, []).variants
    with pytest.raises(DataError, match="imagenette2-160 does not hold cifar10"):
        variant.experiment.data.load(0, False)
    with pytest.raises(UsageError, match="this experiment is on cifar10, not on digits"):
        request_of(read("e1b"), False, {"data": "digits"}, [])
    with pytest.raises(UsageError, match="is on a folder of pictures, not on cifar10"):
        request_of(read("e3"), False, {"data": "cifar10"}, [])
    for word in ("data=digits", "data.name=digits"):
        with pytest.raises(UsageError, match=f"^{word}: the data set belongs to the experiment"):
            request_of(read("e1b"), False, {}, [word])


def test_an_unknown_reproduction_is_answered():
    with pytest.raises(UsageError, match="unknown reproduction 'e3-txt'; did you mean e3-text"):
        read("e3-txt")
