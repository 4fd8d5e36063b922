"""Tests for explain.py: known truths, and each number a second way."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from mlflow_meta import SearchSpace, explain
from mlflow_meta.columns import frame_of
from mlflow_meta.explain import dependence, measures
from mlflow_meta.models import ZOO, MetaModel
from mlflow_meta.models.meta_model import task_scores
from mlflow_meta.trials import Direction

ADDITIVE = SearchSpace.from_dict(
    {
        "much": {"type": "float", "low": 0.0, "high": 1.0},
        "little": {"type": "float", "low": 0.0, "high": 1.0},
        "nothing": {"type": "int", "low": 1, "high": 9},
    }
)
NESTED = SearchSpace.from_dict(
    {
        "model": {"type": "categorical", "choices": ["mlp", "tree"]},
        "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "depth": {"type": "int", "low": 1, "high": 5, "when": {"model": ["tree"]}},
    }
)


def additive(n: int = 200) -> pd.DataFrame:
    trials = frame_of(ADDITIVE.sample(n, np.random.default_rng(0)), ADDITIVE.names)
    value = 3.0 * trials["params.much"] + trials["params.little"]  # 90% and 10% of the variance
    return trials.assign(task="a", value=value)


def nested(n: int = 80) -> pd.DataFrame:
    configs = NESTED.sample(n, np.random.default_rng(0))
    value = [(c["model"] == "mlp") + abs(float(c.get("depth", 3)) - 3) for c in configs]
    return frame_of(configs, NESTED.names).assign(task="a", value=value)


def fitted(trials: pd.DataFrame, space: SearchSpace) -> MetaModel:
    model = ZOO["transfer"]()
    model.learn(trials, space)
    return model


def test_a_param_with_90_percent_of_the_variance_has_90_percent_of_the_importance() -> None:
    trials = additive()
    model = fitted(trials, ADDITIVE)
    rng = np.random.default_rng(0)
    found = explain.importance(model, trials, ADDITIVE, task="a", rng=rng)
    assert list(found["param"]) == ["much", "little", "nothing"]
    assert found["permutation"][0] / found["permutation"].sum() == pytest.approx(0.9, abs=0.05)
    assert abs(found["permutation"][2]) < 0.01
    assert found["ped_anova"][0] > 0.7
    assert found["ped_anova"].sum() == pytest.approx(1.0)
    again = explain.importance(model, trials, ADDITIVE, task="a", rng=np.random.default_rng(0))
    pd.testing.assert_frame_equal(found, again)


@pytest.mark.parametrize("name", ["model", "lr", "depth"])
def test_the_closed_form_is_the_variance_of_being_among_the_best(name: str) -> None:
    """Drawn from q, the ratio p / q has mean 1, and the closed form as its variance."""
    rng = np.random.default_rng(1)
    param = NESTED.params[name]
    size = measures.n_bins(param)
    bins = rng.integers(size, size=300)
    scores = (bins - 1.0) ** 2 + rng.normal(0, 0.5, 300)
    tasks = np.full(300, "a", dtype=object)
    there = rng.random(300) < 0.8
    found = measures.ped_anova(bins, param, scores, tasks, there)

    known = np.sort(scores[there])
    best = there & (scores <= known[int(np.ceil(0.1 * len(known))) - 1])
    p, q = measures.density(bins[best], param), measures.density(bins[there], param)
    assert p.sum() == pytest.approx(1.0)
    assert q.sum() == pytest.approx(1.0)
    drawn = rng.choice(size, size=400_000, p=q / q.sum())
    assert found == pytest.approx(np.var((p / q)[drawn]), rel=0.05)
    assert found > 0.05


def test_ped_anova_gives_the_shares_that_optunas_gives() -> None:
    optuna = pytest.importorskip("optuna")
    trials = additive(300)
    study = optuna.create_study()
    kinds = {
        "much": optuna.distributions.FloatDistribution(0.0, 1.0),
        "little": optuna.distributions.FloatDistribution(0.0, 1.0),
        "nothing": optuna.distributions.IntDistribution(1, 9),
    }
    for row in trials.to_dict("records"):
        params = {name: row[f"params.{name}"] for name in kinds}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=kinds, value=row["value"])
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was experimental once
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    theirs = evaluator.evaluate(study)
    model = fitted(trials, ADDITIVE)
    rng = np.random.default_rng(0)
    found = explain.importance(model, trials, ADDITIVE, task="a", rng=rng)
    for name, ours in zip(found["param"], found["ped_anova"], strict=True):
        assert ours == pytest.approx(theirs[name] / sum(theirs.values()), abs=0.02)


def test_a_conditional_param_counts_where_it_exists() -> None:
    trials = nested()
    rng = np.random.default_rng(0)
    found = explain.importance(fitted(trials, NESTED), trials, NESTED, task="a", rng=rng)
    by_name = found.set_index("param")
    assert by_name["n"]["depth"] == (trials["params.model"] == "tree").sum()
    assert by_name["n"]["lr"] == 80
    assert by_name["permutation"].idxmin() == by_name["ped_anova"].idxmin() == "lr"


def test_a_param_that_nobody_logged_has_no_importance() -> None:
    trials = nested().drop(columns="params.lr")
    rng = np.random.default_rng(0)
    found = explain.importance(fitted(trials, NESTED), trials, NESTED, task="a", rng=rng)
    assert found.set_index("param").loc["lr"].tolist() == [0.0, 0.0, 0.0]


def test_a_permuted_param_costs_what_predictions_from_permuted_trials_say() -> None:
    trials, rng = nested(), np.random.default_rng(0)
    model, scores = fitted(trials, NESTED), task_scores(trials)
    found = measures.permutation_importance(model, trials, scores, NESTED.names, rng, 1)
    again = np.random.default_rng(0)
    rows = trials.iloc[np.sort(again.permutation(80))].reset_index(drop=True)
    error = np.mean((scores - model.score(rows).mean) ** 2)
    for name in NESTED.names:
        there = np.flatnonzero(rows[f"params.{name}"].notna())
        moved = rows[f"params.{name}"].copy()
        moved.iloc[there] = moved.iloc[again.permutation(there)].to_numpy()
        predicted = model.score(rows.assign(**{f"params.{name}": moved})).mean
        assert found[name] == pytest.approx(np.mean((scores - predicted) ** 2) - error)


def test_partial_dependence_is_the_mean_of_predictions_one_by_one() -> None:
    trials = nested()
    model = fitted(trials, NESTED)
    configs = dependence.whole_configs(NESTED, 5, np.random.default_rng(2))
    curves = explain.partial_dependence(
        model, NESTED, ["lr", "depth"], task="a", configs=configs, context={}
    )
    assert list(curves) == ["lr", "depth"]
    curve = curves["depth"]
    assert list(curve["at"]) == [1, 2, 3, 4, 5]
    for row in curve.itertuples():
        made = [{"model": "tree", "lr": c["lr"], "depth": row.at} for c in configs]
        rows = frame_of(made, NESTED.names).assign(task="a")
        each = [float(model.predict(rows.iloc[[i]]).mean[0]) for i in range(5)]
        assert row.mean == pytest.approx(np.mean(each))
        assert (row.low, row.high) == pytest.approx(tuple(np.quantile(each, [0.1, 0.9])))
    assert int(curve["mean"].argmin()) == 2


def test_a_metric_to_maximise_is_told_in_its_own_direction() -> None:
    trials = additive()
    trials["value"] = -trials["value"]  # the metric rises with `much`, and more is better
    found = explain.explain(
        fitted(trials, ADDITIVE),
        trials,
        ADDITIVE,
        task="a",
        direction=Direction.MAXIMIZE,
        rng=np.random.default_rng(0),
    )
    curve = found.curves["much"]
    assert curve["mean"].iloc[-1] - curve["mean"].iloc[0] == pytest.approx(3.0, abs=0.4)
    assert (curve["low"] <= curve["high"]).all()
    told = explain.sentence(found.curves, ADDITIVE, "gain", Direction.MAXIMIZE)
    assert told.startswith("gain rises with much (")


def test_the_nearest_is_that_of_a_brute_force_search_over_the_unit_cube() -> None:
    trials = nested()
    for config in NESTED.sample(10, np.random.default_rng(3)):
        found = explain.nearest(config, trials, NESTED, task="a", k=3)
        distances = []
        for row in trials.to_dict("records"):
            squared = float(row["params.model"] != config["model"])
            squared += (np.log10(row["params.lr"] / float(config["lr"])) / 4) ** 2
            theirs, ours = row["params.depth"], config.get("depth")
            if pd.isna(theirs) != (ours is None):
                squared += 1.0
            elif ours is not None:
                squared += ((theirs - float(ours)) / 4) ** 2
            distances.append(np.sqrt(squared))
        np.testing.assert_allclose(found["distance"], np.sort(distances)[:3], atol=1e-12)


def test_trials_of_the_same_task_come_first_and_say_what_differs() -> None:
    configs = [{"model": "mlp", "lr": 0.1}, {"model": "tree", "lr": 0.1, "depth": 2}]
    trials = frame_of(configs, NESTED.names).assign(task=["b", "a"], value=[1.0, 2.0])
    asked = {"model": "mlp", "lr": 0.1}
    found = explain.nearest(asked, trials, NESTED, task="a", k=5)
    assert list(found["value"]) == [2.0, 1.0]
    assert list(found["differs"]) == [{"model": ("tree", "mlp"), "depth": (2, None)}, {}]
