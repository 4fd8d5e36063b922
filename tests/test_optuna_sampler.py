"""Tests for mlflow_meta/optuna: Optuna's own suite for samplers, and what past trials are for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import Trial, TrialState

from mlflow_meta.optuna import MetaSampler, to_optuna
from mlflow_meta.space import Categorical, Float, Integer, SearchSpace
from mlflow_meta.store import MlflowStore

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TestMetaSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    """Every case of Optuna's suite that a sampler of one objective can pass."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: MetaSampler(seed=0)


SPACE = SearchSpace(
    {
        "model": Categorical(choices=("mlp", "tree")),
        "lr": Float(low=1e-4, high=1.0, log=True, when={"model": ("mlp",)}),
        "depth": Integer(low=1, high=12, when={"model": ("tree",)}),
    }
)


def loss(model: str, lr: float | None, depth: int | None, best: float) -> float:
    return abs(np.log10(lr) - best) if model == "mlp" else 1.0 + abs((depth or 0) - 5)


def history() -> pd.DataFrame:
    """Random trials of three tasks whose best learning rates are close to one another."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "task": f"task{i}",
            "value": loss(c["model"], c.get("lr"), c.get("depth"), -2.5 + 0.2 * i),
            **{f"params.{name}": value for name, value in c.items()},
        }
        for i in range(3)
        for c in SPACE.sample(25, rng)
    ]
    return pd.DataFrame(rows)


def objective(trial: Trial) -> float:
    if trial.suggest_categorical("model", ["mlp", "tree"]) == "mlp":
        return loss("mlp", trial.suggest_float("lr", 1e-4, 1.0, log=True), None, -2.2)
    return loss("tree", None, trial.suggest_int("depth", 1, 12), -2.2)


def test_with_a_history_the_first_trials_are_good_already() -> None:
    study = optuna.create_study(sampler=MetaSampler(seed=0, history=history()))
    study.optimize(objective, n_trials=3)
    assert study.best_value < 0.2  # a random one is below that in 1 of 20
    assert study.trials[0].params["model"] == "mlp"


def test_equal_seeds_make_equal_studies_and_other_seeds_others() -> None:
    def params(seed: int) -> list[dict[str, object]]:
        study = optuna.create_study(study_name="new", sampler=MetaSampler(seed=seed))
        study.optimize(objective, n_trials=4)
        return [trial.params for trial in study.trials]

    assert params(1) == params(1)
    assert params(1) != params(2)


def test_trials_that_are_still_open_are_not_asked_again() -> None:
    study = optuna.create_study(sampler=MetaSampler(seed=0, history=history()))
    asked = [study.ask({"depth": optuna.distributions.IntDistribution(1, 12)}) for _ in range(3)]
    for trial in asked:
        study.tell(trial, float(abs(trial.params["depth"] - 5)))
    opened = [study.ask() for _ in range(5)]
    depths = [trial.suggest_int("depth", 1, 12) for trial in opened]
    assert len(set(depths)) == 5
    assert not set(depths) & {trial.params["depth"] for trial in asked}


def test_a_space_whose_values_were_all_tried_is_tried_again() -> None:
    study = optuna.create_study(sampler=MetaSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_int("x", 0, 2), n_trials=7)
    assert {trial.params["x"] for trial in study.trials} == {0, 1, 2}


def test_infinite_values_are_the_worst_and_choices_may_be_none() -> None:
    def diverges(trial: Trial) -> float:
        kind = trial.suggest_categorical("kind", [None, "sqrt", 3])
        return float("inf") if kind is None else 1.0

    study = optuna.create_study(sampler=MetaSampler(seed=0))
    study.optimize(diverges, n_trials=10)
    assert study.best_value == 1.0
    assert {t.params["kind"] for t in study.trials} <= {None, "sqrt", 3}


def test_a_study_made_of_runs_has_failed_ones_as_failed(store: MlflowStore) -> None:
    study = to_optuna(store, "sweep-a", metric="val_loss", sampler=MetaSampler(seed=0))
    states = [trial.state for trial in study.trials]
    assert (states.count(TrialState.COMPLETE), states.count(TrialState.FAIL)) == (24, 1)
    runs = store.read(["sweep-a"]).frame
    assert study.best_value == runs["metrics.val_loss"].min()
    best = runs.loc[runs["metrics.val_loss"].idxmin(), "run_id"]
    assert study.best_trial.user_attrs["mlflow_run_id"] == best


def test_a_study_that_seeks_the_other_direction_is_refused(store: MlflowStore) -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    with pytest.raises(ValueError, match="one objective"):
        to_optuna(store, "sweep-a", study=study, metric="val_loss")


def test_a_sampler_knows_the_runs_of_other_experiments(store: MlflowStore) -> None:
    """The best of 24 random ones has found out which model and learning rate are good."""
    sampler = MetaSampler.from_mlflow(store, ["sweep-b"], metric="val_loss", seed=0)
    study = optuna.create_study(sampler=sampler)
    trial = study.ask()
    model = trial.suggest_categorical("model", ["mlp", "tree"])
    runs = store.read(["sweep-b"]).frame
    good = runs.nsmallest(6, "metrics.val_loss")
    assert model in set(good["params.model"])
