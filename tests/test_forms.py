"""Tests for models/forms.py: a formula says what its regressor predicts."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_meta.models import REGRESSORS, Formed
from mlflow_meta.models.regressor import Matrix

FORMED = ("linear", "network", "lightgbm", "extra_trees")


def data(seed: int, n: int = 80) -> tuple[Matrix, Matrix]:
    """Numbers, a category of three, and a column that is always the same."""
    rng = np.random.default_rng(seed)
    numbers, levels = rng.random((n, 3)), np.eye(3)[rng.integers(3, size=n)]
    X = np.column_stack([numbers, levels, np.ones(n)])
    return X, np.sin(5 * X[:, 0]) + X[:, 1] * X[:, 3] + 0.1 * rng.normal(size=n)


@pytest.mark.parametrize("kind", FORMED)
def test_a_form_computes_what_the_regressor_predicts(kind: str) -> None:
    X, y = data(0)
    regressor = REGRESSORS[kind]()
    regressor.fit(X, y, groups=np.array([0, 1, 2, 3, 3, 3, 4]), seed=0)
    assert isinstance(regressor, Formed)
    away = data(1)[0] * 3 - 1
    np.testing.assert_allclose(regressor.form().at(away), regressor.predict(away).mean, atol=1e-9)


@pytest.mark.parametrize("kind", FORMED)
def test_draws_scatter_about_the_mean_as_doubt_has_it(kind: str) -> None:
    X, y = data(0)
    regressor = REGRESSORS[kind]()
    regressor.fit(X, y, groups=np.array([0, 1, 2, 3, 3, 3, 4]), seed=0)
    assert isinstance(regressor, Formed)
    rng, new = np.random.default_rng(0), data(1)[0]
    drawn = np.stack([regressor.draw(rng).at(new) for _ in range(400)])
    predicted = regressor.predict(new)
    spread = drawn.std(axis=0)
    assert np.all(np.abs(drawn.mean(axis=0) - predicted.mean) < 5 * spread / np.sqrt(400) + 1e-9)
    assert 0 < spread.mean() < predicted.std.mean(), "noise of an observation is no doubt"


@pytest.mark.parametrize("kind", ["gaussian_process", "blend", "transfer"])
def test_what_has_no_formula_does_not_claim_one(kind: str) -> None:
    assert not isinstance(REGRESSORS[kind](), Formed)
