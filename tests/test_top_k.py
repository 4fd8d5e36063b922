"""Tests for search.top_k: against brute force through the front door, on models of every class."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_meta.columns import frame_of
from mlflow_meta.models import ZOO, MetaModel, Prediction
from mlflow_meta.models.forms import Additive, Form, Relu, Trees
from mlflow_meta.search import TopK, form_of, question, top_k
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Config

CONTEXT = {"task": "b", "dataset.rows": 300.0, "tags.team": "x"}
KINDS = ("additive", "trees", "relu")


@dataclass
class Random:
    """A regressor that has learned nothing: a random form of a kind, coarse enough to have ties."""

    kind: str
    seed: int
    is_coarse: bool

    def fit(self, X: np.ndarray, y: np.ndarray, *, groups: np.ndarray, seed: int) -> None:
        rng = np.random.default_rng(self.seed)
        self.kept = MAKERS[self.kind](X.shape[1], rng, self.rounded)

    def rounded(self, numbers: np.ndarray) -> np.ndarray:
        return np.round(numbers) if self.is_coarse else numbers

    def form(self) -> Form:
        return self.kept

    def draw(self, rng: np.random.Generator) -> Form:
        return self.kept

    def predict(self, X: np.ndarray) -> Prediction:
        return Prediction(self.kept.at(X), np.ones(len(X)))

    def save(self) -> dict[str, bytes]:
        return {}

    def load(self, files: Mapping[str, bytes]) -> None:
        raise AssertionError("is never asked for")


def additive(d: int, rng: np.random.Generator, rounded: Callable[..., Any]) -> Additive:
    return Additive(
        constant=0.5, linear=rounded(rng.normal(size=d)), square=rounded(rng.normal(size=d))
    )


def relu(d: int, rng: np.random.Generator, rounded: Callable[..., Any]) -> Relu:
    h = int(rng.integers(1, 12))
    return Relu(
        constant=0.5,
        weights=rounded(2 * rng.normal(size=(d, h))),
        bias=rounded(rng.normal(size=h)),
        out=rounded(2 * rng.normal(size=h)),
    )


def trees(d: int, rng: np.random.Generator, rounded: Callable[..., Any]) -> Trees:
    """Full trees of depth 0 to 4."""
    roots, parts, start = [], [], 0
    for _ in range(int(rng.integers(1, 12))):
        depth = int(rng.integers(0, 5))
        n, n_asking = 2 ** (depth + 1) - 1, 2**depth - 1
        own = np.arange(n)
        asks = own < n_asking
        parts.append(
            {
                "feature": np.where(asks, rng.integers(d, size=n), -1),
                "threshold": rng.choice([-0.5, 0.0, 0.2, 0.5, 0.77, 1.0], size=n),
                "left": start + np.where(asks, 2 * own + 1, own),
                "right": start + np.where(asks, 2 * own + 2, own),
                "value": np.where(asks, 0.0, rounded(2 * rng.normal(size=n))),
            }
        )
        roots.append(start)
        start += n
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Trees(constant=0.5, roots=np.array(roots), is_narrow=bool(rng.integers(2)), **joined)


MAKERS: dict[str, Callable[..., Form]] = {"additive": additive, "trees": trees, "relu": relu}


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Up to six parameters of every finite kind, some of them conditional."""
    entries: dict[str, dict[str, Any]] = {}
    parents: dict[str, list[Any]] = {}
    for i in range(draw(st.integers(1, 6))):
        name = f"p{i}"
        entry = draw(
            st.sampled_from(
                [
                    {"type": "categorical", "choices": ["a", "b", "c"]},
                    {"type": "categorical", "choices": [True, False]},
                    {"type": "categorical", "choices": [1, 2, 8, 64], "log": True},
                    {"type": "categorical", "choices": ["only"]},
                    {"type": "int", "low": 1, "high": 9},
                    {"type": "int", "low": 1, "high": 3},
                    {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
                    {"type": "float", "low": 0.001, "high": 1.0, "log": True, "step": 0.333},
                ]
            )
        )
        when = {}
        for parent in draw(st.lists(st.sampled_from(sorted(parents)), max_size=2, unique=True)
                           if parents else st.just([])):  # fmt: skip
            when[parent] = draw(
                st.lists(st.sampled_from(parents[parent]), min_size=1, max_size=2, unique=True)
            )
        entries[name] = {**entry, **({"when": when} if when else {})}
        if "choices" in entry and len(entry["choices"]) > 1:
            parents[name] = list(entry["choices"])
    return SearchSpace.from_dict(entries)


def fitted(kind: str, space: SearchSpace, seed: int, *, is_coarse: bool) -> MetaModel:
    """A meta-model of two tasks around a random form; every column kind that the encoder has."""
    rng = np.random.default_rng(seed)
    configs = space.sample(40, rng)
    for config in configs[:5]:
        config.pop(next(iter(config)), None)  # so that "is set" becomes a column
    trials = frame_of(configs, space.names).assign(
        task=np.where(np.arange(40) % 2, "a", "b"), value=rng.normal(size=40)
    )
    trials["dataset.rows"] = rng.integers(100, 1000, 40).astype(float)
    trials["tags.team"] = rng.choice(["x", "y"], 40)
    model = MetaModel(lambda: Random(kind, seed, is_coarse))
    model.learn(trials, space)
    return model


def predicted(model: MetaModel, space: SearchSpace, configs: list[dict[str, Any]]) -> np.ndarray:
    frame = frame_of(configs, space.names)
    return model.predict(frame.assign(**CONTEXT)).mean


def check(found: TopK, model: MetaModel, space: SearchSpace, k: int, wanted: list[Config]) -> None:
    """Equal to brute force, and every promise of `TopK`."""
    everything = predicted(model, space, [dict(config) for config in wanted])
    best = np.sort(everything)[:k]
    assert found.is_exact
    np.testing.assert_allclose(found.values, best, atol=1e-9)
    np.testing.assert_allclose(predicted(model, space, found.configs), found.values)
    keys = {space.key(config) for config in found.configs}
    assert len(keys) == len(found.configs) == min(k, len(wanted))
    assert keys <= {space.key(config) for config in wanted}
    others = [v for c, v in zip(wanted, everything, strict=True) if space.key(c) not in keys]
    if len(wanted):
        assert found.bound <= everything.min() + 1e-9
    assert found.rest <= min(others, default=np.inf) + 1e-9
    assert len(found.values) < k or found.rest >= found.values[-1] - 1e-9, "the proof is tight"


@given(space=spaces(), kind=st.sampled_from(KINDS), seed=st.integers(0, 2**16),
       is_coarse=st.booleans(), k=st.sampled_from([1, 3, 50, 10_000]), data=st.data())  # fmt: skip
@settings(max_examples=500, deadline=None)
def test_top_k_is_what_brute_force_finds(
    space: SearchSpace, kind: str, seed: int, is_coarse: bool, k: int, data: st.DataObject
) -> None:
    model = fitted(kind, space, seed, is_coarse=is_coarse)
    engines = ["auto", "branch", "enumerated", *(["fold"] if kind == "additive" else [])]
    found = top_k(
        model, space, k, context=CONTEXT, engine=data.draw(st.sampled_from(engines)),
        rng=np.random.default_rng(seed), budget_s=600,
    )  # fmt: skip
    everything = space.enumerate()
    assert found.n_configs == found.n_assessed == len(everything)
    check(found, model, space, k, everything)


@given(space=spaces(), kind=st.sampled_from(KINDS), seed=st.integers(0, 2**16),
       is_coarse=st.booleans(), k=st.sampled_from([1, 7]), data=st.data())  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_what_was_tried_and_what_breaks_a_constraint_is_left_out(
    space: SearchSpace, kind: str, seed: int, is_coarse: bool, k: int, data: st.DataObject
) -> None:
    model, rng = fitted(kind, space, seed, is_coarse=is_coarse), np.random.default_rng(seed)
    everything = space.enumerate()
    order = np.argsort(predicted(model, space, everything), kind="stable")
    tried = [everything[i] for i in order[: rng.integers(0, 12)]] + space.sample(3, rng)
    gone = {space.key(config) for config in tried}
    constraint = None
    if data.draw(st.booleans()):
        first = space.names[0]
        forbidden = everything[order[0]].get(first)

        def constraint(config: Config) -> bool:
            return config.get(first) != forbidden

    engines = ["auto", "branch", "enumerated"]
    found = top_k(
        model, space, k, context=CONTEXT, tried=tried, constraint=constraint, rng=rng,
        engine=data.draw(st.sampled_from(engines)), budget_s=600,
    )  # fmt: skip
    wanted = [
        c for c in everything if space.key(c) not in gone and (not constraint or constraint(c))
    ]
    check(found, model, space, k, wanted)


CONTINUOUS = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.5},
        "units": {"type": "int", "low": 1, "high": 10_000_000, "log": True},
        "model": {"type": "categorical", "choices": ["mlp", "tree"]},
        "momentum": {"type": "float", "low": 0.0, "high": 1.0, "when": {"model": ["mlp"]}},
    }
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_no_configuration_between_the_levels_is_below_the_bound(kind: str, seed: int) -> None:
    model, rng = fitted(kind, CONTINUOUS, seed, is_coarse=False), np.random.default_rng(seed)
    found = top_k(model, CONTINUOUS, 5, context=CONTEXT, rng=rng, budget_s=60)
    random = predicted(model, CONTINUOUS, CONTINUOUS.sample(20_000, rng))
    assert random.min() >= found.bound - 1e-9
    near = [found.configs[0] | {"lr": float(lr)} for lr in np.geomspace(1e-4, 1.0, 3000)]
    assert predicted(model, CONTINUOUS, near).min() >= found.bound - 1e-9
    assert found.values[0] <= random.min() + found.gap + 1e-9
    assert all(CONTINUOUS.holds(config) for config in found.configs)


