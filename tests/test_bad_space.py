"""Tests for space/: what a search space may not be, and what its file says then."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_meta.errors import BadSpace
from mlflow_meta.space import Categorical, Float, Integer, SearchSpace, read_yaml

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"type": "real", "low": 0, "high": 1}, "`type` must be float, int or categorical"),
    ({"type": ["float"], "low": 0, "high": 1}, "`type` must be float, int or categorical"),
    ({"low": 0, "high": 1}, "`type` must be float, int or categorical, but got None"),
    ({"type": "float", "low": 0}, "`high` must be a number, but got None"),
    ({"type": "float", "low": "small", "high": 1}, "`low` must be a number, but got 'small'"),
    ({"type": "float", "low": True, "high": 2}, "`low` must be a number, but got True"),
    ({"type": "float", "low": [0], "high": 2}, "`low` must be a number"),
    ({"type": "float", "low": 1, "high": 1}, "`low < high` must hold"),
    ({"type": "float", "low": 0, "high": math.inf}, "`low < high` must hold and both be finite"),
    ({"type": "float", "low": math.nan, "high": 1}, "`low < high` must hold and both be finite"),
    ({"type": "float", "low": 0, "high": 10**400}, "int too large"),
    ({"type": "float", "low": 0, "high": 1, "log": True}, "`low > 0` must hold for a log scale"),
    ({"type": "float", "low": 0, "high": 1, "log": "yes"}, "`log` must be true or false"),
    ({"type": "float", "low": 0, "high": 1, "step": 0}, "`0 < step <= high - low` must hold"),
    ({"type": "float", "low": 0, "high": 1, "step": 2}, "`0 < step <= high - low` must hold"),
    ({"type": "float", "low": 0, "high": 1, "hi": 2}, "`hi` does not go with `type: float`"),
    ({"type": "float", "low": 0, "high": 1, 5: 2}, "`5` does not go with `type: float`"),
    ({"type": "float", "low": 0, "high": 1, "choices": [1, 2]}, "`choices` does not go with"),
    ({"type": "int", "low": 0.5, "high": 2}, "`low` of an int must be a whole number"),
    ({"type": "int", "low": 0, "high": 9, "step": 1.5}, "`step` of an int must be a whole number"),
    ({"type": "int", "low": 0, "high": 9, "log": True}, "`low > 0` must hold for a log scale"),
    ({"type": "categorical"}, "`choices` must be a list, but got None"),
    ({"type": "categorical", "choices": "abc"}, "`choices` must be a list, but got 'abc'"),
    ({"type": "categorical", "choices": []}, "At least 1 choice is needed"),
    ({"type": "categorical", "choices": ["a", "a"]}, "Choices must differ"),
    ({"type": "categorical", "choices": [1, 1.0]}, "Choices must differ"),
    ({"type": "categorical", "choices": ["a", None]}, "texts, numbers or true/false, but got None"),
    ({"type": "categorical", "choices": [[1], [2]]}, "texts, numbers or true/false"),
    ({"type": "categorical", "choices": [1, math.nan]}, "Numbers must be finite"),
    ({"type": "categorical", "choices": [1, math.inf]}, "Numbers must be finite"),
    ({"type": "categorical", "choices": [0, 1], "log": True}, "A log scale needs positive numbers"),
    ({"type": "categorical", "choices": ["a", "b"], "log": True}, "A log scale needs positive"),
    ({"type": "categorical", "choices": [1, 2], "when": ["x"]}, "`when` must be"),
    ({"type": "categorical", "choices": [1, 2], "when": {"nope": [1]}}, "`when` names 'nope'"),
    ({"type": "categorical", "choices": [1, 2], "when": {"fine": []}}, "lists no value"),
    ({"type": "categorical", "choices": [1, 2], "when": {"fine": ["c"]}}, "names 'c', but fine is"),
    ({"type": "categorical", "choices": [1, 2], "when": {"bad": [1]}}, "round in a circle"),
]


@pytest.mark.parametrize(("entry", "complaint"), WRONG, ids=[str(entry) for entry, _ in WRONG])
def test_a_space_that_can_not_be_names_the_param_and_the_law(
    entry: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadSpace) as caught:
        SearchSpace.from_dict(
            {"fine": {"type": "categorical", "choices": ["a", "b"]}, "bad": entry}
        )
    assert "bad" in str(caught.value)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", [None, [], {}, "x: 1", 3, {"x": None}, {"x": [1, 2]}])
def test_what_is_no_space_at_all_is_refused_too(spec: Any) -> None:
    with pytest.raises(BadSpace):
        SearchSpace.from_dict(spec)


def test_a_condition_on_true_is_not_one_on_1() -> None:
    flag = {"type": "categorical", "choices": [False, True]}
    child = {"type": "int", "low": 1, "high": 2, "when": {"flag": [1]}}
    with pytest.raises(BadSpace, match=r"child: `when: flag` names 1, but flag is one of"):
        SearchSpace.from_dict({"flag": flag, "child": child})


def test_up_to_five_wrong_params_are_named_at_once() -> None:
    wrong = {f"p{i}": {"type": "float", "low": 1, "high": 0} for i in range(7)}
    with pytest.raises(BadSpace) as caught:
        SearchSpace.from_dict(wrong)
    assert [f"p{i}:" in str(caught.value) for i in range(7)] == [True] * 5 + [False] * 2
    assert str(caught.value).endswith("(+2 more)")


def test_numbers_without_a_dot_are_numbers_in_a_file() -> None:
    space = read_yaml(
        "parameters:\n"
        "  lr: {type: float, low: 1e-5, high: 1E0, log: true}\n"
        "  l2: {type: categorical, choices: [1e-3, 1e-5, 1.5e2]}\n"
        "  n: {type: int, low: 1e1, high: 1e3}\n"
        "  name: {type: categorical, choices: ['1e-5', a]}\n"
    )
    assert space.params == {
        "lr": Float(low=1e-5, high=1.0, log=True),
        "l2": Categorical(choices=(1e-5, 1e-3, 150.0)),
        "n": Integer(low=10, high=1000),
        "name": Categorical(choices=("1e-5", "a")),
    }


def test_a_dict_from_another_yaml_loader_may_have_its_numbers_as_texts() -> None:
    space = SearchSpace.from_dict({"lr": {"type": "float", "low": "1e-5", "high": "1e0"}})
    assert space.params == {"lr": Float(low=1e-5, high=1.0)}


def test_a_file_may_hold_the_params_alone_and_empty_fields() -> None:
    assert read_yaml("n: {type: int, low: 1, high: 3, step: , when: }").params == {
        "n": Integer(low=1, high=3)
    }


def test_a_condition_on_one_value_needs_no_list() -> None:
    space = read_yaml(
        "m: {type: categorical, choices: [a, b]}\nn: {type: int, low: 1, high: 3, when: {m: a}}"
    )
    assert space.params["n"].when == {"m": ("a",)}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "needs `parameters:`, but this one holds None"),
        ("- a\n- b\n", "needs `parameters:`"),
        ("parameters:\n", "maps param names to their ranges, but got None"),
        ("parameters:\n  lr: {type: float\n  b: 1", "is no YAML: .* in line [23]"),
        ("a: &x [*x]\nb: !!python/object:os.system {}", "is no YAML"),
        ("a: 2026-99-99", "is no YAML"),
        ("a: \x00", "is no YAML"),
        ("lr: 3", "lr: expected"),
        ("lr: {type: float, low: 2020-01-01, high: 1}", "lr: `low` must be a number"),
    ],
)
def test_a_file_that_is_no_space_says_why(text: str, complaint: str) -> None:
    with pytest.raises(BadSpace, match=complaint):
        read_yaml(text)


@given(st.one_of(st.text(), st.text(alphabet="a1:-{}[]&*!#,\n\t'\"|>%@?. e")))
@settings(max_examples=300)
def test_no_text_breaks_the_reader(text: str) -> None:
    with suppress(BadSpace):
        read_yaml(text)


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (lambda: Float(low=1, high=0), "`low < high` must hold"),
        (lambda: Integer(low=1, high=3, step=3), "`0 < step <= high - low` must hold"),
        (lambda: Categorical(choices=(2, 1)), "ascending order"),
        (lambda: SearchSpace({}), "at least one parameter"),
    ],
)
def test_wrong_values_can_not_be_built(make: Any, law: str) -> None:
    with pytest.raises(ValueError, match=law):
        make()


def test_a_space_can_not_be_changed() -> None:
    space = SearchSpace({"x": Integer(low=0, high=1)})
    with pytest.raises(TypeError):
        space.params["y"] = Integer(low=0, high=1)  # type: ignore[index]
