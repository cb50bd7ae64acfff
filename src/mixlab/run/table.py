"""Rows of values: read from JSON lines, written as CSV for spreadsheets, or as columns for people."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixlab.durable import parse_json

# Control characters, and those that turn the direction of what follows, by which a name could pass for something else.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of one


def one_line(text: str) -> str:
    """Return text for a terminal or a log, with its control characters spelt out."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def as_cell(text: str) -> str:
    """Return text for a cell of CSV: what a spreadsheet would compute gets an apostrophe in front."""
    return f"'{text}" if text.lstrip("'").startswith(FORMULA) else text


def from_cell(text: str) -> str:
    """Return what `as_cell` was given."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA) else text


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines; none where there is no such file."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = parse_json(line)
        except ValueError:  # half a line of a killed writer
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a header and one line for each row; numbers keep every digit, and what a row lacks is empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    if rows:
        writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def columns(headers: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()) -> str:
    """Return plain columns under their headers; those in `right` are aligned to the right."""
    cells = [[one_line(str(value)) for value in row] for row in [headers, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    lines = [
        [
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in cells
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _cell(value: Any) -> Any:
    return as_cell(value) if isinstance(value, str) else value