@pytest.mark.parametrize("kind", ["linear", "network", "lightgbm", "extra_trees"])
def test_a_trained_meta_model_is_searched_exactly_over_ten_thousand(kind: str) -> None:
    space = SearchSpace.from_dict(
        {
            "lr": {"type": "float", "low": 0.01, "high": 1.0, "step": 0.03},
            "layers": {"type": "int", "low": 1, "high": 20},
            "act": {"type": "categorical", "choices": ["relu", "tanh", "gelu"]},
            "width": {"type": "categorical", "choices": [16, 32, 64, 128, 256], "log": True},
        }
    )
    rng = np.random.default_rng(1)
    configs = space.sample(120, rng)
    trials = frame_of(configs, space.names).assign(
        task="b",
        value=[
            float(abs(c["lr"] - 0.4) + 0.1 * c["layers"] * (c["act"] == "relu")) for c in configs
        ],
    )
    model = ZOO[kind]()
    model.fit(trials, space)
    for engine in ("auto", "exact", "branch"):
        found = top_k(model, space, 20, context=CONTEXT, rng=rng, engine=engine, budget_s=300)
        check(found, model, space, 20, space.enumerate())
    learned = top_k(model, space, 20, context=CONTEXT, rng=rng, engine="policy")
    assert (learned.engine, learned.bound, learned.is_exact) == ("cross_entropy", -np.inf, False)
    assert learned.values[0] <= np.quantile(predicted(model, space, space.enumerate()), 0.01)
    np.testing.assert_allclose(predicted(model, space, learned.configs), learned.values)


