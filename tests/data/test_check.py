"""Every fault that is planted in a folder is found exactly, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mixlab.data.catalogue import parse_data
from mixlab.data.check import check
from mixlab.data.copies import ALIKE, exact_copies, near_copies
from mixlab.data.look import see
from mixlab.errors import DataError

GENERATOR = np.random.default_rng(0)


def picture(width: int = 40, height: int = 32) -> Image.Image:
    """Make a picture of soft spots that resembles no other."""
    spots = Image.fromarray(GENERATOR.integers(0, 256, (6, 7, 3), dtype=np.uint8))
    return spots.resize((width, height), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def sound_folder(root: Path, train: int = 12, **splits: int) -> dict[str, Image.Image]:
    """Write pictures of two classes for each split, and return the training pictures."""
    pictures = {f"train/{name}/{index}.png": picture() for name in ("cat", "dog") for index in range(train)}
    others = {
        f"{split}/{name}/{i}.png": picture() for split, n in splits.items() for name in ("cat", "dog") for i in range(n)
    }
    for name, image in (pictures | others).items():
        save(image, root / name)
    return pictures


def names(groups: list[list[dict]]) -> list[list[str]]:
    return [[place["name"] for place in group] for group in groups]


def test_a_sound_folder_has_no_findings(tmp_path: Path):
    sound_folder(tmp_path, val=3, test=3)
    found = check(parse_data(str(tmp_path)), workers=2)
    assert found.findings == ()
    assert found.lines()[-1].endswith("nothing to report")
    assert found.as_json()["resize_costs"] == pytest.approx({"crop_lost": 0.2, "pad_filled": 0.2, "squash": 1.25})


def test_each_planted_fault_is_found_and_nothing_else(tmp_path: Path):
    pictures = sound_folder(tmp_path, train=24, val=3, test=3)
    train, test = tmp_path / "train", tmp_path / "test"
    (train / "cat" / "broken.jpg").write_text("I am no picture")
    save(picture(), train / "cat" / "really_png.jpg", format="PNG")
    save(picture(), train / "dog" / "several.gif", save_all=True, append_images=[picture()])
    save(Image.fromarray(np.asarray(picture().convert("L")).astype(np.uint16) * 257), train / "dog" / "deep.png")
    save(picture().convert("CMYK"), train / "dog" / "print.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(picture(), train / "cat" / "turned.jpg", exif=exif)
    save(picture(90, 30), train / "cat" / "long.png")
    (train / "cat" / "notes.txt").touch()
    (train / "eel").mkdir()
    for index in range(4):
        save(picture(), train / "fox" / f"{index}.png")
    save(picture(), tmp_path / "val" / "fox" / "0.png")
    save(pictures["train/cat/0.png"], test / "cat" / "copy.bmp")
    save(pictures["train/dog/1.png"], train / "cat" / "twin.png")
    save(pictures["train/dog/2.png"], train / "dog" / "again.png")
    save(pictures["train/cat/3.png"].resize((60, 48)), tmp_path / "val" / "cat" / "large.jpg", quality=60)
    save(ImageEnhance.Brightness(pictures["train/dog/5.png"]).enhance(0.8), train / "dog" / "dark.png")

    found = check(parse_data(str(tmp_path)), workers=2)
    kinds = [finding.kind for finding in found.findings]
    odd = {finding.text: finding.examples for finding in found.findings if finding.kind == "odd"}
    of = {finding.kind: list(finding.as_json()["items"]) for finding in found.findings}
    assert list(found.unreadable) == ["train/cat/broken.jpg"]
    assert odd == {
        "1 file by content not of the format that the name says": ("train/cat/really_png.jpg",),
        "1 file of several frames": ("train/dog/several.gif",),
        "1 file with more than 8 bits a channel": ("train/dog/deep.png",),
        "1 file in CMYK": ("train/dog/print.jpg",),
    }
    assert of["empty"] == ["eel"]
    assert of["tiny"] == ["fox (4)"]
    assert of["absent"] == ["fox"]
    assert names(of["leak"]) == [["train/cat/0.png", "test/cat/copy.bmp"]]
    assert names(of["labels"]) == [["train/cat/twin.png", "train/dog/1.png"]]
    assert names(of["copies"]) == [["train/dog/2.png", "train/dog/again.png"]]
    assert names(of["near leak"]) == [["train/cat/3.png", "val/cat/large.jpg"]]
    assert names(of["near"]) == [["train/dog/5.png", "train/dog/dark.png"]]
    assert of["shape"] == ["train/cat/long.png (90 x 30)"]
    expected = ["unreadable", "odd", "odd", "odd", "odd", "ignored", "empty", "tiny", "absent", "imbalance"]
    assert kinds == [*expected, "leak", "labels", "copies", "near leak", "near", "shape"]
    assert (found.turned, found.sizes) == (1, ((40, 32), (60, 48)))
    assert found.failures("exact") == ["1 group of exact copies in two splits (1 train and test)"]
    assert [len(found.failures(kind)) for kind in ("near", "unreadable", "never")] == [2, 1, 0]


def test_pictures_of_which_none_can_be_set_aside_are_said(tmp_path: Path):
    for name in ("cat", "dog"):
        save(picture(), tmp_path / name / "0.png")
        save(picture(), tmp_path / name / "1.png")
    for carve in (True, False):
        kinds = [finding.kind for finding in check(parse_data(str(tmp_path)), 0, carve_validation=carve).findings]
        assert kinds == [*(["validation"] if carve else []), "tiny"]


def test_imbalance_names_the_flags_that_help(tmp_path: Path):
    sound_folder(tmp_path, test=3)
    for index in range(30):
        save(picture(), tmp_path / "train" / "dog" / f"more{index}.png")
    lines = check(parse_data(str(tmp_path)), workers=2).lines()
    place = next(index for index, line in enumerate(lines) if line.startswith("imbalance"))
    assert "dog has 3.6 times the training pictures of cat (36 and 10)" in lines[place]
    assert "--balanced" in lines[place + 1]
    assert "--class-weights" in lines[place + 1]


@pytest.mark.parametrize("seed", range(3))
def test_copies_inside_training_count_where_validation_is_carved_between_them(tmp_path: Path, seed: int):
    pictures = sound_folder(tmp_path, train=20, test=3)
    for index in range(20):
        save(pictures[f"train/cat/{index}.png"], tmp_path / "train" / "cat" / f"copy{index}.png")
    config = parse_data(str(tmp_path))
    data = config.load(seed, carve_validation=True)
    validation = set(data.validation.names)
    groups = [[f"train/cat/{index}.png", f"train/cat/copy{index}.png"] for index in range(20)]
    apart = [set(group) for group in groups if len(validation & set(group)) == 1]
    found = {finding.kind: finding for finding in check(config, workers=1, seed=seed).findings}
    assert apart, "or this shows nothing"
    assert sorted(map(sorted, names(list(found["leak"].items)))) == sorted(map(sorted, apart))
    assert len(found["leak"].items) + len(found["copies"].items) == 20
    whole = {finding.kind for finding in check(config, workers=1, seed=seed, carve_validation=False).findings}
    assert "leak" not in whole


def test_a_csv_and_pictures_in_memory_are_checked_alike(tmp_path: Path):
    pictures = sound_folder(tmp_path)
    rows = [f"{name},{name.split('/')[1]},train\n" for name in pictures]
    save(pictures["train/cat/4.png"], tmp_path / "other.png")
    save(picture(), tmp_path / "last.png")
    (tmp_path / "labels.csv").write_text("".join([*rows, "other.png,dog,test\n", "last.png,cat,test\n"]))
    found = check(parse_data({"name": str(tmp_path), "labels_csv": "labels.csv"}), workers=1)
    assert [finding.kind for finding in found.findings] == ["leak", "labels"]
    assert found.findings[0].text == "1 group of exact copies in two splits (1 train and test, 1 in two classes)"
    assert check(parse_data("digits"), workers=1).findings == ()


def test_a_folder_of_which_nothing_can_be_read_is_refused(pictures: Path):
    for path in pictures.rglob("*.png"):
        path.write_text("I am no picture")
    with pytest.raises(DataError, match=r"not one of 40 pictures can be read, such as blue/0.png: not an image"):
        check(parse_data(str(pictures)), workers=1)


def test_near_copies_are_found_whatever_was_done_to_them_and_correlate():
    """Oracle: the correlation of all pairs."""
    originals = [picture() for _ in range(150)]
    changed = [
        [image.resize((64, 51), Image.Resampling.BICUBIC) for image in originals],
        [ImageEnhance.Contrast(image).enhance(1.3) for image in originals],
        [image.convert("L") for image in originals],
        [image.crop((1, 0, 40, 32)) for image in originals],
    ]
    for copies in changed:
        thumbnails = np.stack([see(np.asarray(image.convert("RGB"))).thumbnail for image in originals + copies])
        correlation = np.corrcoef(thumbnails.reshape(300, -1).astype(float))
        truth = {(first, second) for first, second in np.argwhere(correlation >= ALIKE).tolist() if first < second}
        found = set(map(tuple, near_copies(thumbnails).tolist()))
        assert found <= truth
        assert len(found) > 0.9 * len(truth) > 120


def test_plain_pictures_and_none_at_all_are_no_near_copies():
    plain = np.full((5, 16, 16), 200, dtype=np.uint8)
    plain[:, 3, 3] += np.arange(5, dtype=np.uint8)
    assert near_copies(plain).shape == near_copies(plain[:0]).shape == (0, 2)


def test_equal_digests_are_groups_and_shape_is_part_of_a_digest():
    groups = exact_copies(np.array([5, 3, 5, 2, 3, 5, 9], dtype=np.uint64))
    assert [group.tolist() for group in groups] == [[0, 2, 5], [1, 4]]
    pixels = np.zeros((4, 6, 1), dtype=np.uint8)
    assert see(pixels).digest != see(pixels.reshape(6, 4, 1)).digest
    assert see(pixels).digest == see(pixels.copy()).digest
