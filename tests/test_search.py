"""Tests for search/: against brute force where that is possible, else against the law."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_meta.search import local_search
from mlflow_meta.search.local import MAX_ENUMERATED, step_from
from mlflow_meta.space import Categorical, SearchSpace
from mlflow_meta.space.params import is_active, same
from mlflow_meta.trials import Config

FINITE = SearchSpace.from_dict(
    {
        "a": {"type": "int", "low": 1, "high": 7},
        "b": {"type": "categorical", "choices": ["x", "y", "z"]},
        "c": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
    }
)
NESTED = SearchSpace.from_dict(
    {
        "model": {"type": "categorical", "choices": ["mlp", "tree"]},
        "lr": {"type": "float", "low": 1e-5, "high": 1.0, "log": True, "when": {"model": ["mlp"]}},
        "drop": {"type": "categorical", "choices": [False, True], "when": {"model": ["mlp"]}},
        "rate": {"type": "float", "low": 0.0, "high": 0.5, "when": {"drop": [True]}},
        "depth": {"type": "int", "low": 1, "high": 64, "log": True, "when": {"model": ["tree"]}},
        "rounds": {"type": "categorical", "choices": [10, 100, 1000], "log": True},
    }
)


def is_inside(space: SearchSpace, config: Config) -> bool:
    """The second way: straight from the words of the space."""
    for name, param in space.params.items():
        if (name in config) != is_active(param.when, config):
            return False
        if name not in config:
            continue
        value = config[name]
        if isinstance(param, Categorical):
            if not any(same(value, choice) for choice in param.choices):
                return False
        elif not param.low <= float(value) <= param.high:
            return False
    return set(config) <= set(space.params)


def random_worth(seed: int) -> dict[object, float]:
    rng = np.random.default_rng(seed)
    return {SearchSpace.key(config): float(rng.normal()) for config in FINITE.enumerate()}


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_a_finite_space_is_searched_like_brute_force(seed: int) -> None:
    table = random_worth(seed)

    def worth(configs: Sequence[Config]) -> np.ndarray:
        return np.array([table[SearchSpace.key(config)] for config in configs])

    found = local_search(FINITE, worth, start=[], rng=np.random.default_rng(seed))
    assert found.is_complete
    assert found.worth.tolist() == sorted(table.values(), reverse=True)
    assert [table[SearchSpace.key(config)] for config in found.configs] == found.worth.tolist()


def best_is_a_small_rate(configs: Sequence[Config]) -> np.ndarray:
    """0 at model=mlp, lr=1e-3, drop=True, rate=0.2, rounds=100; less everywhere else."""
    return -np.array(
        [
            10.0
            if c["model"] == "tree"
            else abs(np.log10(float(c["lr"])) + 3.0)
            + (abs(float(c["rate"]) - 0.2) if c["drop"] else 1.0)
            + abs(np.log10(float(c["rounds"])) - 2.0)
            for c in configs
        ]
    )


def test_a_continuous_conditional_space_is_searched_down_to_its_optimum() -> None:
    found = local_search(NESTED, best_is_a_small_rate, start=[], rng=np.random.default_rng(0))
    best = found.configs[0]
    assert not found.is_complete
    assert (best["model"], best["drop"], best["rounds"]) == ("mlp", True, 100)
    assert found.worth[0] > -0.02
    assert list(found.worth) == sorted(found.worth, reverse=True)


def test_local_search_beats_as_many_random_configurations() -> None:
    def smooth(configs: Sequence[Config]) -> np.ndarray:
        return -np.array([sum((float(v) - 0.3) ** 2 for v in c.values()) for c in configs])

    cube = SearchSpace.from_dict(
        {f"x{i}": {"type": "float", "low": 0.0, "high": 1.0} for i in range(6)}
    )
    for seed in range(5):
        found = local_search(cube, smooth, start=[], rng=np.random.default_rng(seed))
        rng = np.random.default_rng(1000 + seed)
        assert found.worth[0] > 0.5 * smooth(cube.sample(len(found.configs), rng)).max()


def test_everything_that_is_found_lies_inside_and_differs() -> None:
    start: list[Config] = [
        {"model": "transformer", "lr": 5.0},
        {"model": "mlp", "lr": "fast", "unknown": 3},
        {"model": "tree", "depth": 1e9, "rounds": float("nan")},
        {},
    ]
    found = local_search(NESTED, best_is_a_small_rate, start=start, rng=np.random.default_rng(0))
    assert all(is_inside(NESTED, config) for config in found.configs)
    keys = [SearchSpace.key(config) for config in found.configs]
    assert len(set(keys)) == len(keys) > 3000


def test_the_search_begins_where_it_is_told_to() -> None:
    needle = {"model": "mlp", "lr": 0.000123456, "drop": True, "rate": 0.456, "rounds": 10}

    def worth(configs: Sequence[Config]) -> np.ndarray:
        return np.array([float(config == needle) for config in configs])

    found = local_search(NESTED, worth, start=[needle], rng=np.random.default_rng(0))
    assert found.configs[0] == needle


def test_equal_generators_give_equal_searches() -> None:
    one, two, other = (
        local_search(NESTED, best_is_a_small_rate, start=[], rng=np.random.default_rng(seed))
        for seed in (7, 7, 8)
    )
    assert one.configs == two.configs
    np.testing.assert_array_equal(one.worth, two.worth)
    assert one.configs != other.configs


@given(seed=st.integers(0, 2**32 - 1), step=st.floats(0.0, 2.0))
def test_a_step_never_leaves_the_space(seed: int, step: float) -> None:
    rng = np.random.default_rng(seed)
    (config,) = NESTED.sample(1, rng)
    before = dict(config)
    assert is_inside(NESTED, step_from(config, NESTED, step, rng))
    assert config == before


def test_small_steps_on_a_log_scale_of_whole_numbers_have_no_drift() -> None:
    space = SearchSpace.from_dict({"n": {"type": "int", "low": 1, "high": 1024, "log": True}})
    rng = np.random.default_rng(0)
    for n in (2, 3, 10, 300):
        steps = [float(step_from({"n": n}, space, 0.02, rng)["n"]) for _ in range(500)]
        assert float(np.median(steps)) == pytest.approx(n, rel=0.02)


def test_the_border_between_enumerating_and_searching_is_where_it_is_said_to_be() -> None:
    def line(n: int) -> SearchSpace:
        return SearchSpace.from_dict({"n": {"type": "int", "low": 1, "high": n}})

    def zero(configs: Sequence[Config]) -> np.ndarray:
        return np.zeros(len(configs))

    rng = np.random.default_rng(0)
    whole = local_search(line(MAX_ENUMERATED), zero, start=[], rng=rng)
    assert (whole.is_complete, len(whole.configs)) == (True, MAX_ENUMERATED)
    assert not local_search(line(MAX_ENUMERATED + 1), zero, start=[], rng=rng).is_complete
