"""A folder of images as lists of (file, class), from folder names or from a CSV file; nothing in it is changed."""

import difflib
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mixlab.data.decode import is_image
from mixlab.data.labels_csv import read_labels
from mixlab.data.splits import SPLIT_NAMES, Classes, Split, natural_key
from mixlab.errors import DataError

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Items = tuple[tuple[str, int], ...]
Identity = tuple[int, int]  # device and inode, the same for a folder and any link to it


@dataclass(frozen=True)
class FolderListing:
    """Images as (path relative to the root with "/", class index), each split in natural order."""

    classes: tuple[str, ...]  # naturally sorted, from training alone
    train: Items
    validation: Items
    test: Items
    ignored: int  # files that are no images, or are in no class
    empty_classes: tuple[str, ...]  # training folders without images
    hidden: tuple[str, ...]  # folders beside those of classes whose name begins with a dot, with images

    @property
    def splits(self) -> dict[Split, Items]:
        return {"train": self.train, "validation": self.validation, "test": self.test}


def scan(root: Path, labels_csv: str = "", ignore_unknown_classes: bool = False) -> FolderListing:
    """List the images below `root`: class folders, split folders of class folders, or the rows of a CSV file.

    A data set's only second part is its test set, whatever its folder is called: with train and val alone, val is test.
    Links are followed, but not into a folder that is listed already. Whether a file can be decoded is not asked.

    Args:
        root: the data set's folder.
        labels_csv: CSV of file, class and, where wanted, split; relative to `root` or to the current folder.
        ignore_unknown_classes: leave out images of classes that training lacks, and count them as ignored.

    Raises:
        DataError: in one line, for whatever cannot be listed without guessing.
    """
    place = root.expanduser()
    _check_root(root, place)
    splits, ignored = (read_labels(place, labels_csv), 0) if labels_csv else _from_folders(place)
    empty = [name for name, files in splits["train"].items() if not files]
    for split, classes in splits.items():
        splits[split] = {name: files for name, files in classes.items() if files}
    check_spelling(name for classes in splits.values() for name in classes)
    _check_training(root, splits["train"], ignored)
    unknown = _unknown(splits)
    if unknown and not ignore_unknown_classes:
        raise DataError(explain_unknown(unknown))
    classes = tuple(sorted(splits["train"], key=natural_key))
    train, validation, test = (_items(splits.get(split, {}), classes) for split in SPLITS)
    if not test:
        validation, test = (), validation
    ignored += sum(unknown.values())
    hidden = () if labels_csv else _hidden(place)
    return FolderListing(classes, train, validation, test, ignored, tuple(sorted(empty, key=natural_key)), hidden)


def _check_root(given: Path, root: Path) -> None:
    if os.path.isdir(root):
        return
    if os.path.exists(root):
        raise DataError(f"{given} is a file, not a folder of images; if it is an archive, extract it first")
    near = difflib.get_close_matches(root.name, _folders(root.parent) if os.path.isdir(root.parent) else [], n=1)
    if not near:
        raise DataError(f"{given} does not exist; expected a folder with a folder of images for each class")
    sibling = root.parent / near[0]
    count = sum(any(map(is_image, _names(sibling / name))) for name in _folders(sibling))
    folders = f"{count} folder{'' if count == 1 else 's'} of images"
    raise DataError(f"{given} does not exist. Did you mean {given.parent / near[0]} ({folders})?")


def check_spelling(names: Iterable[str]) -> None:
    """Raise DataError for classes that people could not tell apart, or that no text can hold."""
    seen: dict[str, str] = {}
    for name in names:
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # bytes that are no UTF-8, as Python holds them
            raise DataError(f"the name of class {name!a} is no UTF-8, so it cannot be written down; rename its folder")
        other = seen.setdefault(unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()), name)
        if other != name:
            raise DataError(f"classes {other!a} and {name!a} differ only in case or Unicode form; give them one name")


def _check_training(root: Path, classes: Classes, ignored: int) -> None:
    if not classes:
        others = f", only {ignored} other files" if ignored else ""
        raise DataError(f"{root} holds no images to train on{others}; expected a folder of images for each class")
    if len(classes) == 1:
        raise DataError(f"{root} has images of one class only, {next(iter(classes))!r}; expected at least two classes")


def _unknown(splits: Mapping[Split, Classes]) -> dict[tuple[Split, str], int]:
    """Return {(split, class): number of images} for classes that training lacks."""
    return {
        (split, name): len(files)
        for split, classes in splits.items()
        for name, files in classes.items()
        if name not in splits["train"]
    }


def explain_unknown(unknown: Mapping[tuple[Split, str], int]) -> str:
    """Say which classes training lacks, and what to do; `unknown` counts images by split and class."""
    (split, name), images = next(iter(unknown.items()))
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    return (
        f"{split} has a class that training does not: {name!r} ({images} image{'' if images == 1 else 's'}){more}. "
        "Add it, or pass --ignore-unknown-classes."
    )


def _items(files_of: Classes, classes: Sequence[str]) -> Items:
    items = [(file, index) for index, name in enumerate(classes) for file in files_of.get(name, ())]
    return tuple(sorted(items, key=lambda item: [natural_key(part) for part in item[0].split("/")]))


