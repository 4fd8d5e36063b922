"""Tests for constraints between params: read, never run; met by all that samples and searches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_meta import propose
from mlflow_meta.columns import frame_of
from mlflow_meta.errors import BadSpace
from mlflow_meta.models import ZOO
from mlflow_meta.proposal import spread_out
from mlflow_meta.search import local_search, thompson, top_k
from mlflow_meta.space import (
    InferredSpace,
    Rejection,
    SearchSpace,
    constrained,
    narrowed,
    own_space,
    read_yaml,
)
from mlflow_meta.space.constraints import Constraint
from mlflow_meta.trials import Config

PARAMETERS: dict[str, dict[str, Any]] = {
    "batch_size": {"type": "categorical", "choices": [64, 256, 1024], "log": True},
    "accumulate": {"type": "int", "low": 1, "high": 16, "log": True},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
    "momentum": {"type": "float", "low": 0, "high": 0.9, "step": 0.1, "when": {"optimizer": "sgd"}},
    "nesterov": {
        "type": "categorical",
        "choices": [False, True],
        "when": {"optimizer": ["sgd"]},
    },
    "hidden_1": {"type": "int", "low": 8, "high": 512, "log": True},
    "hidden_2": {"type": "int", "low": 8, "high": 512, "log": True},
    "epochs": {"type": "int", "low": 10, "high": 100},
    "warmup": {"type": "int", "low": 0, "high": 20},
}
CONSTRAINTS = [
    "batch_size * accumulate <= 4096",
    "hidden_1 >= hidden_2",
    "not (nesterov and momentum == 0)",
    "warmup < epochs / 10",
]
SPACE = SearchSpace.from_dict({"parameters": PARAMETERS, "constraints": CONSTRAINTS})


def is_met(config: Config) -> bool:
    """The constraints of `SPACE` by hand."""
    c: dict[str, Any] = dict(config)
    return bool(
        c["batch_size"] * c["accumulate"] <= 4096
        and c["hidden_1"] >= c["hidden_2"]
        and not (c["optimizer"] == "sgd" and c["nesterov"] and c["momentum"] == 0)
        and c["warmup"] < c["epochs"] / 10
    )


PYTHON: list[tuple[str, Callable[..., bool]]] = [
    ("a * b <= 40", lambda a, b, t, f: a * b <= 40),
    ("a - 2 * b > -7 or not f", lambda a, b, t, f: a - 2 * b > -7 or not f),
    ("0 < a <= b < 9", lambda a, b, t, f: 0 < a <= b < 9),
    ("t in ('x', 'y') and a != b", lambda a, b, t, f: t in ("x", "y") and a != b),
    ("t not in ['x'] or f == true", lambda a, b, t, f: t != "x" or f),
    ("max(a, b, 3) - min(a, b) < 6", lambda a, b, t, f: max(a, b, 3) - min(a, b) < 6),
    ("abs(a - b) >= 2 and f", lambda a, b, t, f: abs(a - b) >= 2 and f),
    ("a ** 2 + b ** 0.5 < 20", lambda a, b, t, f: a**2 + b**0.5 < 20),
    ("a % 3 == 1 or b // 2 > +1", lambda a, b, t, f: a % 3 == 1 or b // 2 > 1),
    ("log2(a) < 2 < exp(b) / 3", lambda a, b, t, f: math.log2(a) < 2 < math.exp(b) / 3),
    ("sqrt(param('a')) != log10(b) + log(a)", lambda a, b, t, f: True),
    ("f", lambda a, b, t, f: f),
    ('t == "x" and -a < -3', lambda a, b, t, f: t == "x" and -a < -3),
]


@pytest.mark.parametrize(("text", "python"), PYTHON, ids=[text for text, _ in PYTHON])
def test_an_expression_says_what_it_says_in_python(text: str, python: Any) -> None:
    rng = np.random.default_rng(0)
    configs = [
        {
            "a": int(rng.integers(1, 12)),
            "b": float(rng.uniform(1, 12)),
            "t": str(rng.choice(["x", "y", "z"])),
            "f": bool(rng.integers(2)),
        }
        for _ in range(200)
    ]
    found = Constraint.read(text).allows(configs)
    assert found.tolist() == [bool(python(**config)) for config in configs]


def test_a_constraint_on_a_param_that_does_not_exist_holds() -> None:
    constraint = Constraint.read("momentum > 0.5 and a < 1")
    assert constraint.allows([{"a": 7}, {"a": 0, "momentum": 0.4}]).tolist() == [True, False]


def test_what_has_no_value_compares_as_false() -> None:
    constraint = Constraint.read("log(a) < 1")
    assert constraint.allows([{"a": -1.0}, {"a": 0.0}, {"a": 9.0}]).tolist() == [False, True, False]


def test_samples_meet_all_constraints_and_cover_what_meets_them() -> None:
    configs = SPACE.sample(2000, np.random.default_rng(0))
    assert all(is_met(config) and SPACE.holds(config) for config in configs)
    # Rejection by hand, of the space without constraints, has the same shares.
    free = SearchSpace.from_dict(PARAMETERS).sample(20_000, np.random.default_rng(1))
    kept = [config for config in free if is_met(config)]
    for name, value in (("optimizer", "sgd"), ("batch_size", 1024), ("warmup", 0)):
        shares = [np.mean([c[name] == value for c in some]) for some in (configs, kept)]
        assert shares[0] == pytest.approx(shares[1], abs=0.05)


def test_the_nearest_configuration_meets_the_constraints_and_changes_little() -> None:
    rng = np.random.default_rng(0)
    near = SPACE.nearest(
        {"batch_size": 1024, "accumulate": 16, "optimizer": "adam", "hidden_1": 9,
         "hidden_2": 8, "epochs": 50, "warmup": 2}, rng,
    )  # fmt: skip
    assert is_met(near)
    assert (near["optimizer"], near["epochs"], near["hidden_1"]) == ("adam", 50, 9)
    free = SearchSpace.from_dict(PARAMETERS).sample(50, rng)
    assert all(is_met(SPACE.nearest(config, rng)) for config in free)


def test_a_local_search_looks_only_at_what_meets_the_constraints() -> None:
    def worth(configs: Any) -> np.ndarray:
        # The best lie where constraints forbid.
        return np.array([float(c["hidden_2"] - c["hidden_1"] + c["accumulate"]) for c in configs])

    start = SearchSpace.from_dict(PARAMETERS).sample(20, np.random.default_rng(0))
    found = local_search(SPACE, worth, start=start, rng=np.random.default_rng(0))
    assert all(is_met(config) for config in found.configs)
    assert found.worth[0] >= 8  # equal widths, and steps taken 16 at once as batches allow


FINITE: dict[str, dict[str, Any]] = {
    "a": {"type": "int", "low": 1, "high": 12},
    "b": {"type": "int", "low": 1, "high": 12},
    "model": {"type": "categorical", "choices": ["mlp", "tree"]},
    "depth": {"type": "int", "low": 1, "high": 9, "when": {"model": ["tree"]}},
}
TIED = SearchSpace.from_dict(
    {"parameters": FINITE, "constraints": ["a + b <= 9", "depth < a or depth == 1"]}
)


def history(space: SearchSpace, n: int, seed: int = 0) -> pd.DataFrame:
    """Trials whose best lie where `TIED` forbids."""
    configs = SearchSpace(space.params).sample(n, np.random.default_rng(seed))
    value = [-(c["a"] + c["b"] + c.get("depth", 3)) for c in configs]  # type: ignore[operator]
    return frame_of(configs, space.names).assign(task="t", value=np.array(value, dtype=float))


@pytest.mark.parametrize("kind", ["linear", "forest"])
@pytest.mark.parametrize("engine", ["auto", "branch", "enumerated", "policy"])
def test_every_engine_honours_constraints_and_those_that_prove_find_the_best(
    kind: str, engine: str
) -> None:
    if kind not in ZOO:
        kind = next(name for name in ZOO if name != "linear")
    model = ZOO[kind]()
    model.learn(history(TIED, 60), TIED)
    found = top_k(
        model, TIED, 5, context={"task": "t"}, engine=engine if kind == "linear" else "auto",
        rng=np.random.default_rng(0),
    )  # fmt: skip
    everything = [c for c in SearchSpace(TIED.params).enumerate() if TIED.satisfied(c)]
    assert len(everything) == len(TIED.enumerate()) < TIED.n_configs
    assert found.configs and all(TIED.holds(config) for config in found.configs)
    if engine != "policy":
        frame = frame_of(everything, TIED.names).assign(task="t")
        best = np.sort(model.predict(frame).mean)[:5]
        np.testing.assert_allclose(np.sort(found.values), best, rtol=1e-9)
        assert found.is_exact


def test_batches_meet_constraints_with_a_model_and_without() -> None:
    trials = history(TIED, 40)
    rng = np.random.default_rng(0)
    assert all(TIED.holds(c) for c in propose(trials, TIED, task="t", n=8, rng=rng))
    assert all(TIED.holds(c) for c in spread_out(TIED, 8, tried=[], rng=rng))
    model = ZOO["linear"]()
    model.learn(trials, TIED)
    configs, _ = thompson(model, TIED, 6, context={"task": "t"}, tried=[], rng=rng)
    assert len(configs) == 6 and all(TIED.holds(c) for c in configs)


def test_parts_of_a_space_keep_its_constraints() -> None:
    part = narrowed(TIED, ["model=mlp", "a>=4"])
    assert [c.text for c in part.constraints] == ["a + b <= 9"]  # depth is gone
    no = Rejection(run="r", config={"b": "1"}, reason="b!=1")
    left = constrained(TIED, [no]).space
    assert left.constraints == TIED.constraints
    assert {c["b"] for c in left.enumerate()} == set(range(2, 9))
    only = TIED.only({"a", "b"})
    assert only is not None and len(only.constraints) == 1


def test_a_task_with_trials_of_its_own_is_searched_under_the_constraints_of_the_model() -> None:
    trials = history(TIED, 40)
    space = own_space(trials, trials, "t", TIED)
    assert space.constraints == TIED.constraints
    assert all(TIED.satisfied(config) for config in space.sample(100, np.random.default_rng(0)))


def test_files_and_plain_data_read_back_as_the_same_space() -> None:
    text = InferredSpace(SPACE, {"seed": "is a seed"}).to_yaml()
    assert read_yaml(text) == SPACE
    assert SearchSpace.from_dict(SPACE.to_dict()) == SPACE
    part = narrowed(SPACE, ["optimizer=adam"])
    assert SearchSpace.from_dict(part.to_dict()) == part
    # A param may have the name of what files have.
    named = SearchSpace.from_dict({"parameters": {"type": "int", "low": 1, "high": 3}})
    assert SearchSpace.from_dict(named.to_dict()) == named


HEAD = """\
parameters:
  batch_size: {type: int, low: 1, high: 512}
  optimizer: {type: categorical, choices: [adam, sgd]}
  flag: {type: categorical, choices: [true, false]}
