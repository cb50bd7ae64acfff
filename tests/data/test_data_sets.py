from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixlab.data.catalogue import check_outside, parse_data
from mixlab.data.check import check
from mixlab.data.downloads import DOWNLOADS, data_home, fetch
from mixlab.data.images import FileImages, MemoryImages, read_canvas, read_exact
from mixlab.data.loading import batches, in_memory, in_order
from mixlab.data.names import expand
from mixlab.data.shard_writer import pack
from mixlab.data.stats import stats
from mixlab.errors import DataError, UsageError
from torture.pictures import photograph, saved


def cifar_folder(root: Path, name: str) -> Path:
    """Write a tiny data set in the official binary layout."""
    generator = np.random.default_rng(0)
    inner = root / {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}[name]
    inner.mkdir(parents=True)
    coarse = 1 if name == "cifar100" else 0
    parts = ["train", "test"] if coarse else [*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"]
    for part in parts:
        rows = [
            bytes([0] * coarse + [index % 10]) + generator.integers(0, 256, 3072, dtype=np.uint8).tobytes()
            for index in range(20)
        ]
        (inner / f"{part}.bin").write_bytes(b"".join(rows))
    return root


@pytest.fixture(params=["digits", "cifar10", "cifar100", "folder", "shards"])
def named(request, tmp_path: Path, pictures: Path) -> dict:
    if request.param == "folder":
        return expand(str(pictures)) | {"image_size": 16}
    if request.param == "shards":
        pack(parse_data(str(pictures)), tmp_path / "packed", 2**20, workers=1, say=print)
        return expand(str(tmp_path / "packed")) | {"image_size": 16}
    if request.param == "digits":
        return expand("digits")
    return expand(request.param) | {"path": str(cifar_folder(tmp_path / "cifar", request.param))}


def test_every_data_set_keeps_the_contract(named: dict):
    config = parse_data(named)
    data = config.load(seed=0, carve_validation=True)
    again, other = config.load(0, True), config.load(1, True)
    splits = [data.train, data.validation, data.test]
    names = [name for images in splits for name in images.names]
    assert len(names) == len(set(names)), "an image is in two splits"
    assert all(len(images) for images in splits)
    assert data.fingerprint() == again.fingerprint()
    assert data.validation.names != other.validation.names, "validation is carved by seed"
    assert data.test.names == other.test.names, "test never changes"
    assert set(data.validation.labels) <= set(data.train.labels)
    whole = config.load(0, carve_validation=False)
    assert set(whole.train.names) >= set(data.train.names) | set(data.validation.names) or not len(whole.validation)
    for images in splits:
        indices = np.array([len(images) - 1, 0])
        batch = images.batch(indices)
        assert batch.images.shape[:2] == (2, data.spec.channels)
        assert batch.labels.tolist() == images.labels[indices].tolist()
        assert (batch.images.dtype == torch.uint8) or (batch.images.min() >= 0 and batch.images.max() <= 1)


def test_digits_have_a_fixed_stratified_fifth_for_testing():
    data = parse_data("digits").load(0, True)
    assert (len(data.train), len(data.validation), len(data.test)) == (1293, 145, 359)
    counts = np.bincount(data.test.labels)
    assert counts.min() >= 34
    assert counts.max() <= 37


def test_a_folder_without_splits_is_carved_70_15_15(pictures: Path):
    data = parse_data(str(pictures)).load(0, True)
    assert (len(data.train), len(data.validation), len(data.test)) == (28, 6, 6)


def test_a_second_part_is_the_test_set_whatever_its_name(pictures: Path, tmp_path: Path):
    root = tmp_path / "parts"
    root.mkdir()
    (root / "train").symlink_to(pictures)
    (root / "val").symlink_to(pictures)
    data = parse_data(str(root)).load(0, True)
    assert len(data.test) == 40
    assert len(data.train) + len(data.validation) == 40


def test_results_are_not_written_among_pictures(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(pictures)
    for data, place in ((".", "runs"), (str(pictures), "red/deeper/runs"), (str(pictures), str(pictures))):
        with pytest.raises(UsageError, match=r"lies in the data's folder .*, where nothing is written"):
            check_outside(parse_data(data), Path(place))
    check_outside(parse_data("."), Path("../runs"))
    check_outside(parse_data(str(pictures.parent / "pictures-2")), Path("runs"))  # there is none: loading says so
    check_outside(parse_data("digits"), Path("runs"))


def test_a_name_that_renames_no_class_is_said(pictures: Path):
    with pytest.raises(UsageError, match=r"data.rename: there is no class 'bleu'; did you mean blue\?"):
        parse_data(expand(str(pictures)) | {"rename": {"bleu": "sky"}}).load(0, True)


def test_classes_are_renamed_without_moving_labels(pictures: Path):
    config = parse_data(expand(str(pictures)) | {"rename": {"blue": "sky"}})
    assert config.load(0, True).spec.classes == ("sky", "red")


def test_fingerprints_do_not_depend_on_the_seed_but_on_every_image(pictures: Path):
    def fingerprint(seed: int) -> str:
        return parse_data(str(pictures)).load(seed, True).fingerprint()

    assert fingerprint(0) == fingerprint(7)
    before = fingerprint(0)
    (pictures / "blue" / "3.png").rename(pictures / "red" / "moved.png")
    assert fingerprint(0) != before


@pytest.mark.parametrize("data", ["", 5, {"name": 5}, None])
def test_data_that_is_no_name_is_refused(data):
    with pytest.raises(UsageError, match="expected"):
        expand(data)


def test_two_classes_cannot_get_one_name(pictures: Path):
    with pytest.raises(UsageError, match="two classes have the same name"):
        parse_data(expand(str(pictures)) | {"rename": {"blue": "red"}}).load(0, True)


def test_paths_mean_the_same_from_any_folder(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = "".join(f"{color}/{index}.png,{color}\n" for color in ("red", "blue") for index in range(20))
    (tmp_path / "mine.csv").write_text(rows)
    (pictures / "inside.csv").write_text(rows)
    monkeypatch.chdir(tmp_path)
    forms = [{"name": "./pictures"}, {"name": "folder", "path": "pictures"}]
    found = [parse_data({**form, "labels_csv": csv}) for form in forms for csv in ("mine.csv", "inside.csv")]
    monkeypatch.chdir(pictures.parent.parent)
    assert [len(config.load(0, True).train) for config in found] == [28] * 4
    assert [config.labels_csv for config in found] == [str(tmp_path / "mine.csv"), "inside.csv"] * 2
    assert found[:2] == found[2:]
    assert parse_data(found[0].model_dump()) == found[0]
    assert parse_data({"name": "folder"}).path == str(Path.cwd())  # pyright: ignore[reportAttributeAccessIssue]


def test_imagenettes_folders_have_readable_names(pictures: Path):
    (pictures / "blue").rename(pictures / "n03445777")
    (pictures / "red").rename(pictures / "n01440764")
    assert parse_data(str(pictures)).load(0, True).spec.classes == ("tench", "golf ball")


def test_names_and_paths_are_told_apart(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert expand(str(pictures))["name"] == "folder"
    assert expand("imagenette160")["path"].endswith("imagenette2-160")
    with pytest.raises(DataError, match="did you mean cifar10"):
        expand("cifar11")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="did you mean pictures"):
        expand("picturse")
    with pytest.raises(DataError, match=r"cifar10 is not at .* Add --download"):
        parse_data("cifar10").load(0, True)
    with pytest.raises(DataError, match="digits"):
        fetch("digits")
    assert all(name in DOWNLOADS for name in ("cifar10", "cifar100", "imagenette", "imagenette160", "imagenette320"))


@pytest.fixture(autouse=True)
def own_data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MIXLAB_DATA", str(tmp_path / "home"))
    assert data_home() == tmp_path / "home"


def damaged(pictures: Path) -> Path:
    (pictures / "blue" / "broken.jpg").write_text("I am no picture")
    (pictures / "red" / "cut.png").write_bytes((pictures / "red" / "3.png").read_bytes()[:200])
    return pictures


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_unreadable_files_are_left_out_and_named_with_any_number_of_workers(pictures: Path, workers: int):
    data = parse_data(expand(str(damaged(pictures))) | {"image_size": 16}).load(0, False)
    images = data.train
    held = in_memory(images, workers)
    assert isinstance(held, MemoryImages)
    bad = {name for name in images.names if "broken" in name or "cut" in name}
    assert set(held.unreadable) == bad
    expected = [batch.indices.tolist() for batch in batches(held, in_order(held, 8))]
    streamed = list(batches(images, in_order(images, 8), workers))
    assert [batch.indices.tolist() for batch in streamed] == expected
    for left, right in zip(batches(held, in_order(held, 8)), streamed, strict=True):
        assert torch.equal(left.images, right.images)
        assert torch.equal(left.labels, right.labels)


@pytest.mark.parametrize("carve", [False, True])
def test_where_no_file_can_be_read_there_are_no_images_and_every_name(pictures: Path, carve: bool):
    for path in pictures.rglob("*.png"):
        path.write_text("I am no picture")
    data = parse_data(expand(str(pictures)) | {"image_size": 16}).load(0, carve)
    for images in (data.train, data.test):
        held = in_memory(images)
        assert set(held.unreadable) == set(images.names)
        for some in (images, held):
            assert len(some.batch(np.arange(4)).images) == 0
            assert some.batch(np.arange(4)).images.dtype == (torch.uint8 if images is data.train else torch.float32)


def test_check_names_every_bad_file_and_writes_nothing(pictures: Path):
    damaged(pictures)
    before = {path: path.stat().st_mtime_ns for path in pictures.rglob("*")}
    found = check(parse_data(str(pictures)), workers=2)
    assert set(found.unreadable) == {"blue/broken.jpg", "red/cut.png"}
    assert sum(sum(counts.values()) for counts in found.counts.values()) == 42
    assert before == {path: path.stat().st_mtime_ns for path in pictures.rglob("*")}


def test_stats_are_the_mean_and_deviation_of_the_pixels():
    found = stats(parse_data("digits"), workers=0)
    images = parse_data("digits").load(0, True).train.images.double() / 255  # pyright: ignore[reportAttributeAccessIssue]
    assert found["mean"] == pytest.approx([images.mean().item()])
    assert found["std"] == pytest.approx([images.std(correction=0).item()])
    assert found["mean"][0] == pytest.approx(0.3053, abs=5e-4)


def test_stats_are_of_the_splits_of_a_seed_and_a_protocol():
    other, whole = stats(parse_data("digits"), 0, seed=7), stats(parse_data("digits"), 0, carve_validation=False)
    assert other["mean"] != stats(parse_data("digits"), 0)["mean"]
    assert set(whole["splits"]) == {"train", "test"}


def test_training_canvases_are_close_to_what_evaluation_sees(tmp_path: Path, spec):
    y, x = np.mgrid[0:80, 0:120]
    pixels = np.stack([x * 2, y * 3, (x + y)], 2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    images = FileImages(tmp_path, ("wide.png",), np.zeros(1, dtype=np.int64), spec, canvas_size=16)
    canvas = images.batch(np.array([0])).images[0].float() / 255
    assert (canvas - read_exact(tmp_path / "wide.png", spec)).abs().max() < 0.02


def in_a_square(image: Image.Image, size: int, fill: tuple[int, ...]) -> np.ndarray:
    """Pad the slow way: the whole square first."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), fill)
    square.paste(image, (round((side - image.width) / 2), round((side - image.height) / 2)))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)).astype(int)


@pytest.mark.parametrize("shape", [(60, 90), (37, 90), (90, 37), (1, 90), (91, 2), (50, 50), (5, 8), (8, 5)])
def test_padding_never_makes_the_whole_square_and_has_its_pixels_within_rounding(spec, shape, monkeypatch):
    image, made, size = photograph(1, *shape), [], 16
    expected = in_a_square(image, size, (128, 64, 0))
    new = Image.new
    monkeypatch.setattr(Image, "new", lambda mode, size, *rest: made.append(size) or new(mode, size, *rest))
    found = read_canvas(
        saved(image, "PNG"), spec.model_copy(update={"resize_mode": "pad", "mean": (0.5, 0.25, 0.0)}), size
    )
    difference = np.abs(found.permute(1, 2, 0).numpy() - expected).max()
    assert difference <= (1 if shape[0] > shape[1] else 0), "a wide one shrinks in the order that Pillow has"
    assert all(min(sides) <= size for sides in made)
