import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mixlab
from mixlab.errors import DataError, MixlabError, RunError, UnreadableImage, UsageError
from mixlab.run.bundle import Bundle, read_bundle, write_bundle
from mixlab.run.folder import Run


@pytest.fixture
def run(tiny: dict, tmp_path: Path) -> Run:
    return mixlab.train(**tiny | {"epochs": 5}, out=tmp_path / "runs", quiet=True, device="cpu", workers=0)


def test_evaluation_writes_what_it_says(run: Run):
    found = mixlab.evaluate(run, workers=0)
    assert found.metrics.top1.value == 1.0
    assert found.metrics.top1.low < 1.0
    assert json.loads((found.folder / "metrics.json").read_text())["images"] == 6
    with (found.folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {row["class"] for row in rows} == {"blue", "red"}
    assert all(row["image"].startswith(row["class"]) for row in rows)
    for name in ("confusion", "per_class", "reliability", "predictions"):
        assert (found.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_every_reading_of_test_is_counted(run: Run):
    assert [mixlab.evaluate(run, workers=0).readings for _ in range(2)] == [1, 2]
    assert mixlab.evaluate(run, "validation", workers=0).readings == 1


def test_what_rounding_costs_is_measured_beside_float32(run: Run, pictures: Path):
    rounded = mixlab.evaluate(run, workers=0, device="cpu", precision="bfloat16", against=run)
    exact = mixlab.evaluate(run, workers=0, device="cpu")
    assert (rounded.readings, exact.readings) == (1, 3)  # the other model is the same run
    assert (rounded.folder.name, exact.folder.name) == ("test-bfloat16", "test")
    assert json.loads((rounded.folder / "metrics.json").read_text())["precision"] == "bfloat16"
    assert 0 < abs(rounded.metrics.loss.value - exact.metrics.loss.value) < 0.01
    assert rounded.against
    assert (rounded.against.here, rounded.against.there) == (rounded.metrics.top1.value, exact.metrics.top1.value)
    with (rounded.folder / "predictions.csv").open() as file:
        row = next(csv.DictReader(file))
    answers = [
        mixlab.load(run, device="cpu", precision=name)(pictures / row["image"]) for name in ("float32", "bfloat16")
    ]
    assert answers[0].confidence != answers[1].confidence == pytest.approx(float(row["confidence"]), abs=1e-5)
    before = run.readings("test")
    for wrong in ("bfloat", "float16", None, torch.bfloat16):
        for ask in (mixlab.load, mixlab.evaluate):
            with pytest.raises(UsageError, match="a network answers in float32 or bfloat16"):
                ask(run, precision=wrong)  # pyright: ignore[reportArgumentType]
    assert run.readings("test") == before


def test_other_data_is_matched_by_class_name_not_by_order(run: Run, pictures: Path, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(pictures / "red", other / "red")
    shutil.copytree(pictures / "red", other / "blue")  # every picture here is red, whatever its folder says
    found = mixlab.evaluate(run, data=other, workers=0)
    assert found.metrics.top1.value == 0.5
    (other / "red").rename(other / "robin")
    with pytest.raises(DataError, match="does not know the class 'robin'"):
        mixlab.evaluate(run, data=other, workers=0)


def test_classes_that_the_model_does_not_know_can_be_left_out(run: Run, pictures: Path, tmp_path: Path):
    other = tmp_path / "other"
    for name, count in (("azure", 3), ("blue", 4), ("red", 5)):
        (other / name).mkdir(parents=True)
        for index in range(count):
            shutil.copy(pictures / ("red" if name == "red" else "blue") / f"{index}.png", other / name)
    with pytest.raises(DataError, match=r"does not know the class 'azure'.* or pass --ignore-unknown-classes"):
        mixlab.evaluate(run, data=other, workers=0)
    found = mixlab.evaluate(run, data={"name": str(other), "ignore_unknown_classes": True}, workers=0)
    assert (found.metrics.images, found.metrics.top1.value, found.left_out) == (9, 1.0, {"azure": 3})
    shutil.rmtree(other / "blue")
    (other / "red").rename(other / "robin")
    with pytest.raises(DataError, match="knows none of these classes: azure, robin; it knows blue, red"):
        mixlab.evaluate(run, data={"name": str(other), "ignore_unknown_classes": True}, workers=0)


def test_a_folder_without_parts_is_test_data_as_a_whole(run: Run, others: Path):
    found = mixlab.evaluate(run, data=others, workers=0)
    assert (found.metrics.images, found.learned, found.own_data) == (40, 0, False)


def test_of_what_a_model_was_trained_on_only_the_test_pictures_are_measured(run: Run, pictures: Path, tmp_path: Path):
    """Wherever the folder lies now; a run's are its test pictures, and the reading is one of them."""
    test = run.read_splits()["test"]
    moved = pictures.rename(tmp_path / "moved")
    found = [mixlab.evaluate(place, data=moved, workers=0, out=tmp_path / "runs") for place in (run, run.bundle)]
    assert [(each.metrics.images, each.own_data) for each in found] == [(len(test), True)] * 2
    assert run.readings("test") == 1


def test_of_a_folder_that_has_changed_what_the_run_learned_is_left_out(run: Run, pictures: Path):
    for name in ("blue", "red"):
        shutil.copy(pictures / name / "0.png", pictures / name / "new.png")
    found = mixlab.evaluate(run, data=pictures, workers=0)
    splits = run.read_splits()
    assert found.learned == len(splits["train"]) + len(splits["validation"])
    assert found.metrics.images == 42 - found.learned


def test_classes_of_imagenette_are_known_by_both_their_names(run: Run, others: Path, tmp_path: Path):
    bundle = read_bundle(run)
    spec = bundle.description.spec.model_copy(update={"classes": ("tench", "church")})
    write_bundle(tmp_path / "known", Bundle(bundle.description.model_copy(update={"spec": spec}), bundle.state), "")
    (others / "blue").rename(others / "n01440764")
    (others / "red").rename(others / "n03028079")
    (others / "zebra").mkdir()
    shutil.copy(others / "n01440764" / "other-0.png", others / "zebra")
    data = {"name": str(others), "ignore_unknown_classes": True}
    found = mixlab.evaluate(tmp_path / "known", data=data, workers=0, out=tmp_path / "runs")
    assert (found.metrics.images, found.metrics.top1.value, found.left_out) == (40, 1.0, {"zebra": 1})


def test_data_that_changed_since_the_training_is_refused(run: Run, pictures: Path):
    shutil.copy(pictures / "red" / "0.png", pictures / "red" / "new.png")
    with pytest.raises(DataError, match="the data changed since the training"):
        mixlab.evaluate(run, workers=0)


def test_an_unfinished_run_or_split_that_is_not_there_is_refused(run: Run):
    with pytest.raises(UsageError, match="unknown split 'tset'; did you mean test"):
        mixlab.evaluate(run, "tset")
    (run.folder / "summary.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        mixlab.evaluate(run)


def test_the_classifier_answers_as_evaluation_did(run: Run, pictures: Path):
    found = mixlab.evaluate(run, workers=0)
    classifier = mixlab.load(run.folder, device="cpu")
    with (found.folder / "predictions.csv").open() as file:
        for row in csv.DictReader(file):
            answer = classifier(pictures / row["image"])
            assert answer.label == row["predicted"]
            assert answer.confidence == pytest.approx(float(row["confidence"]), abs=1e-5)


def test_a_picture_may_come_in_any_form(run: Run, pictures: Path):
    classifier = mixlab.load(run.bundle, device="cpu")
    path = pictures / "red" / "0.png"
    expected = classifier(path).probabilities
    pixels = np.asarray(Image.open(path))
    for form in (str(path), path.read_bytes(), pixels, Image.open(path)):
        np.testing.assert_allclose(classifier(form).probabilities, expected, atol=1e-6)
    for mode in ("L", "LA", "P", "RGBA", "CMYK", "1", "F", "I"):
        assert len(classifier(Image.open(path).convert("L").convert(mode)).top(2)) == 2
    palette = Image.open(path).quantize(4)
    palette.info["transparency"] = 0
    palette.save(path.with_name("palette.gif"), transparency=0)
    from_file = classifier(path.with_name("palette.gif")).probabilities
    with Image.open(path.with_name("palette.gif")) as opened:
        np.testing.assert_allclose(classifier(opened).probabilities, from_file)
    assert classifier(pixels[:, :, 0]).probabilities.sum() == pytest.approx(1)
    with pytest.raises(UsageError, match="expected uint8 pixels"):
        classifier(pixels.astype(np.float32))
    with pytest.raises(UnreadableImage, match="0 bytes"):
        classifier(b"")


def test_a_stream_keeps_its_order_and_goes_on_after_a_bad_picture(run: Run, pictures: Path, tmp_path: Path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("text")
    sources = [pictures / "red" / "0.png", bad, pictures / "blue" / "1.png", tmp_path / "missing.png"]
    answers = list(mixlab.load(run, device="cpu").stream(sources, batch_size=2))
    assert [source for source, _ in answers] == sources
    assert [getattr(answer, "label", "bad") for _, answer in answers] == ["red", "bad", "blue", "bad"]


def test_classes_come_from_the_bundle(run: Run):
    assert mixlab.load(run).spec.classes == ("blue", "red")


def test_api_names_what_is_wrong():
    with pytest.raises(MixlabError, match="no run"):
        mixlab.load("nothing-here")
    with pytest.raises(AttributeError):
        mixlab.nonsense  # noqa: B018
    assert "train" in dir(mixlab)
    model = mixlab.create_model("convmixer_64_4", num_classes=7, channels=1, image_size=8)
    assert sum(parameter.numel() for parameter in model.parameters()) > 10_000
