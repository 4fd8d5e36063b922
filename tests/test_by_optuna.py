"""Tests for store/by_optuna.py: runs that Optuna has made, by its callback and by MLflow's storage.

Both write into a real store; the space that is mined must be that of the objective.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import mlflow
import optuna
import pytest
from mlflow import MlflowClient
from mlflow.optuna.storage import MlflowStorage
from optuna.distributions import IntDistribution
from optuna.trial import Trial
from optuna_integration import MLflowCallback

from mlflow_meta.optuna import to_optuna
from mlflow_meta.optuna.told import theirs
from mlflow_meta.space import Categorical, Float, Integer, SearchSpace, infer
from mlflow_meta.store import MlflowStore, by_optuna
from mlflow_meta.store.rest import over, read_rest
from mlflow_meta.trials import Direction

SPACE = SearchSpace(
    {
        "model": Categorical(choices=("svm", "tree")),
        "C": Float(low=1e-7, high=1e5, log=True, when={"model": ("svm",)}),
        "depth": Integer(low=1, high=64, log=True, when={"model": ("tree",)}),
        "share": Float(low=0.25, high=4.0, step=0.25),
        "scaled": Categorical(choices=(False, True)),
        "size": Categorical(choices=(16, 32, 512)),
        "words": Categorical(choices=tuple(f"a rather long choice, number {i}" for i in range(12))),
    }
)
N_TRIALS = 12


def objective(trial: Trial) -> float:
    if trial.suggest_categorical("model", ["svm", "tree"]) == "svm":
        value = trial.suggest_float("C", 1e-7, 1e5, log=True) ** 0.1
    else:
        value = float(trial.suggest_int("depth", 1, 64, log=True))
    value += trial.suggest_float("share", 0.25, 4.0, step=0.25)
    value += trial.suggest_categorical("scaled", [False, True])
    words = [f"a rather long choice, number {i}" for i in range(12)]
    return (
        value
        + trial.suggest_categorical("size", [512, 16, 32])
        + len(trial.suggest_categorical("words", words))
    )


def by_callback(uri: str) -> optuna.Study:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that there are better ways by now
        callback = MLflowCallback(tracking_uri=uri)
    study = optuna.create_study(
        study_name="made", direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(objective, n_trials=N_TRIALS, callbacks=[callback])
    return study


def by_storage(uri: str) -> optuna.Study:
    mlflow.set_tracking_uri(uri)
    experiment_id = MlflowClient().create_experiment("made")
    storage = MlflowStorage(experiment_id=experiment_id, batch_flush_interval=60)
    study = optuna.create_study(
        study_name="study",
        storage=storage,
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    study.optimize(objective, n_trials=N_TRIALS)
    storage.flush_all_batches()
    return study


@pytest.fixture(scope="module", params=[by_callback, by_storage])
def made(
    request: pytest.FixtureRequest, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MlflowStore, optuna.Study]:
    """A store and the study whose runs are in it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = shutil.copy(empty_database, tmp_path_factory.mktemp("made") / "mlflow.db")
    study = request.param(f"sqlite:///{path}")
    return MlflowStore(f"sqlite:///{path}"), study


def test_a_study_s_runs_have_the_distributions_of_its_objective(
    made: tuple[MlflowStore, optuna.Study],
) -> None:
    store, _ = made
    dataset = store.read(["made"])
    assert len(dataset) == N_TRIALS
    assert infer(dataset.trials(dataset.objective(None))).space == SPACE


def test_a_study_says_what_is_sought(made: tuple[MlflowStore, optuna.Study]) -> None:
    store, study = made
    dataset = store.read(["made"])
    objective = dataset.objective(None)
    assert (objective.metric, objective.direction) == ("value", Direction.MAXIMIZE)
    assert -dataset.trials(objective)["value"].min() == pytest.approx(study.best_value)


def test_the_bookkeeping_of_optuna_is_no_tag_of_a_user(
    made: tuple[MlflowStore, optuna.Study],
) -> None:
    store, _ = made
    assert [c for c in store.read(["made"]).frame if c.startswith("tags.")] == []


def test_both_readers_tell_the_same_distributions(made: tuple[MlflowStore, optuna.Study]) -> None:
    store, _ = made
    experiments = store.experiments(["made"])
    runs = read_rest(over(store.client), [e.experiment_id for e in experiments], lambda _: None)
    told = by_optuna.columns(runs, SPACE.names)
    assert list(told) == sorted(f"distribution.{name}" for name in SPACE.names)
    direct = by_optuna.columns(store.read_all(experiments), SPACE.names)
    assert {name: list(map(str, column)) for name, column in told.items()} == {
        name: list(map(str, column)) for name, column in direct.items()
    }


def _said(study: optuna.Study) -> list[list[object]]:
    """What its trials were, in an order of their own."""
    trials = [
        [sorted(t.params.items()), sorted(map(str, t.distributions.items())), t.value]
        for t in study.trials
    ]
    return sorted(trials, key=str)


def test_a_study_made_of_the_runs_is_the_study_that_made_them(
    made: tuple[MlflowStore, optuna.Study],
) -> None:
    store, study = made
    again = to_optuna(store, "made")
    assert (again.study_name, again.direction) == ("made", study.direction)
    assert again.best_params == study.best_params
    assert _said(again) == _said(study)
    assert len(to_optuna(store, "made", study=again).trials) == N_TRIALS  # not a second time
    again.optimize(objective, n_trials=1)  # and it goes on, with the same objective


def test_a_value_outside_of_its_distribution_makes_the_space_a_guess_again(
    made: tuple[MlflowStore, optuna.Study],
) -> None:
    """As where a run was made by hand beside the study."""
    store, _ = made
    trials = store.read(["made"]).frame
    trials.loc[0, "params.share"] = 9.0
    assert infer(trials).space.params["share"] != SPACE.params["share"]
    trials.loc[0, ["params.share", "distribution.share"]] = [3.0, None]
    assert infer(trials).space.params["share"] == SPACE.params["share"]


def test_runs_outside_of_the_given_space_are_no_trials(store: MlflowStore) -> None:
    params = {"lr": {"type": "float", "low": 1e-5, "high": 1.0, "log": True}}
    rule = {"parameters": params, "constraints": ["lr <= 0.01"]}
    all_, some = (
        to_optuna(store, "sweep-a", metric="val_loss", space=SearchSpace.from_dict(spec))
        for spec in (params, rule)
    )
    assert 0 < len(some.trials) < len(all_.trials)
    assert all(trial.params["lr"] <= 0.01 for trial in some.trials)


@pytest.mark.parametrize("value", [2.7, "2.7", float("inf"), float("nan")])
def test_what_is_no_whole_number_is_none_of_an_integer(value: float | str) -> None:
    with pytest.raises(ValueError, match="is no whole number"):
        theirs(value, IntDistribution(0, 10))
    assert theirs("3", IntDistribution(0, 10)) == 3
