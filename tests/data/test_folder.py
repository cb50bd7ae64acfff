"""Each layout of a folder maps its files to the right classes, or is refused by name."""

import os
import unicodedata
from pathlib import Path

import pytest

from mixlab.data.folder import scan
from mixlab.data.names import expand
from mixlab.errors import DataError


@pytest.fixture
def make(tmp_path):
    """Return a function that makes files, given as "cat/1.jpg", and returns their root."""

    def make_files(*names):
        root = tmp_path / "birds"
        root.mkdir(exist_ok=True)
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"-")
        return root

    return make_files


def refusal(root, **options):
    with pytest.raises(DataError) as error:
        scan(root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_class_folders_are_classes_in_natural_order(make):
    listing = scan(make("10/a.jpg", "2/b.jpg", "1/img10.png", "1/img9.JPG"))
    assert listing.classes == ("1", "2", "10")
    assert listing.train == (("1/img9.JPG", 0), ("1/img10.png", 0), ("2/b.jpg", 1), ("10/a.jpg", 2))
    assert not listing.validation
    assert not listing.test


def test_a_class_that_validation_lacks_does_not_shift_the_labels(make):
    listing = scan(make("train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "val/c/1.jpg", "test/b/1.jpg"))
    assert listing.validation == (("val/c/1.jpg", 2),)
    assert listing.test == (("test/b/1.jpg", 1),)


@pytest.mark.parametrize("second", ["val", "Validation", "VALID", "test", "Testing"])
def test_the_only_second_part_is_the_test_set(make, second):
    listing = scan(make("Train/a/1.jpg", "Train/b/1.jpg", f"{second}/b/1.jpg"))
    assert listing.test == ((f"{second}/b/1.jpg", 1),)
    assert not listing.validation


def test_an_empty_test_folder_is_no_second_part(make):
    root = make("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "test/a/readme.txt")
    assert scan(root).test == (("val/a/1.jpg", 0),)


def test_a_class_that_training_lacks_is_refused_by_name(make):
    root = make("train/a/1.jpg", "train/b/1.jpg", "validation/kestrel/1.jpg", "validation/kestrel/2.jpg")
    assert refusal(root) == (
        "validation has a class that training does not: 'kestrel' (2 images). Add it, or pass --ignore-unknown-classes."
    )
    listing = scan(root, ignore_unknown_classes=True)
    assert (listing.classes, listing.test, listing.ignored) == (("a", "b"), (), 2)


def test_a_class_that_is_empty_in_training_only_is_refused_too(make):
    root = make("train/a/1.jpg", "train/b/1.jpg", "train/c/notes.txt", "test/c/1.jpg")
    assert "'c' (1 image)" in refusal(root)


@pytest.mark.parametrize(
    "names", [("Cat", "cat"), (unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"))]
)
@pytest.mark.parametrize("layout", ["{}/1.jpg {}/2.jpg", "train/{}/1.jpg train/x/1.jpg test/{}/1.jpg"])
def test_two_spellings_of_one_class_are_refused(make, names, layout):
    message = refusal(make(*layout.format(*names).split()), ignore_unknown_classes=True)
    assert "differ only in case or Unicode form" in message
    assert all(ascii(name) in message for name in names)


def test_empty_class_folders_are_reported_not_counted(make):
    root = make("a/1.jpg", "c/1.jpg", "b/readme.txt")
    (root / "d").mkdir()
    listing = scan(root)
    assert (listing.classes, listing.empty_classes, listing.ignored) == (("a", "c"), ("b", "d"), 1)


def test_one_image_is_enough_for_a_class(make):
    assert len(scan(make("a/1.jpg", "b/1.jpg")).train) == 2


@pytest.mark.parametrize("target", [".", "..", "../..", "../b"])
def test_links_neither_hang_nor_carry_images_into_another_class(make, target):
    root = make("a/1.jpg", "b/1.jpg", "b/deep/2.jpg")
    (root / "a" / "loop").symlink_to(target, target_is_directory=True)
    assert scan(root).train == (("a/1.jpg", 0), ("b/1.jpg", 1), ("b/deep/2.jpg", 1))


def test_a_link_to_the_root_is_no_class(make):
    root = make("a/1.jpg", "b/1.jpg")
    (root / "c").symlink_to(root, target_is_directory=True)
    assert scan(root).classes == ("a", "b")


def test_linked_class_folders_count(make, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.jpg").touch()
    root = make("a/1.jpg")
    (root / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert scan(root).train == (("a/1.jpg", 0), ("b/1.jpg", 1))


def test_only_the_suffix_makes_an_image(make):
    root = make(
        "a/1.jpg", "a/deep/er/2.WebP", "b/1.jpg", "b/.hidden.jpg", "b/.git/1.jpg", "b/__MACOSX/1.jpg", "b/n.txt"
    )
    os.mkfifo(root / "a" / "pipe.jpg")
    (root / "b" / "folder.jpg").mkdir()
    (root / "b" / "broken.png").symlink_to("missing")
    listing = scan(root)
    names = ["a/1.jpg", "a/deep/er/2.WebP", "a/pipe.jpg", "b/1.jpg", "b/broken.png", "b/folder.jpg"]
    assert [name for name, _ in listing.train] == names
    assert listing.ignored == 1


def test_a_class_may_be_called_train(make):
    assert scan(make("bus/1.jpg", "train/1.jpg", "tram/1.jpg")).classes == ("bus", "train", "tram")


def test_folders_beside_the_splits_are_ignored_and_counted(make):
    listing = scan(make("train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "docs/figure.png", "labels.txt"))
    assert (listing.classes, listing.ignored) == (("a", "b"), 2)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "holds no images to train on; expected a folder of images for each class"),
        (("a/1.txt", "2.txt"), "holds no images to train on, only 2 other files"),
        (("1.jpg", "2.jpg"), "holds 2 images but no class folders"),
        (("train/1.jpg", "test/1.jpg"), "train holds 1 image but no class folders"),
        (("train/a/1.jpg", "train/b/1.jpg", "test/1.jpg"), "test holds 1 image but no class folders"),
        (("a/1.jpg",), "has images of one class only, 'a'"),
        (("val/a/1.jpg", "test/a/1.jpg"), "has test and val but no folder train"),
        (("train/a/1.jpg", "Training/a/1.jpg"), "two folders for one split among Training, train"),
        (("train/a/1.jpg", "train/b/1.jpg", "more/a/1.jpg"), "more has the same class folders as train"),
        (("test/a/1.jpg", "more/a/1.jpg"), "more has the same class folders as test"),
    ],
)
def test_what_cannot_be_listed_is_refused_by_name(make, names, message):
    assert message in refusal(make(*names))


def test_a_misspelt_root_is_answered_with_the_nearest(make):
    root = make("a/1.jpg", "b/1.jpg", "c/1.txt")
    given = root.with_name("brids")
    assert refusal(given) == f"{given} does not exist. Did you mean {root} (2 folders of images)?"
    assert refusal(root / "x" / "y").endswith("expected a folder with a folder of images for each class")


def test_a_root_that_is_a_file_is_refused(make):
    assert "is a file, not a folder of images" in refusal(make("a.zip") / "a.zip")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["file,class\r\n", "Filename,Label\n", ""])
def test_a_csv_names_files_and_classes(make, delimiter, header):
    root = make("x/1.jpg", "x/2.jpg", "3.raw")
    rows = header + 'x/1.jpg,cat\n\n./x/2.jpg," dog"\n3.raw,cat\n'
    (root / "labels.csv").write_text("\ufeff" + rows.replace(",", delimiter), encoding="utf-8")
    listing = scan(root, "labels.csv")
    assert listing.classes == ("cat", "dog")
    assert listing.train == (("3.raw", 0), ("x/1.jpg", 0), ("x/2.jpg", 1))


def test_a_csv_may_name_splits_in_any_column_order(make, tmp_path):
    root = make("1.jpg", "2.jpg", "3.jpg")
    (tmp_path / "l.csv").write_text("split,class,file\ntrain,a,1.jpg\ntrain,b,2.jpg\nVal,b,3.jpg\n")
    assert scan(root, str(tmp_path / "l.csv")).test == (("3.jpg", 1),)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "has no rows; expected file,class"),
        ("file,class\n1.jpg,a\nmissing.jpg,b\n", "labels.csv row 3: there is no file 'missing.jpg'"),
        ("file,class,colour\n1.jpg,a,red\n", "labels.csv row 1: unknown column 'colour'; expected file, class, split"),
        ("file,split\n1.jpg,train\n", "labels.csv row 1: columns file, split; expected"),
        ("1.jpg,a\n2.jpg,\n", "labels.csv row 2 has no class for 2.jpg"),
        ("1.jpg,a\n2.jpg\n", "labels.csv row 2 has 1 columns"),
        ("1.jpg,a\n2.jpg,b,holdout\n", "labels.csv row 2: unknown split 'holdout'"),
        ("1.jpg,a\n1.jpg,b\n", "labels.csv row 2 lists 1.jpg again, after row 1"),
        ("1.jpg,a\n../1.jpg,b\n", "labels.csv row 2: expected a file inside"),
        ("1.jpg,a\n/etc/passwd,b\n", "labels.csv row 2: expected a file inside"),
        ('1.jpg,"a\n', "as CSV in UTF-8: unexpected end of data"),
        ("1.jpg,a\n2.jpg,a\n", "has images of one class only, 'a'"),
        ("1.jpg,a,val\n2.jpg,b,val\n", "holds no images to train on"),
    ],
)
def test_a_csv_is_refused_with_its_row(make, rows, message):
    root = make("1.jpg", "2.jpg")
    (root / "labels.csv").write_text(rows)
    assert message in refusal(root, labels_csv="labels.csv")


def test_a_csv_that_is_missing_or_no_text_is_refused(make):
    root = make("1.jpg")
    assert "'labels.csv' is neither in" in refusal(root, labels_csv="labels.csv")
    (root / "labels.csv").write_bytes(b"1.jpg,\xff\xfe\n")
    assert "as CSV in UTF-8" in refusal(root, labels_csv="labels.csv")


def test_scanning_changes_nothing(make):
    root = make("a/1.jpg", "b/1.jpg", "c/x.txt")
    before = {path: path.stat() for path in [root, *root.rglob("*")]}
    scan(root)
    after = {path: path.stat() for path in [root, *root.rglob("*")]}
    assert {path: status.st_mtime_ns for path, status in before.items()} == {
        path: status.st_mtime_ns for path, status in after.items()
    }


def test_a_folder_may_be_called_as_a_kind_of_data_set(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(pictures.parent)
    for name in ("folder", "shards"):
        pictures = pictures.rename(pictures.with_name(name))
        assert expand(name)["path"] == expand({"name": name})["path"] == str(pictures)
        assert expand(name)["name"] == "folder"
    with pytest.raises(DataError, match="neither a data set nor a folder"):
        expand("folder")


def test_a_class_that_no_text_can_hold_is_refused_before_anything_is_trained(make):
    root = make("cat/1.jpg", "dog/1.jpg")
    os.rename(root / "cat", os.fsdecode(os.fsencode(root) + b"/caf\xe9"))
    assert "is no UTF-8, so it cannot be written down; rename its folder" in refusal(root)


def test_a_hidden_folder_of_images_is_left_out_and_named(make):
    listing = scan(make("cat/1.jpg", "dog/1.jpg", ".22 rifle/1.jpg", ".git/config", "cat/.thumbs/1.jpg", "dog/.x.jpg"))
    assert listing.classes == ("cat", "dog")
    assert listing.hidden == (".22 rifle",)
