"""Tests for space/: parameters, search spaces, and the file that people edit."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlflow_meta.space import (
    Categorical,
    Float,
    InferredSpace,
    Integer,
    Param,
    SearchSpace,
    read_yaml,
)
from mlflow_meta.space.params import same
from mlflow_meta.trials import Config, ConfigValue

numbers = st.floats(-1e6, 1e6).map(lambda x: float(f"{x:.6g}"))
positive = st.floats(1e-8, 1e4).map(lambda x: float(f"{x:.6g}"))
# Less the line breaks of Unicode (U+0085, U+2028) and surrogates, which PyYAML does not write back.
letters = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), include_characters="\n\t")
texts = st.one_of(
    st.text(letters, max_size=8),
    st.sampled_from(
        ["yes", "null", "~", "1e-5", "1.5e3", "007", "0x1f", "2026-01-01", "1:30", "- a"]
    ),
)


@st.composite
def float_specs(draw: st.DrawFn) -> dict[str, Any]:
    log = draw(st.booleans())
    low, high = sorted(draw(st.lists(positive if log else numbers, min_size=2, max_size=2)))
    assume(high - low > 1e-6 * max(abs(low), abs(high), 1e-6))
    spec: dict[str, Any] = {"type": "float", "low": low, "high": high}
    if draw(st.booleans()):
        spec["step"] = (high - low) / draw(st.sampled_from([1, 2, 2.5, 7, 10]))
    return {**spec, "log": True} if log else spec


@st.composite
def int_specs(draw: st.DrawFn) -> dict[str, Any]:
    log = draw(st.booleans())
    low = draw(st.integers(1 if log else -10_000, 10_000))
    width = draw(st.integers(1, 10_000))
    spec: dict[str, Any] = {"type": "int", "low": low, "high": low + width}
    if width >= 2 and draw(st.booleans()):
        spec["step"] = draw(st.integers(2, width))
    return {**spec, "log": True} if log else spec


@st.composite
def categorical_specs(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["numbers", "positive", "mixed"]))
    if kind == "mixed":
        values = st.one_of(texts, st.booleans(), st.integers(-9, 9), numbers)
        choices = draw(
            st.lists(values, min_size=1, max_size=5, unique_by=lambda v: (str(v), type(v)))
        )
        assume(not any(same(a, b) for i, a in enumerate(choices) for b in choices[:i]))
        return {"type": "categorical", "choices": choices}
    source = positive if kind == "positive" else st.one_of(st.integers(-99, 99), numbers)
    choices = sorted(draw(st.lists(source, min_size=1, max_size=5, unique=True)))
    if kind == "positive" and draw(st.booleans()):
        return {"type": "categorical", "choices": choices, "log": True}
    return {"type": "categorical", "choices": choices}


@st.composite
def spaces(draw: st.DrawFn, *, conditional: bool = True, finite: bool = False) -> SearchSpace:
    """Any space; conditions nest as it happens."""
    names = st.lists(st.text(letters, min_size=1, max_size=6), min_size=1, max_size=5, unique=True)
    kinds = [categorical_specs(), int_specs()] + ([] if finite else [float_specs()])
    spec: dict[str, dict[str, Any]] = {}
    for name in draw(names):
        entry = draw(st.one_of(kinds))
        parents = [parent for parent in spec if spec[parent]["type"] == "categorical"]
        if conditional and parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            values = st.sampled_from(spec[parent]["choices"])
            entry["when"] = {parent: [draw(values)]}
        spec[name] = entry
    return SearchSpace.from_dict(spec)


def allows(param: Param, value: ConfigValue) -> bool:
    if isinstance(param, Categorical):
        return any(same(value, choice) for choice in param.choices)
    if isinstance(param, Integer):
        whole = isinstance(value, int) and param.low <= value <= param.high
        return whole and (int(value) - param.low) % param.step == 0
    if not (isinstance(value, float) and param.low <= value <= param.high):
        return False
    steps = 0.0 if param.step is None else (value - param.low) / param.step
    return abs(steps - round(steps)) < 1e-4


def is_inside(space: SearchSpace, config: Config) -> bool:
    """The second way to tell: straight from the words of the space, parents and all."""
    for name, param in space.params.items():
        exists = all(
            parent in config and any(same(config[parent], v) for v in values)
            for parent, values in param.when.items()
        )
        if exists != (name in config) or (exists and not allows(param, config[name])):
            return False
    return set(config) <= set(space.params)


# --- one parameter ---------------------------------------------------------------------------


@given(unit=st.floats(0, 1), log=st.booleans())
def test_from_unit_then_to_unit_is_the_identity_to_the_digits_that_matter(
    unit: float, log: bool
) -> None:
    param = Float(low=1e-4, high=10.0, log=log)
    back = param.to_unit(np.array(param.from_unit(np.array([unit])), dtype=float))
    assert math.isclose(back[0], unit, abs_tol=5e-5)


@given(low=st.sampled_from([-1e6, 0.0, 1.0, 1e6]), width=st.sampled_from([1e-3, 1.0, 1e5]))
def test_numbers_have_no_digits_that_nobody_chose_and_do_not_fall_together(
    low: float, width: float
) -> None:
    param = Float(low=low, high=low + width)
    drawn = {str(value) for value in param.sample(200, np.random.default_rng(0))}
    assert len(drawn) > 190
    # `low` and `high` may have what digits they like; a log scale has 5 of its own.
    fine = Float(low=1e-5, high=1.0, log=True).sample(200, np.random.default_rng(0))
    assert max(len(f"{float(value):.12e}".split("e")[0].rstrip("0")) for value in fine) <= 6


@given(low=st.integers(1, 50), width=st.integers(1, 200), log=st.booleans(), step=st.integers(1, 5))
def test_every_whole_number_comes_back_from_its_unit(
    low: int, width: int, log: bool, step: int
) -> None:
    assume(step <= width)
    param = Integer(low=low, high=low + width, log=log, step=step)
    grid = param.grid()
    assert param.from_unit(param.to_unit(np.array(grid, dtype=float))) == grid


@given(
    spaces(conditional=False), st.one_of(numbers, st.integers(), st.floats(), texts, st.booleans())
)
def test_the_nearest_value_is_allowed_and_none_is_nearer(
    space: SearchSpace, value: ConfigValue
) -> None:
    for param in space.params.values():
        nearest = param.nearest(value)
        if nearest is None:
            is_nan = isinstance(value, float) and math.isnan(value)
            assert is_nan or isinstance(value, str | bool) or isinstance(param, Categorical)
            continue
        assert allows(param, nearest)
        assert param.nearest(nearest) == nearest
        if isinstance(param, Integer) and isinstance(value, int | float) and abs(value) < 1e9:
            best = min(abs(float(v) - float(value)) for v in param.grid())
            assert abs(float(nearest) - float(value)) == pytest.approx(best)


def test_a_value_inside_the_bounds_stays_what_it_is_to_the_last_bit() -> None:
    param = Float(low=1e-5, high=1.0, log=True)
    for value in (0.001, 0.01, 1e-05, 0.3):
        assert param.nearest(value) == value


def test_a_choice_is_its_own_nearest_however_close_the_next_one_lies() -> None:
    param = Categorical(choices=(0.0, 1e-300, 1e6))
    assert [param.nearest(choice) for choice in param.choices] == list(param.choices)


def test_steps_of_a_tenth_are_written_as_people_write_them() -> None:
    param = Float(low=0.0, high=1.0, step=0.1)
    assert [str(v) for v in param.grid()] == [str(i / 10) for i in range(11)]
    assert param.from_unit(np.linspace(0, 1, 11)) == param.grid()


@pytest.mark.parametrize(
    ("param", "tolerance"),
    [
        (Integer(low=1, high=5), 0.01),
        (Integer(low=-4, high=8, step=3), 0.01),
        (Categorical(choices=("a", "b", True)), 0.01),
    ],
)
def test_every_value_of_a_plain_grid_is_drawn_equally_often(param: Param, tolerance: float) -> None:
    counts = Counter(param.sample(20_000, np.random.default_rng(0)))
    assert set(counts) == set(param.grid())
    for count in counts.values():
        assert count / 20_000 == pytest.approx(1 / param.n_values, abs=tolerance)


@pytest.mark.parametrize(
    "param", [Float(low=1e-4, high=1.0, log=True), Integer(low=1, high=10_000, log=True)]
)
def test_a_log_scale_gives_every_decade_its_share(param: Float | Integer) -> None:
    drawn = np.array(param.sample(20_000, np.random.default_rng(0)), dtype=float)
    shares = np.histogram(np.log10(drawn / param.low), bins=[-0.1, 1, 2, 3, 4.1])[0] / 20_000
    assert shares == pytest.approx([0.25] * 4, abs=0.05)


@given(spaces(conditional=False, finite=True))
def test_a_param_reads_back_what_mlflow_keeps_of_it(space: SearchSpace) -> None:
    for param in space.params.values():
        if param.n_values > 1000:
            continue
        spelt = [str(choice) for choice in param.grid()]
        assume(len(set(spelt)) == len(spelt))
        assert [param.parse(text) for text in spelt] == param.grid()


@pytest.mark.parametrize("param", [Float(low=0, high=1), Integer(low=0, high=1)])
def test_a_text_that_is_no_number_is_no_value_of_a_number(param: Param) -> None:
    assert param.parse("fast") is None
    assert param.nearest("fast") is None
    assert param.nearest(True) is None


def test_a_condition_tells_true_from_1() -> None:
    space = SearchSpace.from_dict(
        {
            "flag": {"type": "categorical", "choices": [False, True]},
            "x": {"type": "int", "low": 1, "high": 2, "when": {"flag": [True]}},
        }
    )
    assert space.active({"flag": 1, "x": 2}) == {"flag": 1}
    assert space.active({"flag": True, "x": 2}) == {"flag": True, "x": 2}


# --- a whole space ---------------------------------------------------------------------------


@given(spaces())
def test_a_space_survives_its_dict_json_and_yaml(space: SearchSpace) -> None:
    assert SearchSpace.from_dict(space.to_dict()) == space
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    assert list(SearchSpace.from_dict(space.to_dict()).params) == space.names


@given(spaces(), st.dictionaries(texts, texts, max_size=3))
@settings(max_examples=60)
def test_the_file_that_people_edit_reads_back_the_same_types(
    space: SearchSpace, left_out: dict[str, str]
) -> None:
    read = read_yaml(InferredSpace(space, left_out).to_yaml())
    assert read == space
    for name, param in space.params.items():
        if isinstance(param, Categorical):
            choices = getattr(read.params[name], "choices", ())
            assert [type(c) for c in choices] == [type(c) for c in param.choices]


@given(spaces(), st.integers(0, 2**32 - 1))
def test_what_is_sampled_lies_inside(space: SearchSpace, seed: int) -> None:
    configs = space.sample(5, np.random.default_rng(seed))
    assert all(is_inside(space, config) for config in configs)
    assert configs == space.sample(5, np.random.default_rng(seed))
    assert all(type(v) in (str, int, float, bool) for config in configs for v in config.values())


@given(spaces(), st.data())
def test_the_nearest_config_lies_inside_and_is_its_own_nearest(
    space: SearchSpace, data: st.DataObject
) -> None:
    names = st.one_of(st.sampled_from(space.names), st.text(max_size=3))
    values = st.one_of(st.integers(), st.floats(), st.booleans(), texts)
    config = data.draw(st.dictionaries(names, values, max_size=6))
    near = space.nearest(config, np.random.default_rng(0))
    assert is_inside(space, near)
    assert space.nearest(near, np.random.default_rng(1)) == near


@given(spaces(), st.integers(0, 2**32 - 1))
def test_completing_keeps_what_is_set_and_active(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    (config,) = space.sample(1, rng)
    kept = {name: config[name] for name in config if rng.random() < 0.5}
    whole = space.complete(kept, rng)
    assert is_inside(space, whole)
    assert space.complete(config, rng) == config
    assert all(whole[name] == value for name, value in kept.items() if name in whole)
    roots = {name for name in kept if not space.params[name].when}
    assert roots <= whole.keys()


@given(spaces(conditional=False, finite=True))
def test_a_space_without_conditions_has_as_many_configs_as_it_says(space: SearchSpace) -> None:
    assume(space.n_configs <= 3000)
    configs = space.enumerate()
    assert len(configs) == space.n_configs
    assert all(is_inside(space, config) for config in configs)


@given(spaces(finite=True), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_enumerating_finds_all_that_can_be_sampled_once_each(space: SearchSpace, seed: int) -> None:
    assume(space.n_configs <= 3000)
    configs = [tuple(sorted(c.items(), key=str)) for c in space.enumerate()]
    keys = {(config, tuple(type(v) for _, v in config)) for config in configs}
    assert len(keys) == len(configs) <= space.n_configs
    sampled = space.sample(20, np.random.default_rng(seed))
    assert {tuple(sorted(c.items(), key=str)) for c in sampled} <= set(configs)


def test_a_continuum_can_not_be_enumerated() -> None:
    space = SearchSpace({"x": Float(low=0, high=1)})
    assert space.n_configs == math.inf
    with pytest.raises(ValueError, match="can't be enumerated"):
        space.enumerate()


def test_conditions_nest_and_children_may_stand_before_their_parents() -> None:
    space = SearchSpace.from_dict(
        {
            "rate": {"type": "int", "low": 1, "high": 2, "when": {"drop": [True]}},
            "drop": {"type": "categorical", "choices": [False, True], "when": {"model": ["mlp"]}},
            "model": {"type": "categorical", "choices": ["mlp", "tree", "knn"]},
        }
    )
    assert space.names == ["model", "drop", "rate"]
    assert sorted(map(str, space.enumerate())) == [
        "{'model': 'knn'}",
        "{'model': 'mlp', 'drop': False}",
        "{'model': 'mlp', 'drop': True, 'rate': 1}",
        "{'model': 'mlp', 'drop': True, 'rate': 2}",
        "{'model': 'tree'}",
    ]
    assert space.active({"rate": 1, "drop": True, "model": "tree"}) == {"model": "tree"}
    assert space.n_configs == 12


def test_two_spellings_of_one_config_have_one_key() -> None:
    key = SearchSpace.key
    assert key({"a": 1, "b": "x"}) == key({"b": "x", "a": 1.0})
    assert key({"a": 0.1 + 0.2}) == key({"a": 0.3})
    assert key({"a": True}) != key({"a": 1})
    assert key({"a": 1}) != key({"a": 2})
    assert key({"a": 1}) != key({})


def test_a_config_is_read_from_the_texts_that_mlflow_keeps() -> None:
    space = SearchSpace.from_dict(
        {
            "model": {"type": "categorical", "choices": ["mlp", "tree"]},
            "lr": {"type": "float", "low": 0.0, "high": 1.0, "when": {"model": ["mlp"]}},
            "depth": {"type": "int", "low": 1, "high": 9, "when": {"model": ["tree"]}},
        }
    )
    texts = {"model": "mlp", "lr": "1e-05", "depth": "3", "seed": "0"}
    assert space.parse(texts) == {"model": "mlp", "lr": 1e-05}
    assert space.parse({"model": "tree", "depth": "3.5"}) == {"model": "tree"}


@given(spaces(), st.integers(0, 2**32 - 1))
def test_what_was_written_as_texts_reads_back_as_the_same_config(
    space: SearchSpace, seed: int
) -> None:
    for param in space.params.values():
        spelt = [str(choice) for choice in getattr(param, "choices", ())]
        assume(len(set(spelt)) == len(spelt))
    (config,) = space.sample(1, np.random.default_rng(seed))
    assert space.parse({name: str(value) for name, value in config.items()}) == config