constraints:
  - batch_size >= 1
"""

WRONG = [
    ("batchsize <= 4", "line 7.*no param 'batchsize' .column 1. .did you mean batch_size."),
    ("batch_size <=", "line 7.*no expression: invalid syntax"),
    ("batch_size + 1", "is a number, and must be true or false"),
    ("optimizer < 3", "`<` takes numbers, but optimizer is a text .column 1."),
    ("optimizer == 'sdg'", "optimizer is never 'sdg' .column 14. .did you mean sgd."),
    ("batch_size == 'big'", "batch_size is a number, but is compared with 'big'"),
    ("not batch_size", "`not` takes what is true or false, but batch_size is a number"),
    ("batch_size", "batch_size is not true or false"),
    ("flag + 1 < 2", "`\\+` takes numbers, but flag is true or false"),
    ("1 < 2", "names no param"),
    ("__import__('os').system('true') == 0", "may not be said; what may: params, numbers"),
    ("open('/etc/passwd') == 1", "such a call may not be said"),
    ("batch_size.__class__ == 1", "no param 'batch_size.__class__'"),
    ("(lambda: batch_size)() == 1", "such a call may not be said"),
    ("[b for b in batch_size] == 1", "`ListComp` may not be said"),
    ("optimizer[0] == 'a'", "`Subscript` may not be said"),
    ("(batch_size := 3) < 4", "`NamedExpr` may not be said"),
    ("f'{batch_size}' == '3'", "`JoinedStr` may not be said"),
    ("batch_size is 3", "`Is` may not be said"),
    ("batch_size @ 3 < 1", "`MatMult` may not be said"),
    ("~batch_size < 1", "`Invert` may not be said"),
    ("batch_size < 1 if flag else True", "`IfExp` may not be said"),
    ("batch_size in optimizer", "behind `in` there must be a list in brackets"),
    ("abs(batch_size, 3) < 1", "abs takes one number, but got 2"),
    ("max(batch_size) < 1", "max takes two numbers or more, but got 1"),
    ("param(batch_size) < 1", "takes one name in quotes"),
    ("batch_size < 1j", "is no number, text, True or False"),
    ("batch_size < 1" + "0" * 400, "a number is too large"),
    ("batch_size < " + "(" * 300 + "1" + ")" * 300, "no expression"),
    ("batch_size < " + "-" * 500 + "1", "nested more than 30 deep|can't be read"),
    ("batch_size < " + "1" * 2000, "has 2013 characters, and may have 1000"),
    ("batch_size > 600", "None of 100,000 random.*`batch_size > 600` refuses 100%|refuses 100%"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "complaint"), WRONG, ids=[text[:40] for text, _ in WRONG])
def test_a_constraint_that_can_not_be_is_told_with_its_line(text: str, complaint: str) -> None:
    quoted = '"' + text.replace('"', '\\"') + '"'
    with pytest.raises(BadSpace, match=complaint) as told:
        read_yaml(f"{HEAD}  - {quoted}\n")
    assert "line 7" in str(told.value) or "refuses" in str(told.value)
    assert len(str(told.value)) < 800


def test_a_huge_power_is_infinite_and_takes_no_time() -> None:
    constraint = Constraint.read("a ** a ** a ** a ** a < 10 ** 10 ** 10 ** 10")
    assert constraint.allows([{"a": 9}, {"a": 1}]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("parameters: {a: {type: int, low: 1, high: 3}}\nconstraint: [a < 2]\n",
         "has 'constraint' .did you mean constraints."),
        ("parameters: {a: {type: int, low: 1, high: 3}}\nconstraints: a < 2\n", "must be a list"),
        ("parameters: {a: {type: int, low: 1, high: 3}}\nconstraints: [true]\n", "is no text"),
    ],
)  # fmt: skip
def test_a_file_whose_constraints_would_be_overlooked_is_refused(file: str, complaint: str) -> None:
    with pytest.raises(BadSpace, match=complaint):
        read_yaml(file)


def test_two_constraints_that_exclude_each_other_are_told_with_what_they_refuse() -> None:
    spec = {"parameters": FINITE, "constraints": ["a > b", "b > a"]}
    with pytest.raises(BadSpace, match="No configuration of the space meets the constraints"):
        SearchSpace.from_dict(spec).sample(3, np.random.default_rng(0))


@given(st.text(alphabet="ab()<>=+-*/.,'\" 019_[]{}:\\\n\0notadrimx", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_an_expression_or_a_value_error(text: str) -> None:
    try:
        constraint = Constraint.read(text)
    except ValueError:
        return
    if constraint.names:
        constraint.allows([dict.fromkeys(constraint.names, 1.5)])
