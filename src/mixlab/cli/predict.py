"""`mixlab predict`."""

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from mixlab.cli import common
from mixlab.errors import UsageError
from mixlab.run.table import as_cell, one_line


@click.command(short_help="Classify pictures.")
@click.argument("model")
@click.argument("pictures", nargs=-1, required=True)
@click.option("--top", default=3, show_default=True, type=click.IntRange(1), help="Classes to show for each picture.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--features", default="", metavar="FILE.npz", help="Write pooled features too: names, features.")
@common.reject_below
@common.answer_precision
@common.as_json
@common.device
@common.quiet_warnings
def predict(
    model: str,
    pictures: tuple[str, ...],
    top: int,
    as_csv: bool,
    features: str,
    reject_below: str,
    precision: str,
    as_json: bool,
    device: str,
) -> None:
    """Classify PICTURES with MODEL: a run, a bundle folder or an exported ONNX file.

    PICTURES are files, folders, patterns such as '*.jpg', or - for one picture on standard input. Folders are searched
    as for training: links are followed, hidden files and __MACOSX left out. A file that cannot be read is reported in
    its row, a folder without pictures beside the others; the exit code is then 1.
    """
    from mixlab.evaluation.classifier import read_classifier  # not mixlab.api, which imports all that mixlab can do
    from mixlab.run.trained import find_model

    if as_csv and as_json:
        raise click.UsageError("Choose --csv or --json.")
    if features and not features.endswith(".npz"):
        raise click.UsageError(f"--features {features}: expected a file that ends in .npz.")
    found, wrong = find_pictures(pictures)
    classifier = read_classifier(find_model(model), device, reject_below, precision)
    top = min(top, classifier.spec.num_classes)
    rows = [_row(name, answer, top) for name, answer in _answers(classifier, found)]
    if features:
        _write_features(features, classifier, [each for each, row in zip(found, rows, strict=True) if "top" in row])
    if as_json:
        common.print_json({"model": model, "predictions": rows})
    elif as_csv:
        write_csv(rows, top, sys.stdout)
    else:
        _print_rows(rows)
    if wrong or any("error" in row for row in rows):
        raise click.exceptions.Exit(1)


def find_pictures(arguments: Iterable[str]) -> tuple[list[tuple[str, Path | bytes]], list[str]]:
    """Return the name and the file, or the bytes, of each picture that files, folders, patterns and - stand for.

    What is wrong with each of the others is said on standard error and returned too.

    Raises:
        UsageError: where none of the arguments stands for a picture.
        DataError: where a folder, or one inside it, cannot be read.
    """
    found, wrong = [], []
    for argument in arguments:
        pictures = _pictures_of(argument)
        found += pictures
        if not pictures:
            wrong.append(_why_none(argument))
    if wrong and not found:
        raise UsageError("; ".join(wrong))
    for reason in wrong:
        common.echo(f"skipped  {reason}", err=True)
    return found, wrong


def _why_none(argument: str) -> str:
    from mixlab.places import expand_user

    if argument and expand_user(argument).is_dir():
        return f"the folder {argument} holds no pictures"
    return f"no file matches {argument or repr(argument)}"


def _pictures_of(argument: str) -> list[tuple[str, Path | bytes]]:
    import glob

    from mixlab.places import expand_user

    path = expand_user(argument)
    if not argument:  # such as a variable of the shell that is not set; as a path it would be the current folder
        return []
    if argument == "-":
        return [("-", sys.stdin.buffer.read())]
    if path.is_dir():
        return [(str(file), file) for file in _pictures_below(path)]
    if path.exists() or not any(sign in argument for sign in "*?["):
        return [(argument, path)]
    return [(match, Path(match)) for match in sorted(glob.glob(str(path), recursive=True))]


def _pictures_below(folder: Path) -> list[Path]:
    """Return the pictures that training would find, in natural order."""
    import os

    from mixlab.data.folder import walk
    from mixlab.data.splits import natural_key

    above = [os.stat(place) for place in (folder, *folder.resolve().parents)]  # links to these are not followed
    names, _ = walk(folder, ".", {(status.st_dev, status.st_ino) for status in above})
    return sorted((folder / name for name in names), key=lambda file: natural_key(str(file)))


def _answers(classifier: Any, found: list[tuple[str, Path | bytes]]) -> Iterator[tuple[str, Any]]:
    names = [name for name, _ in found]
    answers = classifier.stream(source for _, source in found)
    yield from ((name, answer) for name, (_, answer) in zip(names, answers, strict=True))


def _row(name: str, answer: Any, top: int) -> dict[str, Any]:
    from mixlab.errors import UnreadableImage

    if isinstance(answer, UnreadableImage):
        return {"file": name, "error": str(answer)}
    shown = [{"class": found, "probability": share} for found, share in answer.top(top)]
    return {"file": name, "unknown": answer.is_unknown, "top": shown}


def _write_features(file: str, classifier: Any, readable: list[tuple[str, Path | bytes]]) -> None:
    import io

    import numpy as np

    from mixlab import durable
    from mixlab.places import expand_user

    content = io.BytesIO()
    array = classifier.features(source for _, source in readable)
    np.savez(content, names=np.array([name for name, _ in readable], dtype=np.str_), features=array)
    durable.write_bytes(expand_user(file), content.getvalue())
    common.echo(f"written  {file}: features of {len(array):,} pictures, {array.shape[1]} numbers each", err=True)


def _print_rows(rows: list[dict[str, Any]]) -> None:
    width = max(len(one_line(row["file"])) for row in rows)
    for row in rows:
        shown = [f"{found['class']} {found['probability']:.1%}" for found in row.get("top", [])]
        text = "   ".join(shown) or f"cannot be read: {row['error']}"
        if row.get("unknown"):
            text = f"unknown ({text})"
        common.echo(f"{one_line(row['file']):<{width}}  {text}")


def write_csv(rows: list[dict[str, Any]], top: int, file: TextIO) -> None:
    """Write rows as the page does (page/csv.js), so that one reader is enough for both."""
    writer = csv.writer(file)
    places = range(1, top + 1)
    numbered = (f"{name}_{place}" for place in places for name in ("class", "probability"))
    writer.writerow(["file", *numbered, "unknown", "error"])
    for row in rows:
        shown = [(found["class"], f"{found['probability']:.6f}") for found in row.get("top", [])]
        cells = [cell for pair in shown for cell in pair]
        unknown = "" if "error" in row else str(int(row["unknown"]))
        texts = [row["file"], *cells, *[""] * (2 * top - len(cells)), unknown, row.get("error", "")]
        writer.writerow([as_cell(one_line(text)) for text in texts])
