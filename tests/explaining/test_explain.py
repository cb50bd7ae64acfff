"""Claims about `explain`: what it draws, of which pictures, and what it leaves alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import mixlab
from mixlab.data.catalogue import FolderConfig
from mixlab.errors import DataError, RunError
from mixlab.evaluation import pictures as drawing
from mixlab.explaining.explain import file_name, spread
from mixlab.run.folder import Run


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "DPI", 40)


@pytest.fixture
def run(tiny: dict, tmp_path: Path) -> Run:
    return mixlab.train(**tiny, out=tmp_path / "runs", quiet=True, workers=0, device="cpu")


def test_weights_and_pictures_are_drawn_and_listed(run: Run, pictures: Path):
    found = mixlab.explain(run, pictures / "red" / "1.png", str(pictures / "blue" / "1.png"), device="cpu")
    assert found.folder == run.folder / "explain"
    assert {path.name for path in found.folder.iterdir()} == {*found.files, "explain.json"}
    drawn = {"heat_1.png", "feature_maps_1.png", "heat_1-2.png", "feature_maps_1-2.png"}
    assert set(found.files) == drawn | {"patch_filters.png", "depthwise_kernels.png"}
    assert json.loads((found.folder / "explain.json").read_text()) == found.as_json()
    assert found.pictures[0]["top"][0]["probability"] == pytest.approx(
        mixlab.load(run, "cpu")(pictures / "red" / "1.png").confidence, abs=1e-5
    )


def test_without_pictures_it_takes_validation_images_of_every_class_and_no_test_image(
    run: Run,
):
    data = run.experiment.data.load(0, carve_validation=True)
    for name in data.test.names:
        Path(data.test.root / name).write_text("not to be read")  # pyright: ignore[reportAttributeAccessIssue]
    found = mixlab.explain(run, device="cpu")
    assert found.unreadable == {}
    assert [row["class"] for row in found.pictures[:2]] == ["blue", "red"]
    assert {row["picture"] for row in found.pictures} == set(data.validation.names)
    assert not (run.folder / "evaluation").exists()


def test_a_run_that_kept_no_validation_images_asks_for_pictures(run: Run, monkeypatch: pytest.MonkeyPatch):
    load = FolderConfig.load
    monkeypatch.setattr(FolderConfig, "load", lambda self, seed, carve_validation: load(self, seed, False))
    with pytest.raises(DataError, match="kept no validation images; name pictures"):
        mixlab.explain(run, device="cpu")
    assert not (run.folder / "explain").exists()


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(run: Run, pictures: Path, tmp_path: Path):
    (tmp_path / "bad.jpg").write_text("text")
    found = mixlab.explain(run, tmp_path / "bad.jpg", pictures / "red" / "0.png", device="cpu")
    assert list(found.unreadable) == [str(tmp_path / "bad.jpg")]
    assert "heat_0.png" in found.files


def test_a_model_without_depthwise_kernels_says_so(tiny: dict, pictures: Path, tmp_path: Path):
    vit = {"name": "vit", "dim": 8, "depth": 1, "heads": 2, "patch_size": 4}
    run = mixlab.train(**{**tiny, "model": vit}, out=tmp_path / "runs", quiet=True, workers=0, device="cpu")
    found = mixlab.explain(run, pictures / "red" / "0.png", device="cpu")
    assert found.skipped == {"depthwise_kernels.png": "this model has no depthwise convolution"}
    assert found.files["heat_0.png"].startswith("attention rollout")


def test_a_run_that_is_not_finished_is_refused(run: Run):
    (run.folder / "summary.json").unlink()
    shutil.rmtree(run.bundle)
    with pytest.raises(RunError, match="is not finished"):
        mixlab.explain(run, device="cpu")


@pytest.mark.parametrize(
    ("labels", "count", "expected"),
    [
        ([1, 1, 0, 0, 2, 0], 4, [2, 0, 4, 3]),
        ([0, 0, 0], 2, [0, 1]),
        ([0, 1], 8, [0, 1]),
        ([4, 3, 2, 1, 0], 3, [4, 2, 0]),
        ([5, 5, 2], 2, [2, 0]),
    ],
)
def test_examples_are_one_of_each_class_first(labels: list[int], count: int, expected: list[int]):
    assert spread(np.array(labels), count).tolist() == expected


def test_names_of_files_are_plain_and_unlike():
    taken: set[str] = set()
    names = ["red/1.png", "blue/1.jpg", "A b$.png", "a B&.png", "-", "caf\udce9.jpg", "x" * 300 + ".png"]
    found = [file_name(name, taken) for name in names]
    assert found == ["1", "1-2", "A-b", "a-B-2", "picture", "caf", "x" * 150]


def test_names_of_files_are_cut_by_bytes():
    found = file_name("鳥" * 81 + ".png", set())
    assert len(found.encode()) == 150
    assert set(found) == {"鳥"}
