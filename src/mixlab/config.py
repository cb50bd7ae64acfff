"""The base of every configuration, and its spelling in TOML files and `key.path=value` words."""

import hashlib
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from mixlab.errors import UsageError, did_you_mean, shortened, shown

# Far above any use, and low enough that a file from elsewhere cannot ask for all memory or time.
Width = Annotated[int, Field(ge=1, le=65_536)]
WidthOrNone = Annotated[int, Field(ge=0, le=65_536)]  # 0: as the field says
Depth = Annotated[int, Field(ge=1, le=256)]


class Config(BaseModel):
    """A frozen, checked set of values that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values.

        Raises:
            UsageError: naming the key, the value and the way out.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UsageError("; ".join(_explain(cls, values, detail) for detail in error.errors()[:3])) from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UsageError: where it cannot be opened or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None


def parse_override(word: str) -> tuple[list[str], Any]:
    """Split "model.kernel_size=9" into (["model", "kernel_size"], 9); a value that is not TOML is a string.

    Raises:
        UsageError: where there is no "=" or a part of the key is empty.
    """
    key, equals, text = word.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise UsageError(f"cannot read {word!r}: expected key=value, such as epochs=10 or model.kernel_size=9")
    try:
        return path, tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text.strip()
    except (ValueError, RecursionError):
        return path, text.strip()


def assign(values: dict[str, Any], path: list[str], value: Any) -> None:
    """Set `values[path[0]][path[1]]... = value`, making the tables on the way; "model" = "x" counts as its name."""
    for key in path[:-1]:
        inner = values.get(key, {})
        values[key] = inner if isinstance(inner, dict) else {"name": inner}
        values = values[key]
    below = values.get(path[-1])
    if isinstance(below, dict) and isinstance(value, str):
        below["name"] = value  # a name given after its fields keeps them
    else:
        values[path[-1]] = value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid on top; a table whose `name` changes replaces the one below it whole."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            same = value.get("name", below.get("name")) == below.get("name")
            value = merge(below, value) if same else value
        result[key] = value
    return result


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"model.dim": 256, ...} for nested tables."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def differences(ours: Config, theirs: Config) -> list[str]:
    """Return one "key is A, not B" for each value in which two configs differ."""
    left, right = flatten(ours.model_dump(mode="json")), flatten(theirs.model_dump(mode="json"))
    keys = dict.fromkeys([*left, *right])
    return [f"{key} is {left.get(key)!r}, not {right.get(key)!r}" for key in keys if left.get(key) != right.get(key)]


def canonical_json(config: Config) -> str:
    """Return JSON that is equal exactly for equal configs."""
    return json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def digest(config: Config) -> str:
    """Return 8 hexadecimal digits that differ between configs."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:8]


def _explain(cls: type[BaseModel], values: Mapping[str, Any], detail: ErrorDetails) -> str:
    keys = _given_keys(values, detail["loc"])
    key, value = shortened(".".join(keys)), detail["input"]
    if detail["type"] == "extra_forbidden":
        known = _known_keys(cls, detail["loc"][:-1])
        return f"unknown key {key}{did_you_mean(keys[-1], known) or '; known keys: ' + ', '.join(sorted(known))}"
    if detail["type"] == "missing":
        return f"{key} is missing"
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tags = [tag.strip("' ") for tag in detail.get("ctx", {}).get("expected_tags", "").split(",") if tag.strip()]
        name = value.get("name", "") if isinstance(value, Mapping) else value
        return f"unknown {key} {shown(name)}{did_you_mean(str(name), tags) or '; known: ' + ', '.join(tags)}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if detail["type"] == "value_error" and isinstance(value, Mapping):  # of a table as a whole: it need not be shown
        table = ".".join(key for key in keys if key != value.get("name"))
        return f"{table}: {message}" if table else message
    return f"{key}={shown(value)}: {message}" if key else message


def _given_keys(values: Any, location: Iterable[str | int]) -> list[str]:
    """Drop from pydantic's location the tags of unions, which the reader never wrote."""
    location, keys = list(location), []
    for position, part in enumerate(location):
        inside: Any = dict(enumerate(values)) if isinstance(values, list | tuple) else values
        known = isinstance(inside, Mapping)
        if known and part in inside:
            values = inside[part]
        elif known and position < len(location) - 1:
            continue
        keys.append(str(part))
    return keys


def _known_keys(cls: type[BaseModel], location: Iterable[str | int]) -> list[str]:
    options: list[type[BaseModel]] = [cls]
    for part in location:
        step = [found for option in options if part in option.model_fields for found in _models_in(option, str(part))]
        tagged = [option for option in options if _tag(option) == part]
        options = step or tagged or options
    return [name for option in options for name in option.model_fields]


def _models_in(cls: type[BaseModel], field: str) -> list[type[BaseModel]]:
    pending, found = [cls.model_fields[field].annotation], []
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found.append(annotation)
        elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, tuple):
            pending.extend(typing.get_args(annotation))
    return found


def _tag(cls: type[BaseModel]) -> Any:
    return cls.model_fields["name"].default if "name" in cls.model_fields else None
