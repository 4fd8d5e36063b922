"""Tests for mlflow_meta/optuna: Optuna's own suite for samplers, and what past trials are for."""

from __future__ import annotations

import copy
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


def test_threads_of_a_study_are_not_given_what_another_was_given() -> None:
    for seed in range(2):
        study = optuna.create_study(sampler=MetaSampler(seed=seed))
        study.optimize(lambda t: float(t.suggest_int("c", 0, 29)), n_trials=16, n_jobs=4)
        asked = [t.params["c"] for t in study.trials if t.number >= 4]  # the first knew no param
        assert len(asked) == len(set(asked))


def test_what_the_history_has_of_the_study_itself_is_not_asked_again() -> None:
    rows = [{"task": "s", "value": abs(c - 5.2), "params.c": c} for c in range(12)]
    known = pd.DataFrame([row for row in rows if row["params.c"] not in (3, 7)])
    study = optuna.create_study(study_name="s", sampler=MetaSampler(seed=0, history=known))
    study.optimize(lambda t: abs(t.suggest_int("c", 0, 11) - 5.2), n_trials=2)
    assert {t.params["c"] for t in study.trials} == {3, 7}


def test_studies_of_one_name_that_share_a_sampler_are_equal() -> None:
    sampler = MetaSampler(seed=0)

    def asked() -> list[float]:  # its study is gone in the end, and another may lie where it lay
        study = optuna.create_study(study_name="q", sampler=sampler)
        study.optimize(lambda t: t.suggest_float("x", 0, 1) ** 2, n_trials=3)
        return [t.params["x"] for t in study.trials]

    first = asked()
    assert all(asked() == first for _ in range(5))


def test_the_constraints_of_a_space_are_kept_to() -> None:
    params = {name: {"type": "float", "low": 0.0, "high": 1.0} for name in ("x", "y")}
    space = SearchSpace.from_dict({"parameters": params, "constraints": ["x + y >= 1"]})
    study = optuna.create_study(sampler=MetaSampler(seed=0, space=space))
    study.optimize(lambda t: t.suggest_float("x", 0, 1) + t.suggest_float("y", 0, 1), n_trials=12)
    assert all(t.params["x"] + t.params["y"] >= 1 for t in study.trials)


def test_a_grid_whose_ends_are_a_rounding_error_too_near_is_searched() -> None:
    study = optuna.create_study(sampler=MetaSampler(seed=0))
    study.optimize(lambda t: t.suggest_float("x", 0.2, 0.3, step=0.1), n_trials=6)
    assert {t.params["x"] for t in study.trials} == {0.2, 0.3}


def test_choices_that_are_written_alike_are_told_apart() -> None:
    study = optuna.create_study(sampler=MetaSampler(seed=0))
    study.optimize(lambda t: float(type(t.suggest_categorical("c", [1, "1"])) is str), n_trials=8)
    assert {type(t.params["c"]) for t in study.trials} == {int, str}


def test_a_history_with_a_value_that_is_not_finite_is_refused_at_once() -> None:
    known = pd.DataFrame({"task": ["a"] * 3, "value": [1.0, np.nan, np.inf], "params.x": [1, 2, 3]})
    with pytest.raises(ValueError, match="but 2 of 3 are not"):
        MetaSampler(history=known)


def test_a_sampler_can_be_copied_as_when_it_is_sent_to_another_process() -> None:
    sampler = copy.deepcopy(MetaSampler(seed=0))
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=2)
    assert len(study.trials) == 2
