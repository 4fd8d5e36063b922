"""Tests for proposal/sparing.py: what is noise goes, what matters stays, and nothing gets worse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes

from mlflow_meta import SearchSpace, propose
from mlflow_meta.models import ZOO
from mlflow_meta.proposal import choose_batch, in_context, tried_on
from mlflow_meta.proposal.sparing import TOLERANCE, spared
from mlflow_meta.trials import Config

N_RUNS = 60
Used = np.ndarray


def flag(name: str) -> str:
    return f"features{{{name}}}"


def space_of(names: list[str]) -> SearchSpace:
    choice = {"type": "categorical", "choices": [False, True]}
    return SearchSpace.from_dict({flag(name): choice for name in names})


def trials_of(used: Used, values: np.ndarray, names: list[str]) -> pd.DataFrame:
    columns = {f"params.{flag(n)}": pd.array(used[:, i]) for i, n in enumerate(names)}
    return pd.DataFrame(columns).assign(task="a", value=values)


def suggested(used: Used, values: np.ndarray) -> Used:
    """Which columns the first of five suggestions has."""
    names = [f"x{i}" for i in range(used.shape[1])]
    trials = trials_of(used, values, names)
    best = propose(trials, space_of(names), task="a", n=5, rng=np.random.default_rng(0))[0]
    return np.array([best[flag(name)] for name in names])


def additive(seed: int) -> tuple[Used, np.ndarray]:
    """Random subsets of 5 informative columns and 10 of noise, each of which costs a little."""
    rng = np.random.default_rng(seed)
    used = rng.random((N_RUNS, 15)) < 0.5
    worth = np.array([-1.0, -0.8, -0.6, -0.5, -0.4] + [0.03] * 10)
    return used, 3 + used @ worth + rng.normal(0, 0.1, N_RUNS)


@pytest.mark.parametrize("seed", range(3))
def test_the_first_suggestion_has_all_that_matters_and_little_noise(seed: int) -> None:
    chosen = suggested(*additive(seed))
    assert chosen[:5].all(), "recall"
    assert chosen[:5].sum() / chosen.sum() >= 0.8, "precision"


def ridge_losses(X: np.ndarray, y: np.ndarray, subsets: Used, seed: int) -> np.ndarray:
    """Mean squared error over the variance, 5-fold cross-validated, of ridge in closed form."""
    folds = np.random.default_rng(seed).permutation(len(y)) % 5
    losses = []
    for used in subsets:
        predicted = np.empty(len(y))
        for fold in range(5):
            train = folds != fold
            A, mean = X[train][:, used], y[train].mean()
            weights = np.linalg.solve(A.T @ A + np.eye(used.sum()), A.T @ (y[train] - mean))
            predicted[~train] = X[~train][:, used] @ weights + mean
        losses.append(np.mean((y - predicted) ** 2) / y.var())
    return np.array(losses)


def test_on_real_data_with_as_much_noise_what_is_left_predicts_better_than_all_columns() -> None:
    raw = load_diabetes()
    strong = [raw.feature_names.index(name) for name in ("bmi", "bp", "s5")]
    shares, gains = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        noise = np.column_stack([rng.permutation(column) for column in raw.data.T])
        X = np.hstack([raw.data, noise])
        X = (X - X.mean(axis=0)) / X.std(axis=0)
        used = rng.random((N_RUNS, 20)) < rng.uniform(0.2, 0.8, (N_RUNS, 1))
        chosen = suggested(used, ridge_losses(X, raw.target, used, 0))
        assert chosen[strong].all()
        shares.append(chosen[:10].sum() / chosen.sum())
        both = np.array([chosen, np.ones(20, bool)])
        losses = np.mean([ridge_losses(X, raw.target, both, 1 + i) for i in range(5)], axis=0)
        gains.append(losses[1] - losses[0])
    assert np.mean(shares) >= 0.7, (
        "some noise fits these very rows by chance, which no run can tell"
    )
    assert np.mean(gains) > 0, "on other folds than those of the history"


def test_the_prediction_gets_worse_by_no_more_than_is_allowed() -> None:
    used, values = additive(0)
    names = [f"x{i}" for i in range(15)]
    space, trials = space_of(names), trials_of(used, values, names)
    model = ZOO["transfer"]()
    model.learn(trials, space)
    everything = {flag(name): True for name in names}

    def frame(configs: Sequence[Config]) -> pd.DataFrame:
        return in_context(configs, space, "a", {})

    steps = spared(everything, model, space, trials, frame)
    assert [sum(step.values()) for step in steps] == list(range(15, 15 - len(steps), -1))
    assert 1 < len(steps) <= 11 and all(set(step) == set(everything) for step in steps)
    told = model.score(frame(steps))
    assert (told.mean <= told.mean[0] + TOLERANCE * told.std[0]).all()


def test_a_list_keeps_as_many_items_as_the_shortest_that_was_tried() -> None:
    rng = np.random.default_rng(0)
    names = [f"x{i}" for i in range(6)]
    used = np.array([rng.permutation([True] * 4 + [False] * 2) for _ in range(N_RUNS)])
    trials = trials_of(used, rng.normal(size=N_RUNS), names)  # nothing matters
    space = space_of(names)
    model = ZOO["transfer"]()
    model.learn(trials, space)
    everything = {flag(name): True for name in names}
    found = spared(everything, model, space, trials, lambda c: in_context(c, space, "a", {}))[-1]
    assert sum(found.values()) >= 4


def test_what_is_no_list_stays_as_it_is() -> None:
    choice = {"type": "categorical", "choices": [False, True]}
    space = SearchSpace.from_dict({"bias": choice, "scale": choice})
    used = np.random.default_rng(0).random((20, 2)) < 0.5
    trials = pd.DataFrame({"params.bias": used[:, 0], "params.scale": used[:, 1]})
    trials = trials.assign(task="a", value=used @ np.array([0.5, -1.0]))
    model = ZOO["transfer"]()
    model.learn(trials, space)
    config = {"bias": True, "scale": True}
    assert spared(config, model, space, trials, lambda c: in_context(c, space, "a", {})) == [config]


def test_what_was_proven_of_the_best_is_said_of_the_first_by_what_it_lacks_to_that() -> None:
    used, values = additive(0)
    names = [f"x{i}" for i in range(15)]
    trials, space = trials_of(used, values, names), space_of(names)
    model = ZOO["linear"]()
    model.learn(trials, space)
    batch, searched = choose_batch(
        model, space, trials, task="a", n=3, tried=tried_on(trials, "a"),
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert searched is not None
    first = float(model.predict(in_context(batch[:1], space, "a", {})).mean[0])
    assert searched.best == pytest.approx(first)
    assert searched.bound < first, "a column was left out"
    assert "by more than" in searched.sentence
