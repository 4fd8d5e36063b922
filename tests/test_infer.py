"""Tests for space/infer.py: from a history that was drawn from a known space, back to the space."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_meta.columns import frame_of, type_column
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.space import Categorical, Float, Integer, SearchSpace, infer, read_yaml

N = 60


def history(**params: Any) -> pd.DataFrame:
    """Trials of one task as they come from a harvest: every column typed from logged texts."""
    n = len(next(iter(params.values())))
    columns = {
        f"params.{name}": type_column([None if v is None else str(v) for v in values])
        for name, values in params.items()
    }
    return pd.DataFrame({"task": ["a"] * n, **columns})


def drawn(spec: dict[str, dict[str, Any]], n: int = N, seed: int = 0) -> pd.DataFrame:
    space = SearchSpace.from_dict(spec)
    configs = space.sample(n, np.random.default_rng(seed))
    return history(**{name: [config.get(name) for config in configs] for name in space.names})


varied = [1 + i % 9 for i in range(N)]  # a param beside the one that is tested, so that some vary


@given(low=st.integers(-50, 50), width=st.integers(12, 200), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_a_range_of_whole_numbers_is_found_again(low: int, width: int, seed: int) -> None:
    trials = drawn({"n": {"type": "int", "low": low, "high": low + width}}, n=300, seed=seed)
    param = infer(trials).space.params["n"]
    assert isinstance(param, Integer)
    assert (low, low + width) == pytest.approx((param.low, param.high), abs=0.2 * width + 1)


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1e-1), (1e-3, 0.5), (1.0, 1e6)])
@pytest.mark.parametrize("seed", range(3))
def test_a_log_scale_is_recognised(low: float, high: float, seed: int) -> None:
    spec = {"lr": {"type": "float", "low": low, "high": high, "log": True}}
    param = infer(drawn(spec, seed=seed)).space.params["lr"]
    assert isinstance(param, Float) and param.log and param.step is None
    assert low <= param.low < low * 5 and high / 5 < param.high <= high


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 3.0), (0.05, 0.9), (5.0, 100.0)])
@pytest.mark.parametrize("seed", range(3))
def test_a_linear_scale_stays_linear(low: float, high: float, seed: int) -> None:
    spec = {"x": {"type": "float", "low": low, "high": high}}
    param = infer(drawn(spec, seed=seed)).space.params["x"]
    assert isinstance(param, Float) and not param.log and param.step is None


def test_numbers_from_a_list_are_told_from_those_of_a_range() -> None:
    rng = np.random.default_rng(0)
    space = infer(
        history(
            batch=rng.choice([16, 32, 64, 128], N),
            share=rng.choice([0.1, 0.5, 0.9], N),
            layers=rng.choice([1, 2, 3], N),
            few=[0.1, 0.2, 0.7, *[None] * 2] * (N // 5),
        )
    ).space
    assert space.params["batch"] == Categorical(choices=(16, 32, 64, 128))
    assert space.params["share"] == Categorical(choices=(0.1, 0.5, 0.9))
    assert space.params["layers"] == Integer(low=1, high=3)


def test_three_trials_do_not_make_a_list() -> None:
    assert infer(history(x=[0.1, 0.25, 0.7])).space.params["x"] == Float(low=0.1, high=0.7)


def test_whole_numbers_with_a_dot_stay_whole_and_keep_their_dot() -> None:
    units = np.round(np.random.default_rng(0).uniform(4, 90, N))
    param = infer(history(units=units)).space.params["units"]
    assert param == Float(low=units.min(), high=units.max(), step=1.0)
    drawn_units = param.sample(50, np.random.default_rng(0))
    assert all(isinstance(u, float) and u.is_integer() for u in drawn_units)


def test_flags_and_texts_are_categories() -> None:
    trials = history(shuffle=["True", "False"] * 30, opt=["sgd", "adam", "None"] * 20)
    assert infer(trials).space.params == {
        "shuffle": Categorical(choices=(False, True)),
        "opt": Categorical(choices=("None", "adam", "sgd")),
    }


def test_labels_with_leading_zeros_keep_their_spelling() -> None:
    param = infer(history(fold=["01", "02", "03"] * 20)).space.params["fold"]
    assert param == Categorical(choices=("01", "02", "03"))


def test_huge_whole_numbers_are_not_rounded_into_one() -> None:
    param = infer(history(offset=[2**60, 2**60 + 1] * 5)).space.params["offset"]
    assert param == Integer(low=2**60, high=2**60 + 1)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("constant", [3] * N, "is always 3"),
        ("constant_text", ["relu"] * N, "is always relu"),
        ("seed", range(N), "is a seed"),
        ("random_state", range(N), "is a seed"),
        ("model.random_seed", range(N), "is a seed"),
        ("data_seed", range(N), "is a seed"),
        ("path", [f"/data/{i}" for i in range(N)], "has 60 different texts"),
        ("rare", [0.1, 0.2, 0.3, *[None] * (N - 3)], "is set in 3 of 60 runs only"),
    ],
)
def test_what_is_not_searched_says_why(name: str, values: Any, reason: str) -> None:
    found = infer(history(**{"other": varied, name: list(values)}))
    assert found.space.names == ["other"]
    assert found.left_out == {name: reason}


@pytest.mark.parametrize("name", ["seedling", "reseeds", "n_states", "statement"])
def test_what_only_looks_like_a_seed_is_searched(name: str) -> None:
    assert infer(history(**{name: varied})).space.names == [name]


def test_a_param_that_was_never_set_is_not_mentioned() -> None:
    found = infer(history(other=varied, nothing=[None] * N))
    assert (found.space.names, found.left_out) == (["other"], {})


@pytest.mark.parametrize("seed", range(5))
def test_params_that_exist_only_under_some_value_of_another_are_found_with_it(seed: int) -> None:
    spec: dict[str, dict[str, Any]] = {
        "model": {"type": "categorical", "choices": ["knn", "mlp", "tree"]},
        "x": {"type": "float", "low": 0.0, "high": 1.0},
        "drop": {"type": "categorical", "choices": [False, True], "when": {"model": ["mlp"]}},
        "rate": {"type": "float", "low": 0.1, "high": 0.5, "when": {"drop": [True]}},
        "depth": {"type": "int", "low": 1, "high": 9, "when": {"model": ["tree"]}},
        "scaled": {
            "type": "categorical",
            "choices": ["a", "b"],
            "when": {"model": ["knn", "mlp"]},
        },
    }
    found = infer(drawn(spec, n=150, seed=seed)).space
    assert {name: dict(param.when) for name, param in found.params.items()} == {
        "model": {},
        "x": {},
        "drop": {"model": ("mlp",)},
        "rate": {"drop": (True,)},
        "depth": {"model": ("tree",)},
        "scaled": {"model": ("knn", "mlp")},
    }


def test_a_condition_on_a_number_from_a_list_is_found() -> None:
    layers = [1, 3, 5] * 20
    second = [None if n == 1 else 8 * n + i % 5 for i, n in enumerate(layers)]
    space = infer(history(layers=layers, second=second)).space
    assert space.params["second"].when == {"layers": (3, 5)}


def test_one_odd_run_does_not_undo_a_condition() -> None:
    model = ["mlp", "tree"] * 50
    depth = [i % 7 if m == "tree" else None for i, m in enumerate(model)]
    depth[0] = 3
    assert infer(history(model=model, depth=depth)).space.params["depth"].when == {
        "model": ("tree",)
    }


def test_a_param_that_comes_and_goes_without_a_reason_has_no_condition() -> None:
    sometimes = [i % 7 if i % 3 else None for i in range(N)]
    param = infer(history(model=["mlp", "tree"] * 30, sometimes=sometimes)).space.params[
        "sometimes"
    ]
    assert param.when == {}


def test_children_of_a_param_that_is_left_out_are_left_out_too() -> None:
    # `kind` is rare, and `rate` exists only under one of its values.
    kind = [None] * 40 + ["a", "b"] * 10
    rate = [None if k != "a" else 0.1 + i / 100 for i, k in enumerate(kind)]
    found = infer(history(other=[i % 40 for i in range(N)], kind=kind, rate=rate))
    assert found.space.names == ["other"]
    assert found.left_out == {
        "kind": "is set in 20 of 60 runs only",
        "rate": "exists only under kind, which is left out",
    }


def test_tasks_may_have_params_of_their_own() -> None:
    one, two = history(shared=varied, lr=np.linspace(0.1, 0.9, N)), history(shared=varied, c=varied)
    trials = pd.concat(
        [one, two.assign(task="b")]
    )  # with an index that repeats, as concat leaves it
    space = infer(trials).space
    assert space.names == ["shared", "lr", "c"]
    assert all(param.when == {} for param in space.params.values())


def test_a_condition_is_judged_by_the_tasks_that_have_the_param() -> None:
    model = ["mlp", "tree"] * 30
    one = history(model=model, depth=[i % 7 if m == "tree" else None for i, m in enumerate(model)])
    two = history(model=model).assign(task="an older script, without depth")
    space = infer(pd.concat([one, two], ignore_index=True)).space
    assert space.params["depth"].when == {"model": ("tree",)}


@pytest.mark.parametrize(
    "trials",
    [
        history(lr=[0.1] * 9, seed=range(9)),
        history(lr=[None] * 9),
        pd.DataFrame({"task": ["a"] * 9}),
        history(lr=[0.1]).iloc[:0],
    ],
)
def test_without_a_param_that_varies_there_is_nothing_to_choose(trials: pd.DataFrame) -> None:
    with pytest.raises(NothingToLearn, match=f"No param varies over these {len(trials)} runs"):
        infer(trials)


def test_the_file_reads_back_as_the_space_and_says_what_was_left_out() -> None:
    found = infer(history(lr=np.geomspace(1e-5, 1, N), model=["mlp", "1e-5"] * 30, seed=range(N)))
    text = found.to_yaml()
    assert read_yaml(text) == found.space
    assert "left_out:\n  seed: is a seed\n" in text
    assert text.startswith("# What mlflow-meta searches.")


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_every_trial_of_the_history_lies_in_the_space_it_taught(seed: int) -> None:
    spec: dict[str, dict[str, Any]] = {
        "a": {"type": "categorical", "choices": ["x", "y"]},
        "n": {"type": "int", "low": 1, "high": 40, "log": True},
        "f": {"type": "float", "low": -1.0, "high": 1.0},
        "q": {"type": "float", "low": 0.0, "high": 30.0, "step": 1.0, "when": {"a": ["y"]}},
    }
    configs = SearchSpace.from_dict(spec).sample(50, np.random.default_rng(seed))
    frame = frame_of(configs, list(spec)).assign(task="a")
    space = infer(frame).space
    rng = np.random.default_rng(0)
    assert [space.nearest(config, rng) for config in configs] == configs


def test_the_history_itself_is_left_as_it_was() -> None:
    trials = drawn({"x": {"type": "float", "low": 0.0, "high": 1.0}})
    before = trials.copy(deep=True)
    infer(trials)
    pd.testing.assert_frame_equal(trials, before)


def test_texts_that_nobody_would_choose_are_left_out() -> None:
    printed = ["0 int\n1 float", "2 int\n3 float"] * 30
    long = ["x" * 200, "y" * 200] * 30
    inferred = infer(history(lr=np.linspace(0.1, 0.9, N), printed=printed, long=long))
    assert inferred.space.names == ["lr"]
    assert "line breaks" in inferred.left_out["printed"]
    assert "long ones" in inferred.left_out["long"]
