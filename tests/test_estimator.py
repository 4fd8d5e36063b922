"""Tests for models/estimator.py: scikit-learn's own checks over the zoo, and its tools."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_dataframe_column_names_consistency, check_estimator

from mlflow_meta.models import ZooRegressor
from mlflow_meta.models.gaussian_process import GaussianProcess
from mlflow_meta.models.transfer import Transfer
from mlflow_meta.models.zoo import REGRESSORS, ZOO

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


def bowl(n: int) -> tuple[Matrix, Vector]:
    """Two numbers in units far from each other, and what they make in units of its own."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(n, 2))
    y = (Z[:, 0] - 0.5) ** 2 + Z[:, 1] + rng.normal(0.0, 0.1, n)
    return Z * [1e3, 1e-3] + [5e3, 0.0], 1e6 * y - 3e7


def test_every_kind_of_the_zoo_is_there() -> None:
    assert set(REGRESSORS) == set(ZOO)


@pytest.mark.slow
@pytest.mark.parametrize("kind", REGRESSORS)
def test_every_kind_passes_the_checks_of_scikit_learn(kind: str) -> None:
    results = check_estimator(ZooRegressor(kind), on_skip=None)
    skipped = {result["check_name"] for result in results if result["status"] != "passed"}
    assert skipped <= {"check_array_api_input"}  # wants SCIPY_ARRAY_API=1 before the first import


def test_the_columns_of_a_frame_must_be_those_that_it_was_fitted_on() -> None:
    check_dataframe_column_names_consistency("ZooRegressor", ZooRegressor("linear"))


@pytest.mark.parametrize("kind", REGRESSORS)
def test_every_kind_predicts_what_it_has_not_seen_within_a_pipeline(kind: str) -> None:
    X, y = bowl(150)
    model = make_pipeline(StandardScaler(), ZooRegressor(kind, random_state=0))
    assert cross_val_score(model, X[:100], y[:100], cv=3).min() > 0.6
    mean, std = clone(model).fit(X[:100], y[:100]).predict(X[100:], return_std=True)
    assert np.mean(np.abs(y[100:] - mean) <= 2 * std) >= 0.8
    assert std.mean() < y.std()


def test_a_search_finds_the_kind_that_suits_the_data() -> None:
    X, _ = bowl(80)
    steps = np.floor(X[:, 0] / 500.0) % 2
    search = GridSearchCV(
        make_pipeline(StandardScaler(), ZooRegressor(random_state=0)),
        {"zooregressor__kind": ["linear", "extra_trees"]},
        cv=3,
    )
    assert search.fit(X, steps).best_params_ == {"zooregressor__kind": "extra_trees"}


@pytest.mark.parametrize("kind", REGRESSORS)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e200])
def test_equal_values_are_what_is_expected_ever_after(kind: str, value: float) -> None:
    X = np.column_stack([np.arange(10.0), np.ones(10)])
    mean, std = ZooRegressor(kind).fit(X, np.full(10, value)).predict(X + 0.5, return_std=True)
    np.testing.assert_allclose(mean, value, rtol=1e-4, atol=1e-4)
    assert np.all(np.isfinite(std))


@pytest.mark.parametrize("kind", REGRESSORS)
def test_two_rows_are_enough(kind: str) -> None:
    mean, std = ZooRegressor(kind).fit([[0.0], [1.0]], [3, 5]).predict([[0.5]], return_std=True)
    assert 3 <= mean[0] <= 5
    assert 0 < std[0] < 10


@pytest.mark.parametrize("factor", [1e-200, -2.0, 1e200])
def test_the_units_of_y_are_those_of_the_prediction(factor: float) -> None:
    X, y = bowl(40)
    one, other = ZooRegressor("linear").fit(X, y), ZooRegressor("linear").fit(X, factor * y)
    mean, std = one.predict(X, return_std=True)
    np.testing.assert_allclose(other.predict(X), factor * mean)
    np.testing.assert_allclose(other.predict(X, return_std=True)[1], abs(factor) * std)


def standardised(n: int) -> tuple[Matrix, Vector]:
    X, y = bowl(n)
    return (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std()


def test_columns_of_one_group_are_learned_as_one_thing() -> None:
    X, z = standardised(40)
    by_hand = GaussianProcess()
    by_hand.fit(X, z, groups=np.array([0, 0]), seed=0)
    model = ZooRegressor("gaussian_process", column_groups=[7, 7]).fit(X, z)
    np.testing.assert_allclose(model.predict(X), by_hand.predict(X).mean, rtol=1e-4, atol=1e-4)
    apart = ZooRegressor("gaussian_process").fit(X, z)
    assert np.abs(apart.predict(X) - model.predict(X)).max() > 0.01


def test_transfer_takes_all_rows_for_one_task() -> None:
    X, z = standardised(40)
    by_hand = Transfer()
    by_task = np.column_stack([np.full(40, 7.0), X])
    by_hand.fit(by_task, z, groups=np.array([0, 1, 2]), seed=0)
    model = ZooRegressor("transfer").fit(X, z)
    np.testing.assert_allclose(model.predict(X), by_hand.predict(by_task).mean, rtol=1e-4)


def test_equal_random_states_give_equal_models() -> None:
    X, y = bowl(40)
    one, same, other = (ZooRegressor("lightgbm", random_state=seed).fit(X, y) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.predict(X), same.predict(X))
    assert np.any(one.predict(X) != other.predict(X))


def test_a_kind_that_is_not_in_the_zoo_and_groups_of_other_columns_are_wrong_arguments() -> None:
    X, y = bowl(10)
    with pytest.raises(ValueError, match=r"must be one of .*'transfer'.* but got 'forest'"):
        ZooRegressor("forest").fit(X, y)
    with pytest.raises(ValueError, match=r"each of X's 2 columns, but its shape is \(3,\)"):
        ZooRegressor(column_groups=[0, 0, 1]).fit(X, y)
