"""What is compared: variants of an experiment, seeds and one budget."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat

from mixlab.config import Config, parse_override
from mixlab.durations import seconds
from mixlab.errors import UsageError, did_you_mean
from mixlab.evaluation.leaderboard import counted
from mixlab.experiment import Experiment

BudgetKind = Literal["own", "epochs", "images", "macs", "time"]
KINDS = ("epochs", "images", "macs", "time")


class Budget(Config):
    """What every run may spend; "own" leaves each variant the epochs of its experiment."""

    kind: BudgetKind = "own"
    amount: PositiveFloat = 1.0  # epochs, images, multiply-accumulates of the training, or seconds

    @property
    def gives_epochs(self) -> bool:
        """Whether it decides how many epochs there are; a time only limits them."""
        return self.kind in ("epochs", "images", "macs")

    def __str__(self) -> str:
        units = {"epochs": "epoch", "images": "image", "macs": "multiply-accumulate", "time": "second"}
        return "own epochs" if self.kind == "own" else f"{counted(self.amount, units[self.kind])} each"


class Variant(Config):
    name: str
    experiment: Experiment  # its seed is replaced by each of the comparison's
    auto_learning_rate: bool = False  # found by a range test before each run


class ComparisonRequest(Config):
    """Everything that decides a comparison."""

    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0,)
    budget: Budget = Budget()


@contextlib.contextmanager
def naming(variant: str) -> Iterator[None]:
    """Say which variant a mistake is in."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{error} (variant {variant})") from None


def refuse_equal(variants: Sequence[Variant]) -> None:
    """Refuse variants that would be one run, compared with itself."""
    for first, second in itertools.combinations(variants, 2):
        if first.name == second.name:
            raise UsageError(f"{first.name} is given twice; leave one out")
        if first.model_copy(update={"name": second.name}) == second:
            raise UsageError(f"{first.name} and {second.name} are the same experiment; leave one out")


def parse_budget(text: str) -> Budget:
    """Read "epochs=30", "images=500000", "macs=1e15", "time=10m" or "time=1h30m".

    Raises:
        UsageError: for anything else.
    """
    if not text:
        return Budget()
    kind, _, amount = text.partition("=")
    if kind not in KINDS:
        raise UsageError(f"budget {text}{did_you_mean(kind, KINDS) or '; expected epochs=, images=, macs= or time='}")
    found = seconds(amount, f"budget {text}") if kind == "time" else amount
    try:
        return Budget.parse({"kind": kind, "amount": float(found)})
    except (ValueError, UsageError):
        raise UsageError(f"budget {text}: expected a number above 0, such as epochs=30 or time=10m") from None


def parse_vary(word: str) -> tuple[str, list[Any]]:
    """Read "model.kernel_size=3,5,7" as a key path and its values.

    Raises:
        UsageError: where there are fewer than two values.
    """
    key, _, texts = word.partition("=")
    found = [parse_override(f"{key}={text}") for text in texts.split(",") if text]
    if len(found) < 2:
        raise UsageError(f"--vary {word}: expected a key and two values or more, such as model.kernel_size=3,5,7")
    return ".".join(found[0][0]), [value for _, value in found]


def parse_seeds(given: int | Sequence[int]) -> tuple[int, ...]:
    """Return the seeds: so many from 0 on, or those given.

    Raises:
        UsageError: for a seed that is given twice.
    """
    if isinstance(given, int):
        return tuple(range(given))
    if len(set(given)) < len(given):
        raise UsageError(f"seeds {', '.join(map(str, given))}: one is given twice")
    return tuple(given)


def read_seeds(text: str) -> int | tuple[int, ...]:
    """Read "3", how many, or "4,5,6", which; "7," is the one.

    Raises:
        UsageError: for anything else.
    """
    words = text.strip().removesuffix(",").split(",")
    if not all(word.strip().isdecimal() for word in words) or text.strip() == "0":
        raise UsageError(f"--seeds {text}: expected how many, such as 3, or which, such as 4,5,6 (one alone: 7,)")
    return tuple(map(int, words)) if "," in text else int(text)
