"""Is a new model worse than the one it would replace?"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mixlab.evaluation.paired import Difference
from mixlab.evaluation.predictions import Prediction

SURE = 0.05  # probability, at most, of calling one class or more worse where none is


@dataclass(frozen=True)
class Flip:
    """What two models say of an image; a flip where one of them is right."""

    image: str
    label: str
    here: Prediction
    there: Prediction

    @property
    def mistake(self) -> Prediction:
        """The answer of the model that is wrong."""
        return self.there if self.here.right else self.here

    @property
    def kind(self) -> Literal["won", "lost"]:
        return "won" if self.here.right else "lost"


@dataclass(frozen=True)
class ClassChange:
    """The flips of one class."""

    name: str
    images: int
    won: int
    lost: int
    p_value: float  # exact, one-sided McNemar, times the classes left to test (Holm, 1979): of getting no worse

    @property
    def is_worse(self) -> bool:
        return self.p_value < SURE


@dataclass(frozen=True)
class Against:
    """A model beside the one it would replace."""

    folder: Path
    other: str
    difference: Difference  # of this model over the other one
    here: float  # top-1 accuracy, on the images that both can answer
    there: float
    flips: tuple[Flip, ...]  # the surest mistakes first
    classes: tuple[ClassChange, ...]  # those with flips, the worst first
    margin: float | None  # share; None: only what is proven to be worse fails
    unknown_there: dict[str, int]  # class that the other model does not know -> images, which are left out
    learned_there: int  # images that the other model was trained on, which are left out

    def flipped(self, kind: str) -> list[Flip]:
        return [flip for flip in self.flips if flip.kind == kind]

    def failures(self) -> list[str]:
        """Say why this model must not replace the other one; nothing where it may."""
        low, high = 100 * self.difference.low, 100 * self.difference.high
        found = []
        if self.difference.verdict == "worse":
            found.append(f"top-1 is worse than that of {self.other}, by {-high:.2f} to {-low:.2f} points")
        elif self.margin is not None and self.difference.low < -self.margin:
            allowed = f"{100 * self.margin:g} points"
            found.append(f"top-1 may be {-low:.2f} points worse than that of {self.other}, more than {allowed}")
        worse = [change for change in self.classes if change.is_worse]
        return found + [f"class {each.name} is worse: {each.lost} lost, {each.won} won" for each in worse]

    def as_json(self) -> dict[str, Any]:
        return {
            "other": self.other,
            "folder": str(self.folder),
            "images": self.difference.images,
            "top1": self.here,
            "top1_other": self.there,
            "difference": self.difference.model_dump(mode="json"),
            "verdict": self.difference.verdict,
            "margin": self.margin,
            "won": len(self.flipped("won")),
            "lost": len(self.flipped("lost")),
            "classes": [{**vars(each), "is_worse": each.is_worse} for each in self.classes],
            "unknown_there": self.unknown_there,
            "learned_there": self.learned_there,
            "failures": self.failures(),
        }


def flips_of(answers: Sequence[Flip]) -> tuple[Flip, ...]:
    """Return the images that one model gets right; what was lost before what was won, the surest mistake first."""
    flips = [each for each in answers if each.here.right != each.there.right]
    return tuple(sorted(flips, key=lambda flip: (flip.here.right, -flip.mistake.confidence)))


def changes_of(answers: Sequence[Flip]) -> tuple[ClassChange, ...]:
    """Test each class for having become worse; return those with flips, the worst first."""
    images = Counter(each.label for each in answers)
    lost = Counter(each.label for each in answers if each.there.right and not each.here.right)
    won = Counter(each.label for each in answers if each.here.right and not each.there.right)
    raw = sorted((_no_worse(lost[name], won[name]), name) for name in images)
    found, highest = [], 0.0
    for place, (p_value, name) in enumerate(raw):
        highest = max(highest, min(1.0, p_value * (len(raw) - place)))
        if won[name] or lost[name]:
            found.append(ClassChange(name, images[name], won[name], lost[name], highest))
    return tuple(found)


def _no_worse(lost: int, won: int) -> float:
    """Return how probable it is that of all flips so many or more are lost, where each may as well be won."""
    flips = lost + won
    ways = [math.lgamma(flips + 1) - math.lgamma(k + 1) - math.lgamma(flips - k + 1) for k in range(lost, flips + 1)]
    return min(1.0, math.fsum(math.exp(each - flips * math.log(2)) for each in ways))