def test_a_budget_ends_a_search_with_an_honest_bound() -> None:
    entries = {f"p{i}": {"type": "int", "low": 0, "high": 20} for i in range(12)}
    space = SearchSpace.from_dict(entries)
    rng = np.random.default_rng(0)
    configs = space.sample(300, rng)
    noise = rng.normal(size=300)
    trials = frame_of(configs, space.names).assign(task="b", value=noise)
    model = ZOO["extra_trees"]()
    model.learn(trials, space)
    gaps = []
    told: list[TopK] = []
    found = top_k(model, space, 5, context=CONTEXT, rng=rng, budget_s=3, progress=told.append)
    assert not found.is_exact and found.n_configs == 21**12 and found.seconds < 10
    assert found.bound <= predicted(model, space, space.sample(5000, rng)).min()
    gaps = [float(t.values[0]) - t.bound for t in told if np.isfinite(t.bound)]
    assert gaps[-1] < gaps[0], "the gap shrinks with time"
    assert all(now <= before + 1e-12 for before, now in itertools.pairwise(gaps))


def test_a_forest_that_is_too_large_for_a_table_is_searched_by_asking_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    space = SearchSpace.from_dict({"lr": {"type": "float", "low": 0.0, "high": 1.0}})
    trials = pd.DataFrame({"params.lr": rng.uniform(0, 1, 60), "task": "t"})
    trials["value"] = abs(trials["params.lr"] - 0.3)
    model = ZOO["extra_trees"]()
    model.fit(trials, space)
    form = form_of(model)
    assert form is not None and form.n_answers > len(form.feature)
    monkeypatch.setattr(question, "MAX_ANSWERS", form.n_answers - 1)
    assert form_of(model) is None
    found = top_k(model, space, 3, context={"task": "t"}, rng=rng)
    assert (found.engine, found.is_exact) == ("local", False)
    assert abs(found.configs[0]["lr"] - 0.3) < 0.1
    with pytest.raises(ValueError, match="too large"):
        top_k(model, space, 3, context={"task": "t"}, engine="branch", rng=rng)


