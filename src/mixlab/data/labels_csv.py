"""Labels from a CSV file."""

import csv
import io
import os
from pathlib import Path, PurePosixPath

from mixlab.data.decode import is_image
from mixlab.data.splits import SPLIT_NAMES, Classes, Split
from mixlab.errors import DataError
from mixlab.places import expand_user

_COLUMN_NAMES = {
    "file": "file",
    "filename": "file",
    "path": "file",
    "image": "file",
    "class": "class",
    "label": "class",
    "split": "split",
}
_COLUMNS = ("file", "class", "split")


def read_labels(root: Path, labels_csv: str) -> dict[Split, Classes]:
    """Read a CSV of file, class and, where wanted, split; the header may be missing.

    Args:
        labels_csv: relative to `root`, to which its files are relative too, or to the current folder.

    Raises:
        DataError: naming the row that cannot be used.
    """
    path = next((path for path in (root / labels_csv, expand_user(labels_csv)) if os.path.isfile(path)), None)
    if path is None:
        raise DataError(f"labels_csv {labels_csv!r} is neither in {root} nor in the current folder")
    rows = _rows(path)
    columns = _header(path, *rows[0])
    seen: dict[str, int] = {}
    splits: dict[Split, Classes] = {"train": {}}
    for line, cells in rows[1:] if columns else rows:
        row = f"{path} row {line}"
        names = columns or _COLUMNS[: len(cells)]
        if not 2 <= len(cells) == len(names):
            raise DataError(f"{row} has {len(cells)} columns; expected {', '.join(columns or _COLUMNS[:2])}")
        values = dict(zip(names, cells, strict=True))
        file, split = _file(root, row, values["file"]), _split(row, values.get("split", "train"))
        if not values["class"]:
            raise DataError(f"{row} has no class for {file}")
        if seen.setdefault(file, line) != line:
            raise DataError(f"{row} lists {file} again, after row {seen[file]}; keep one of them")
        splits.setdefault(split, {}).setdefault(values["class"], []).append(file)
    return splits


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the line number and cells of each row that is not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.lstrip().partition("\n")[0]
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
        cells = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path} as CSV in UTF-8: {error}") from None
    rows = [(line, row) for line, row in cells if any(row)]
    if not rows:
        raise DataError(f"{path} has no rows; expected file,class")
    return rows


def _header(path: Path, line: int, cells: list[str]) -> tuple[str, ...]:
    """Return the columns that the first row names, or nothing where it is a row of data."""
    columns = tuple(_COLUMN_NAMES.get(cell.casefold(), "") for cell in cells)
    if not any(columns) or any(map(is_image, cells)):
        return ()
    if "" in columns:
        raise DataError(f"{path} row {line}: unknown column {cells[columns.index('')]!r}; expected file, class, split")
    if len(set(columns)) < len(columns) or not {"file", "class"} <= set(columns):
        raise DataError(f"{path} row {line}: columns {', '.join(cells)}; expected file, class and, if wanted, split")
    return columns


def _file(root: Path, row: str, name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise DataError(f"{row}: expected a file inside {root}, not {name!r}")
    if not os.path.lexists(root / path):
        raise DataError(f"{row}: there is no file {name!r} in {root}")
    return path.as_posix()


def _split(row: str, name: str) -> Split:
    if name.casefold() not in SPLIT_NAMES:
        raise DataError(f"{row}: unknown split {name!r}; expected train, validation or test")
    return SPLIT_NAMES[name.casefold()]