def _from_folders(root: Path) -> tuple[dict[Split, Classes], int]:
    """Return {split: {class: files}}, classes without files included, and the number of other files."""
    outside = {_identity(folder) for folder in (root, *root.resolve().parents)}
    holders: dict[Split, str] = _split_folders(root, outside) or {"train": ""}
    folders: dict[Split, list[str]] = {
        split: [name for name in _folders(root / holder) if _identity(root / holder / name) not in outside]
        for split, holder in holders.items()
    }
    # Links to these are not followed, or a class would take in the images of another.
    listed = outside | {_identity(root / holders[split] / name) for split in folders for name in ("", *folders[split])}
    splits: dict[Split, Classes] = {}
    ignored = 0 if "" in holders.values() else _count_beside(root, set(holders.values()), listed)
    for split, holder in holders.items():
        loose = _loose(root / holder)
        found = {name: walk(root, str(PurePosixPath(holder, name)), listed) for name in folders[split]}
        splits[split] = {name: files for name, (files, _) in found.items()}
        _check_loose(root / holder, loose, splits[split])
        ignored += len(loose) + sum(others for _, others in found.values())
    return splits, ignored


def _split_folders(root: Path, outside: set[Identity]) -> dict[Split, str]:
    """Return the folder of each split, or nothing where the folders of `root` are classes."""
    top = _folders(root)
    named = [name for name in top if name.casefold() in SPLIT_NAMES]
    splits: dict[Split, str] = {SPLIT_NAMES[name.casefold()]: name for name in named}
    # A class may be called "train" (CIFAR-100 has one), so names alone do not decide.
    others = [name for name in top if name not in named and walk(root, name, outside)[0]] if named else []
    if others and not (len(splits) > 1 and "train" in splits and _holds_only_folders(root / splits["train"])):
        _check_no_twins(root, named, others)
        return {}
    if len(splits) < len(named):
        raise DataError(f"{root} has two folders for one split among {', '.join(named)}; keep one of them")
    if splits and "train" not in splits:
        raise DataError(f"{root} has {' and '.join(named)} but no folder train")
    return {split: splits[split] for split in SPLITS if split in splits}


def _holds_only_folders(folder: Path) -> bool:
    return bool(_folders(folder)) and not any(map(is_image, _loose(folder)))


def _check_no_twins(root: Path, named: Sequence[str], others: Sequence[str]) -> None:
    """Refuse train/cat beside more/cat: as classes, "train" and "more" would make no sense."""
    for name in others:
        for split in named:
            if set(_folders(root / name)) & set(_folders(root / split)):
                raise DataError(
                    f"{root / name} has the same class folders as {split}; "
                    "call it train, validation or test, or move it away"
                )


def _count_beside(root: Path, holders: set[str], listed: set[Identity]) -> int:
    walked = [walk(root, name, listed) for name in _folders(root) if name not in holders]
    return len(_loose(root)) + sum(len(files) + others for files, others in walked)


def _check_loose(folder: Path, loose: Sequence[str], classes: Classes) -> None:
    images = sum(map(is_image, loose))
    if images and not any(classes.values()):
        raise DataError(
            f"{folder} holds {images} image{'' if images == 1 else 's'} but no class folders; "
            "put the images of each class into a folder of its own, or name a CSV of file,class as labels_csv"
        )


def walk(root: Path, start: str, listed: set[Identity]) -> tuple[list[str], int]:
    """Return all images below `start`, as paths relative to `root`, and the number of other files."""
    images: list[str] = []
    others, seen, pending = 0, set(listed), [start]
    while pending:
        folder = pending.pop()
        for name in _names(root / folder):
            path = f"{folder}/{name}"
            if is_image(name):
                images.append(path)
            elif not os.path.isdir(root / path):
                others += 1
            elif (identity := _identity(root / path)) not in seen:
                seen.add(identity)
                pending.append(path)
    return images, others


def _folders(folder: Path) -> list[str]:
    return [name for name in _names(folder) if os.path.isdir(folder / name)]


def _loose(folder: Path) -> list[str]:
    return [name for name in _names(folder) if not os.path.isdir(folder / name)]


def _names(folder: Path) -> list[str]:
    """Return the names in a folder in natural order, without hidden ones and what macOS adds to archives."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise DataError(f"cannot read folder {folder}: {error.strerror}") from None
    return sorted((name for name in names if not name.startswith(".") and name != "__MACOSX"), key=natural_key)


def _hidden(root: Path) -> tuple[str, ...]:
    """Return the hidden folders that hold images, beside class folders or in the folder of a split."""
    holders = ["", *(name for name in _folders(root) if name.casefold() in SPLIT_NAMES)]
    found = [PurePosixPath(holder, name) for holder in holders for name in os.listdir(root / holder) if name[0] == "."]
    return tuple(str(path) for path in sorted(found) if _holds_images(root / path))


def _holds_images(folder: Path) -> bool:
    try:
        return any(map(is_image, _names(folder))) if os.path.isdir(folder) else False
    except DataError:  # nobody may look
        return False


def _identity(path: Path) -> Identity:
    status = path.stat()
    return status.st_dev, status.st_ino