def test_what_a_search_is_asked_wrongly_it_says() -> None:
    model = fitted("trees", CONTINUOUS, 0, is_coarse=False)
    with pytest.raises(ValueError, match="k >= 1"):
        top_k(model, CONTINUOUS, 0)
    with pytest.raises(ValueError, match=r"must be one of .*branch"):
        top_k(model, CONTINUOUS, 1, engine="magic")
    gaussian = ZOO["gaussian_process"]()
    trials = frame_of(CONTINUOUS.sample(30, np.random.default_rng(0)), CONTINUOUS.names)
    gaussian.fit(trials.assign(task="a", value=np.arange(30.0)), CONTINUOUS)
    with pytest.raises(ValueError, match="GaussianProcess has no formula"):
        top_k(gaussian, CONTINUOUS, 1, engine="branch")
    assert not top_k(gaussian, CONTINUOUS, 1, rng=np.random.default_rng(0)).is_exact


@pytest.mark.parametrize("k", [1, 5, 12, 50])
def test_a_model_without_a_formula_is_asked_about_all_of_a_small_space(k: int) -> None:
    space = SearchSpace.from_dict(
        {
            "a": {"type": "int", "low": 1, "high": 4},
            "b": {"type": "categorical", "choices": ["x", "y", "z"]},
        }
    )
    trials = frame_of(space.enumerate(), space.names)
    gaussian = ZOO["gaussian_process"]()
    gaussian.fit(trials.assign(task="b", value=np.arange(12.0) % 5), space)
    check(top_k(gaussian, space, k, context=CONTEXT), gaussian, space, k, space.enumerate())


def test_ctrl_c_gives_the_best_so_far() -> None:
    space = SearchSpace.from_dict(
        {f"p{i}": {"type": "int", "low": 0, "high": 20} for i in range(12)}
    )
    model = fitted("relu", space, 3, is_coarse=False)

    def stop(told: TopK) -> None:
        raise KeyboardInterrupt

    found = top_k(
        model, space, 3, context=CONTEXT, engine="branch", progress=stop,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert found.is_interrupted and len(found.configs) == 3
    np.testing.assert_allclose(predicted(model, space, found.configs), found.values)


def test_frames_of_any_context_are_taken() -> None:
    """A context of one column, none, or one that was never seen."""
    model = fitted("trees", CONTINUOUS, 0, is_coarse=False)
    for context in ({}, {"task": "never seen"}, {"hardware.gpu": "H100"}):
        found = top_k(model, CONTINUOUS, 2, context=context, rng=np.random.default_rng(0))
        frame = pd.DataFrame(frame_of(found.configs, CONTINUOUS.names)).assign(**context)
        np.testing.assert_allclose(model.predict(frame).mean, found.values)
