"""What is in one shard: its pictures and their classes, from the headers of the tar and the small files in it.

The layout is WebDataset's: members whose names are equal up to the first dot of the file's own name are one sample.
Its class is in NAME.cls (a number or a word), else in NAME.json under "label" or "class", else it is the folder.
"""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mixlab import durable
from mixlab.data import tars
from mixlab.data.decode import is_image
from mixlab.errors import DataError

LabelSource = Literal[".cls", ".json", "folder"]

LABEL_BYTES = 1 << 16  # up to which a small file is looked into
LABEL_LENGTH = 255  # characters
_COMPRESSED = ((b"\x1f\x8b", "gunzip"), (b"\xfd7zXZ\x00", "unxz"), (b"BZh", "bunzip2"), (b"\x28\xb5\x2f\xfd", "unzstd"))
_NUMBER = re.compile(r"[0-9]{1,9}")
_SAMPLE = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__(/|$)")  # WebDataset leaves these out


class Member(NamedTuple):
    """One picture."""

    name: str
    label: str  # the class, by name or by number
    source: LabelSource  # where the class was found
    offset: int  # of its first byte in the shard
    size: int  # bytes


@dataclass
class _Sample:
    pictures: list[tuple[str, int, int]] = field(default_factory=list)  # name, offset, size
    texts: dict[str, str] = field(default_factory=dict)  # suffix -> content, of the small files


def read_members(path: Path) -> tuple[list[Member], int]:
    """Return the pictures of a shard, as they lie in it, and the number of samples without one.

    Nothing is extracted, so a name may be anything; control characters in it are spelt out.

    Raises:
        DataError: in one line, where the shard is damaged, cut off or compressed, or a picture has no class.
    """
    try:
        with path.open("rb") as stream:
            _check_plain(path, stream)
            samples = _samples(path, stream)
    except tars.READ_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise DataError(f"cannot read the shard {path}: {reason}") from None
    members = [_member(path, key, sample) for key, sample in samples.items() if sample.pictures]
    return members, len(samples) - len(members)


def _check_plain(path: Path, stream: io.BufferedReader) -> None:
    start = stream.peek(6)
    for magic, program in _COMPRESSED:
        if start.startswith(magic):
            raise DataError(
                f"the shard {path} is compressed, so no picture can be read without all before it; pictures hardly "
                f"shrink, so unpack it once: {program} < {path.name} > {path.name.partition('.')[0]}.tar"
            )


def _samples(path: Path, stream: io.BufferedReader) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    for _, member in tars.tar_members(stream):
        found = _SAMPLE.fullmatch(member.name)
        if found is None or not member.isreg() or member.issparse() or _META.match(member.name):
            continue
        sample, suffix = samples.setdefault(found[1], _Sample()), f".{found[2].lower()}"
        if is_image(f"picture{suffix}"):
            sample.pictures.append((spelt_out(member.name), member.offset_data, member.size))
        elif suffix in (".cls", ".json") and member.size <= LABEL_BYTES:
            if suffix in sample.texts:
                raise _refusal(path, member.name, "the name appears twice")
            stream.seek(member.offset_data)
            sample.texts[suffix] = stream.read(member.size).decode("utf-8", "replace").strip()
    return samples


def _member(path: Path, key: str, sample: _Sample) -> Member:
    name, offset, size = sample.pictures[0]
    if len(sample.pictures) > 1:
        raise _refusal(path, name, f"{sample.pictures[1][0]} has the same key; a sample is one picture")
    folder = key.rpartition("/")[0].rpartition("/")[2]
    found: dict[LabelSource, Any] = {
        ".cls": sample.texts.get(".cls"),
        ".json": _label_in(path, name, sample.texts.get(".json", "{}")),
        "folder": None if folder in ("", ".", "..") else folder,
    }
    for source, value in found.items():
        if value is not None:
            return Member(name, _label(path, name, source, value), source, offset, size)
    raise _refusal(path, name, "no class: expected a .cls or .json of the same name, or a folder")


def _label_in(path: Path, name: str, text: str) -> Any:
    """Return the class in a sample's JSON, or None where it has none."""
    try:
        fields = durable.parse_json(text)
    except ValueError:
        raise _refusal(path, name, "the .json beside it is not JSON") from None
    return fields.get("label", fields.get("class")) if isinstance(fields, dict) else None


def _label(path: Path, name: str, source: LabelSource, value: Any) -> str:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not text or len(text) > LABEL_LENGTH or tars.CONTROL.search(text):
        raise _refusal(path, name, f"expected a class as a number or a word in its {source}, not {str(value)[:40]!r}")
    return str(int(text)) if source != "folder" and _NUMBER.fullmatch(text) else text


def check_sources(sources: Iterable[tuple[str, LabelSource]]) -> None:
    """Refuse a set where some pictures have their class elsewhere than the first: a file beside them is missing."""
    first: tuple[str, LabelSource] | None = None
    for name, source in sources:
        first = first or (name, source)
        if source != first[1]:
            raise DataError(
                f"{name} has its class from its {source}, {first[0]} from its {first[1]}; "
                "one of them lacks the file with its class"
            )


def spelt_out(name: str) -> str:
    """Return a name as text that can be printed: control characters and bytes beyond UTF-8 as Python spells them."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return tars.CONTROL.sub(lambda found: ascii(found[0])[1:-1], name)


def _refusal(path: Path, name: str, reason: str) -> DataError:
    return DataError(f"the shard {path} cannot be used: {spelt_out(name)}: {reason}")
