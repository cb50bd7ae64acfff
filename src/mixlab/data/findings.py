"""What may be wrong with a data set, each kind found by a function of its own."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mixlab.data.copies import exact_copies, near_copies
from mixlab.data.decode import SUFFIXES, Oddity
from mixlab.data.look import SIDE, Pictures
from mixlab.spec import ResizeMode

Kind = Literal[
    "unreadable",
    "odd",
    "ignored",
    "empty",
    "tiny",
    "absent",
    "imbalance",
    "validation",
    "leak",
    "labels",
    "copies",
    "near leak",
    "near",
    "shape",
]
TINY = 10  # images of a training class below which it is reported
UNEVEN = 3.0  # times the images of the smallest training class that the largest may have
LONG = 2.0  # ratio of the sides above which a picture's shape is reported: a square of it has less than half its area
SHOWN = 3  # examples in a line

ODD: dict[Oddity, tuple[str, str]] = {  # what -> text, advice
    "misnamed": ("by content not of the format that the name says", "read by content; other programs may refuse them"),
    "animated": ("of several frames", "only the first frame is used"),
    "16-bit": ("with more than 8 bits a channel", "read as 8 bits"),
    "CMYK": ("in CMYK", "converted to red, green, blue without a colour profile; look at the colours"),
}
COPIES: dict[Kind, tuple[str, str]] = {
    "leak": ("exact copies in two splits", "remove all but one of each; results on them mean nothing"),
    "labels": ("exact copies in two classes", "at most one class is right"),
    "copies": ("exact copies within a split", "they count twice; remove all but one"),
    "near leak": ("near copies in two splits", "look at them; keep those of one thing in one split"),
    "near": ("near copies within a split", "they count almost twice"),
}


@dataclass(frozen=True)
class Finding:
    """One line of a report."""

    kind: Kind
    text: str
    advice: str
    examples: tuple[str, ...] = ()  # for people, all of them
    items: tuple[Any, ...] = ()  # the same for machines

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "text": self.text, "advice": self.advice, "items": self.items or self.examples}

    def lines(self) -> list[str]:
        shown = ", ".join(self.examples[:SHOWN]) + (", ..." if len(self.examples) > SHOWN else "")
        return [f"{self.kind:<11} {self.text}{': ' if shown else ''}{shown}", f"{'':<11} {self.advice}"]


def files(pictures: Pictures, ignored: int) -> list[Finding]:
    """Files that cannot be read, that are odd, and that are left out."""
    found = []
    if pictures.unreadable:
        names = tuple(f"{pictures.names[index]} ({reason})" for index, reason in pictures.unreadable.items())
        text, advice = f"{_count(names, 'picture')} that cannot be read", "left out of training; repair or remove them"
        found.append(Finding("unreadable", text, advice, names))
    for what, (text, advice) in ODD.items():
        names = tuple(pictures.names[index] for index in pictures.odd.get(what, []))
        if names:
            found.append(Finding("odd", f"{_count(names, 'file')} {text}", advice, names))
    if ignored:
        kinds = " ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes[:1])
        advice = f"pictures end in {kinds} and the like, and lie in the folder of a training class"
        found.append(
            Finding("ignored", f"{_count(range(ignored), 'file')} left out, no picture by name or of no class", advice)
        )
    return found


def shards(damaged: Mapping[str, str]) -> list[Finding]:
    """Shards that are not what was packed."""
    names = tuple(f"{name} ({reason})" for name, reason in damaged.items())
    text, advice = f"{_count(names, 'shard')} that changed", "copy them again; what they hold may be wrong"
    return [Finding("unreadable", text, advice, names)] if names else []


def validation(counts: Mapping[str, Mapping[str, int]]) -> list[Finding]:
    """Training images of which none can be set aside; `counts` as in `classes`."""
    if "validation" in counts:
        return []
    text = "no class has enough pictures to set some aside for validation"
    return [Finding("validation", text, "mixlab train refuses them; add pictures, or a validation and a test folder")]


def classes(counts: Mapping[str, Mapping[str, int]], empty: Sequence[str]) -> list[Finding]:
    """Classes without pictures, with few, and of very different sizes.

    Args:
        counts: split -> class -> images, for splits that have images.
        empty: classes without training images.
    """
    found, train = [], counts["train"]
    if empty:
        text, advice = f"{_count(empty, 'class')} without pictures", "left out; add pictures, or remove the folder"
        found.append(Finding("empty", text, advice, tuple(empty)))
    tiny = [f"{name} ({count})" for name, count in train.items() if count < TINY]
    if tiny:
        text, advice = (
            f"{_count(tiny, 'class')} with fewer than {TINY} training pictures",
            "add pictures, or join classes",
        )
        found.append(Finding("tiny", text, advice, tuple(tiny)))
    for split, of_class in counts.items():
        absent = tuple(name for name, count in of_class.items() if count == 0 and split != "train")
        if absent:
            text = f"{_count(absent, 'class')} without pictures in {split}"
            found.append(Finding("absent", text, "what is measured there says nothing about them", absent))
    return found + _imbalance({name: count for name, count in train.items() if count})


def _imbalance(train: Mapping[str, int]) -> list[Finding]:
    most, least = max(train, key=train.__getitem__), min(train, key=train.__getitem__)
    ratio = train[most] / train[least]
    if ratio <= UNEVEN:
        return []
    text = f"{most} has {ratio:.1f} times the training pictures of {least} ({train[most]:,} and {train[least]:,})"
    advice = "mixlab train --class-weights weights the loss, --balanced shows each class equally often"
    return [Finding("imbalance", text, advice)]


def copies(pictures: Pictures) -> list[Finding]:
    """Copies in two splits, of two classes, and within a split; near ones after exact ones."""
    readable = pictures.readable
    exact = [readable[group] for group in exact_copies(pictures.digests[readable])]
    near = _near(pictures, readable, exact)
    leaks, inside = _apart(pictures.splits, exact)
    near_leaks, near_inside = _apart(pictures.splits, near)
    groups: dict[Kind, list[np.ndarray]] = {
        "leak": leaks,
        "labels": _apart(pictures.labels, exact)[0],
        "copies": _apart(pictures.labels, inside)[1],
        "near leak": near_leaks,
        "near": near_inside,
    }
    return [_copies(kind, pictures, found) for kind, found in groups.items() if found]


def _near(pictures: Pictures, readable: np.ndarray, exact: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return pairs of near copies among pictures of 16 pixels or more, one of each group of exact copies."""
    again = np.concatenate([readable[:0], *(group[1:] for group in exact)])
    large = readable[pictures.sizes[readable].min(1, initial=SIDE) >= SIDE]
    chosen = np.setdiff1d(large, again)
    return list(chosen[near_copies(pictures.thumbnails[chosen])])


