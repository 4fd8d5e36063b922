"""Tests for space/conditions.py: from runs of a conditional search, back to what exists when."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from conftest import add_run
from mlflow import MlflowClient
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from mlflow_meta import propose
from mlflow_meta.columns import frame_of, type_column
from mlflow_meta.services.harvest import harvest
from mlflow_meta.space import Categorical, Float, Integer, Param, SearchSpace, infer
from mlflow_meta.store import MlflowStore
from mlflow_meta.trials import Config

N_TRIALS = 150

EXISTS: dict[str, dict[str, list[Any]]] = {
    "model": {},
    "scaled": {},
    "rf_trees": {"model": ["forest"]},
    "rf_features": {"model": ["forest"]},
    "max_depth": {"model": ["boosting", "forest"]},
    "C": {"model": ["svm"]},
    "kernel": {"model": ["svm"]},
    "gamma": {"kernel": ["poly", "rbf"]},
    "degree": {"kernel": ["poly"]},
    "learning_rate": {"model": ["boosting"]},
    "booster": {"model": ["boosting"]},
    "dropout": {"booster": ["dart"]},
    "n_stages": {"model": ["boosting"]},
    "stage_2": {"n_stages": [2, 3]},
    "stage_3": {"n_stages": [3]},
}
"""What the objective below asks for, and when."""


def objective(trial: optuna.Trial) -> float:
    """Random forest, support vector machine and boosting in one search, as people write it."""
    model = trial.suggest_categorical("model", ["svm", "forest", "boosting"])
    loss = 0.1 * trial.suggest_categorical("scaled", [True, False])
    if model == "svm":
        loss += abs(math.log10(trial.suggest_float("C", 1e-3, 1e3, log=True)))
        kernel = trial.suggest_categorical("kernel", ["linear", "rbf", "poly"])
        if kernel != "linear":
            loss += abs(math.log10(trial.suggest_float("gamma", 1e-4, 10.0, log=True)) + 1)
        if kernel == "poly":
            loss += 0.1 * trial.suggest_int("degree", 2, 5)
        return loss
    loss += 0.05 * abs(trial.suggest_int("max_depth", 2, 24) - 9)
    if model == "forest":
        trial.suggest_categorical("rf_features", ["sqrt", "log2"])
        return loss + 50 / trial.suggest_int("rf_trees", 50, 500, step=50)
    loss += abs(math.log10(trial.suggest_float("learning_rate", 1e-4, 1.0, log=True)) + 1)
    if trial.suggest_categorical("booster", ["tree", "dart"]) == "dart":
        loss += trial.suggest_float("dropout", 0.0, 0.5)
    n_stages = trial.suggest_int("n_stages", 1, 3)
    for stage in range(2, n_stages + 1):
        loss += 0.1 * trial.suggest_int(f"stage_{stage}", 1, 90) / 90
    return loss


def is_feasible(config: Config) -> bool:
    """Whether `objective` could have asked for this, by hand."""
    c: dict[str, Any] = dict(config)
    wanted = {"model", "scaled"}
    ok = c["model"] in ("svm", "forest", "boosting") and c["scaled"] in (True, False)
    if c["model"] == "svm":
        wanted |= {"C", "kernel"}
        ok &= 1e-3 <= c["C"] <= 1e3 and c["kernel"] in ("linear", "rbf", "poly")
        if c["kernel"] in ("rbf", "poly"):
            wanted |= {"gamma"}
            ok &= 1e-4 <= c["gamma"] <= 10
        if c["kernel"] == "poly":
            wanted |= {"degree"}
            ok &= c["degree"] in (2, 3, 4, 5)
    if c["model"] in ("forest", "boosting"):
        wanted |= {"max_depth"}
        ok &= isinstance(c["max_depth"], int) and 2 <= c["max_depth"] <= 24
    if c["model"] == "forest":
        wanted |= {"rf_features", "rf_trees"}
        ok &= c["rf_features"] in ("sqrt", "log2") and c["rf_trees"] in range(50, 501, 50)
    if c["model"] == "boosting":
        wanted |= {"learning_rate", "booster", "n_stages"}
        ok &= 1e-4 <= c["learning_rate"] <= 1 and c["booster"] in ("tree", "dart")
        ok &= c["n_stages"] in (1, 2, 3)
        if c["booster"] == "dart":
            wanted |= {"dropout"}
            ok &= 0 <= c["dropout"] <= 0.5
        for stage in range(2, c["n_stages"] + 1):
            wanted |= {f"stage_{stage}"}
            ok &= 1 <= c[f"stage_{stage}"] <= 90
    return bool(ok) and set(c) == wanted


def study(seed: int, *, sampler: type[optuna.samplers.BaseSampler]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = optuna.create_study(sampler=sampler(seed=seed))  # type: ignore[call-arg]
    made.optimize(objective, n_trials=N_TRIALS)
    return made


def history(configs: list[dict[str, Any]]) -> pd.DataFrame:
    """Trials as they come from a harvest: every column typed from logged texts."""
    names = sorted({name for config in configs for name in config})
    columns = {
        f"params.{name}": type_column(
            [None if name not in config else str(config[name]) for config in configs]
        )
        for name in names
    }
    return pd.DataFrame({"task": ["t"] * len(configs), **columns})


def conditions(space: SearchSpace) -> dict[str, dict[str, list[Any]]]:
    return {n: {k: sorted(v) for k, v in p.when.items()} for n, p in space.params.items()}


def agrees(param: Param, other: BaseDistribution) -> bool:
    """Whether a param is of the same kind, with a range inside of what was searched."""
    if isinstance(other, CategoricalDistribution):
        return isinstance(param, Categorical) and set(param.choices) == set(other.choices)
    if isinstance(param, Categorical):  # few numbers, each often, look like a list
        assert isinstance(other, IntDistribution)
        return set(param.choices) <= set(range(other.low, other.high + 1, other.step))
    is_kind = isinstance(param, Integer if isinstance(other, IntDistribution) else Float)
    step = other.step if isinstance(other, IntDistribution) else None  # type: ignore[attr-defined]
    inside = other.low <= param.low < param.high <= other.high  # type: ignore[attr-defined]
    return is_kind and param.step == step and param.log == other.log and inside  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(2))
def test_a_study_of_three_kinds_of_model_gives_its_own_space_back(seed: int) -> None:
    made = study(seed, sampler=optuna.samplers.RandomSampler)
    found = infer(history([trial.params for trial in made.trials]))
    assert conditions(found.space) == EXISTS
    theirs = {n: d for trial in made.trials for n, d in trial.distributions.items()}
    assert set(theirs) == set(found.space.names)
    wrong = [name for name, d in theirs.items() if not agrees(found.space.params[name], d)]
    assert wrong == []
    configs = found.space.sample(10_000, np.random.default_rng(0))
    assert sum(not is_feasible(config) for config in configs) == 0


def test_a_study_that_has_learned_where_to_search_shows_its_conditions_too() -> None:
    # Not its scales: what is searched more at one end looks as if it were logarithmic.
    made = study(1, sampler=optuna.samplers.TPESampler)
    space = infer(history([trial.params for trial in made.trials])).space
    assert conditions(space) == EXISTS
    assert all(is_feasible(config) for config in space.sample(2000, np.random.default_rng(0)))


def test_ten_thousand_suggestions_from_runs_in_mlflow_are_all_feasible(
    client: MlflowClient, sqlite_uri: str
) -> None:
    made = study(0, sampler=optuna.samplers.RandomSampler)
    experiment = client.create_experiment("mixed")
    for trial in made.trials:
        add_run(client, experiment, params=trial.params, metrics={"loss": float(trial.value or 0)})
    frame = harvest(MlflowStore(sqlite_uri), ["mixed"]).dataset.frame
    space = infer(frame).space
    assert conditions(space) == EXISTS
    trials = frame.assign(value=frame["metrics.loss"])
    rng = np.random.default_rng(0)
    suggested = propose(trials, space, task="mixed", n=50, rng=rng)
    suggested += space.sample(10_000 - len(suggested), rng)
    assert [config for config in suggested if not is_feasible(config)] == []


@pytest.mark.parametrize("seed", range(2))
def test_odd_runs_and_crashed_ones_do_not_hide_the_conditions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    configs = [dict(t.params) for t in study(seed, sampler=optuna.samplers.RandomSampler).trials]
    configs += [
        dict(t.params) for t in study(seed + 9, sampler=optuna.samplers.RandomSampler).trials
    ]
    status = np.array(["FINISHED"] * len(configs), dtype=object)
    for i in rng.choice(len(configs), 3, replace=False):  # log what they do not use
        configs[i] = {"degree": 3, "dropout": 0.25, **configs[i]}
    for i in rng.choice(len(configs), 30, replace=False):  # die before they have logged all
        configs[i] = dict(list(configs[i].items())[: int(rng.integers(1, 4))])
        status[i] = "FAILED"
    for i in rng.choice(len(configs), 2, replace=False):  # likewise, but are said to have finished
        configs[i] = dict(list(configs[i].items())[:2])
    found = infer(history(configs).assign(status=status))
    assert conditions(found.space) == EXISTS
    assert all(is_feasible(c) for c in found.space.sample(2000, rng))


def test_a_space_that_is_known_needs_no_statistics() -> None:
    """To import them takes longer than all else that a served model needs."""
    code = (
        "import sys, mlflow_meta.space, mlflow_meta.models.failures, mlflow_meta.serving;"
        "sys.exit('scipy.stats' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_param_that_two_others_decide_together_has_both_for_parents() -> None:
    rng = np.random.default_rng(0)
    configs: list[dict[str, Any]] = []
    for _ in range(120):
        config: dict[str, Any] = {
            "model": str(rng.choice(["mlp", "tree", "knn"])),
            "optimizer": str(rng.choice(["sgd", "adam", "lbfgs"])),
        }
        if config["model"] == "mlp" and config["optimizer"] == "sgd":
            config["momentum"] = float(rng.uniform(0, 0.9))
        configs.append(config)
    found = infer(history(configs))
    assert found.space.params["momentum"].when == {"model": ("mlp",), "optimizer": ("sgd",)}
    assert "model is mlp and optimizer is sgd" in found.remarks["momentum"]


@pytest.mark.parametrize("seed", range(5))
def test_a_param_that_is_set_at_random_gets_no_condition_by_chance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    configs = []
    for _ in range(40):
        config: dict[str, Any] = {f"p{i}": str(rng.choice(list("abcd"))) for i in range(8)}
        config["n"] = int(rng.integers(1, 12))
        if rng.random() < 0.75:
            config["sometimes"] = float(rng.uniform())
        configs.append(config)
    found = infer(history(configs))
    assert found.space.params["sometimes"].when == {}
    assert "no other param tells in which" in found.remarks["sometimes"]


def test_the_text_none_of_what_does_not_exist_is_no_choice() -> None:
    rng = np.random.default_rng(0)
    configs = []
    for _ in range(60):
        model = str(rng.choice(["svm", "tree"]))
        kernel = str(rng.choice(["rbf", "poly"])) if model == "svm" else "None"
        configs.append({"model": model, "kernel": kernel})
    param = infer(history(configs)).space.params["kernel"]
    assert param == Categorical(choices=("poly", "rbf"), when={"model": ("svm",)})
    # Where no other param tells when, it is a choice as any other.
    free = [{"weight": str(rng.choice(["None", "balanced"])), "x": i} for i in range(40)]
    assert infer(history(free)).space.params["weight"] == Categorical(choices=("None", "balanced"))


def test_the_file_says_what_speaks_for_each_condition() -> None:
    configs = [{"model": "tree", "depth": i % 7} if i % 2 else {"model": "mlp"} for i in range(100)]
    configs[0]["depth"] = 3
    text = infer(history(configs)).to_yaml()
    assert (
        "# depth exists only where model is tree: set in 50 of 50 runs there, and in 1 of 50 "
        "others.\n"
    ) in text


def test_a_grid_of_numbers_is_told_from_a_range_and_from_a_list() -> None:
    rng = np.random.default_rng(0)
    n = 90
    space = infer(
        history(
            [
                {
                    "trees": int(rng.integers(1, 11)) * 50,
                    "share": round(0.5 + 0.1 * int(rng.integers(0, 6)), 1),
                    "batch": int(2 ** rng.integers(4, 11)),
                    "any": int(rng.integers(10, 500)),
                    "real": float(rng.uniform()),
                }
                for _ in range(n)
            ]
        )
    ).space
    assert space.params["trees"] == Integer(low=50, high=500, step=50, log=False)
    assert space.params["share"] == Float(low=0.5, high=1.0, step=0.1)
    assert getattr(space.params["batch"], "step", 1) == 1
    assert getattr(space.params["any"], "step", 0) == 1
    assert getattr(space.params["real"], "step", 0) is None
    again = infer(frame_of(space.sample(200, rng), space.names).assign(task="t")).space
    assert again.params["trees"] == space.params["trees"]
