from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, PositiveInt

from mixlab.config import Config, assign, flatten, merge, parse_override, read_toml
from mixlab.errors import UsageError


class Small(Config):
    name: Literal["small"] = "small"
    kernel_size: PositiveInt = 3


class Large(Config):
    name: Literal["large"] = "large"
    heads: PositiveInt = 8


class Tree(Config):
    model: Annotated[Small | Large, Field(discriminator="name")] = Small()
    epochs: PositiveInt = 2
    betas: tuple[float, float] = (0.9, 0.99)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model": {"name": "small", "kernal_size": 9}},
            "unknown key model.kernal_size; did you mean kernel_size?",
        ),
        ({"model": {"name": "smal"}}, "unknown model 'smal'; did you mean small?"),
        ({"epohs": 3}, "unknown key epohs; did you mean epochs?"),
        ({"xyzzy": 3}, "unknown key xyzzy; known keys: betas, epochs, model"),
        ({"epochs": 0}, "epochs=0: should be greater than 0"),
        ({"epochs": "many"}, "epochs='many'"),
        ({"model": {"name": "large", "heads": -1}}, "model.heads=-1"),
        ({"betas": [0.9, "x"]}, "betas.1='x'"),
    ],
)
def test_every_error_names_key_value_and_way_out(values: dict, message: str):
    with pytest.raises(UsageError) as caught:
        Tree.parse(values)
    assert message in str(caught.value)


def test_configs_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Small().kernel_size = 5  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("epochs=10", ["epochs"], 10),
        ("model.kernel_size=9", ["model", "kernel_size"], 9),
        ("optimizer.learning_rate=1e-3", ["optimizer", "learning_rate"], 1e-3),
        ("scale=[0.5, 1]", ["scale"], [0.5, 1]),
        ("freeze=true", ["freeze"], True),
        ("data.path=~/my birds", ["data", "path"], "~/my birds"),
        ("precision=bfloat16", ["precision"], "bfloat16"),
        ("weights=", ["weights"], ""),
    ],
)
def test_overrides_are_toml_or_text(word: str, path: list[str], value: object):
    assert parse_override(word) == (path, value)


@pytest.mark.parametrize("word", ["epochs", "=3", "model..dim=3", ".dim=3"])
def test_an_override_without_key_and_value_is_refused(word: str):
    with pytest.raises(UsageError, match="key=value"):
        parse_override(word)


@given(st.text())
def test_any_word_is_an_override_or_a_usage_error(word: str):
    try:
        path, _ = parse_override(word)
    except UsageError:
        return
    assert all(path)


def test_assigning_below_a_name_keeps_the_name():
    values: dict = {"model": "small"}
    assign(values, ["model", "kernel_size"], 7)
    assert values == {"model": {"name": "small", "kernel_size": 7}}


def test_a_name_given_after_its_fields_keeps_them():
    values: dict = {}
    assign(values, ["model", "kernel_size"], 7)
    assign(values, ["model"], "small")
    assert values == {"model": {"name": "small", "kernel_size": 7}}


def test_merging_keeps_a_table_of_the_same_name_and_replaces_another():
    base = {"optimizer": {"name": "adamw", "betas": 1}, "epochs": 3}
    assert merge(base, {"optimizer": {"lr": 2}}) == {"optimizer": {"name": "adamw", "betas": 1, "lr": 2}, "epochs": 3}
    assert merge(base, {"optimizer": {"name": "sgd"}}) == {"optimizer": {"name": "sgd"}, "epochs": 3}


@given(st.dictionaries(st.text(min_size=1).filter(lambda key: "." not in key), st.integers()))
def test_flattening_a_flat_table_changes_nothing(values: dict):
    assert flatten(values) == values


def test_a_recipe_that_is_missing_or_no_toml_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot read"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(UsageError, match=r"bad\.toml is not TOML"):
        read_toml(tmp_path / "bad.toml")