def _apart(
    values: Sequence[Any] | np.ndarray, groups: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the groups whose pictures have different values, and those whose have one."""
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for group in groups:
        parts[all(values[at] == values[group[0]] for at in group)].append(group)
    return parts


def _copies(kind: Kind, pictures: Pictures, groups: Sequence[np.ndarray]) -> Finding:
    what, advice = COPIES[kind]
    splits = [" and ".join(dict.fromkeys(pictures.splits[at] for at in group)) for group in groups]
    notes = [f"{count:,} {between}" for between, count in Counter(splits).items() if kind in ("leak", "near leak")]
    mixed = len(_apart(pictures.labels, groups)[0])
    notes += [f"{mixed:,} in two classes"] if mixed and kind != "labels" else []
    text = f"{_count(groups, 'group')} of {what}" + (f" ({', '.join(notes)})" if notes else "")
    examples = tuple(_example(kind, pictures, group) for group in groups)
    return Finding(kind, text, advice, examples, tuple([pictures.place(at) for at in group] for group in groups))


def _example(kind: Kind, pictures: Pictures, group: np.ndarray) -> str:
    """Return names of a group: one for each split and class that it has, or two."""
    different = {(pictures.splits[at], pictures.labels[at]): at for at in reversed(group)}
    shown = sorted(different.values()) if len(different) > 1 else group[:2]
    note = {"leak": "split", "near leak": "split", "labels": "class"}.get(kind)
    places = [pictures.place(at) for at in shown]
    names = [f"{place['name']} ({place[note]})" if note else place["name"] for place in places]
    sign = " ~ " if kind in ("near leak", "near") else " = "
    return sign.join([*names, "..."] if len(group) > len(shown) else names)


def shapes(pictures: Pictures, mode: ResizeMode) -> list[Finding]:
    """Pictures that the resize to a square treats badly."""
    long = pictures.readable[elongation(pictures) > LONG]
    if len(long) == 0:
        return []
    loss = {
        "crop": "of which crop keeps less than half; data.resize_mode=pad keeps all",
        "pad": "of which pad fills less than half of the input; data.resize_mode=crop keeps their middle, larger",
        "squash": "which squash stretches more than twofold; data.resize_mode=pad keeps their shape",
    }
    text, _, advice = loss[mode].partition("; ")
    names = tuple(f"{pictures.names[at]} ({pictures.sizes[at, 0]} x {pictures.sizes[at, 1]})" for at in long)
    return [Finding("shape", f"{_count(names, 'picture')} more than twice as long as wide, {text}", advice, names)]


def elongation(pictures: Pictures) -> np.ndarray:
    """Return the longer side over the shorter, of each readable picture."""
    sizes = pictures.sizes[pictures.readable]
    return sizes.max(1, initial=1) / sizes.min(1, initial=2**31)


def _count(of: Iterable[Any], name: str) -> str:
    count = sum(1 for _ in of)
    plural = f"{name}es" if name.endswith("s") else f"{name}s"
    return f"{count:,} {name if count == 1 else plural}"
