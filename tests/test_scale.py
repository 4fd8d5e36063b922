"""Tests for models/scale.py: from a task's own units to standard scores and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from mlflow_meta.models.scale import TaskScale

finite = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))
distinct = st.lists(finite, min_size=1, max_size=40, unique=True).map(np.array)
with_ties = arrays.arrays(
    float, st.integers(1, 30), elements=st.sampled_from([0.1, 0.5, 2.0, -3.0])
)
scores = arrays.arrays(float, 20, elements=st.floats(-8, 8)).map(np.sort)


@given(distinct)
def test_to_value_undoes_to_score(values: np.ndarray) -> None:
    scale = TaskScale.learn(values)
    np.testing.assert_allclose(scale.to_value(scale.to_score(values)), values, rtol=1e-9, atol=1e-9)


@given(st.one_of(distinct, with_ties), scores)
def test_to_value_never_falls(values: np.ndarray, at: np.ndarray) -> None:
    found = TaskScale.learn(values).to_value(at)
    assert np.all(np.isfinite(found))
    assert np.all(np.diff(found) >= -1e-9 * (1 + np.abs(values).max()))


@given(with_ties)
def test_equal_values_have_equal_scores_and_smaller_ones_lower(values: np.ndarray) -> None:
    score = TaskScale.learn(values).to_score(values)
    for i in range(len(values)):
        assert np.all((score < score[i]) == (values < values[i]))


@given(distinct, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_scores_do_not_depend_on_the_units(values: np.ndarray, unit: float, zero: float) -> None:
    score = TaskScale.learn(values).to_score(values)
    other = values * unit + zero
    if len(np.unique(other)) == len(values):  # nothing was rounded away
        np.testing.assert_allclose(TaskScale.learn(other).to_score(other), score, atol=1e-3)
    np.testing.assert_allclose(score.sum(), 0.0, atol=1e-9)


def test_scores_of_many_normal_values_are_standard_normal() -> None:
    values = np.random.default_rng(0).normal(3.0, 7.0, size=2000)
    score = TaskScale.learn(values).to_score(values)
    assert (score.mean(), score.std()) == pytest.approx((0.0, 1.0), abs=0.05)
    assert stats.kstest(score, "norm").pvalue > 0.2


def test_how_much_better_the_best_is_shows_and_how_bad_the_worst_does_not() -> None:
    values = np.arange(10.0)
    usual = TaskScale.learn(values).to_score(values)
    ahead = np.array([-3.0, *values[1:]])
    assert TaskScale.learn(ahead).to_score(ahead)[0] < usual[0] - 0.1
    diverged = [np.array([*values[:-1], worst]) for worst in (1e3, 1e6, 1e300)]
    scores = [TaskScale.learn(v).to_score(v) for v in diverged]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-9)
    assert np.diff(scores[2][:9]).min() > 0.1


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([0.7, 0.8, 0.99], 0.0, 1.0),
        ([3.0, 40.0, 500.0], 0.0, np.inf),
        ([-0.99, -0.8, -0.7], -1.0, 0.0),
        ([-500.0, -40.0, -3.0], -np.inf, 0.0),
        ([-1.0, 0.5, 2.0], -np.inf, np.inf),
    ],
)
def test_predictions_never_cross_a_bound_that_the_metric_seems_to_have(
    values: list[float], low: float, high: float
) -> None:
    found = TaskScale.learn(np.array(values)).to_value(np.array([-50.0, 50.0]))
    assert found[0] == low or (np.isinf(low) and found[0] < min(values))
    assert found[1] == high or (np.isinf(high) and found[1] > max(values))


def test_beyond_the_best_it_goes_on_with_the_slope_of_the_outer_quarter() -> None:
    values = np.array([10.0, 11.0, 13.0, 14.0, 20.0, 21.0, 22.0, 29.0])
    scale = TaskScale.learn(values)
    grid = scale.to_score(values)
    slope = (13.0 - 10.0) / (grid[2] - grid[0])
    assert scale.to_value(grid[:1] - 0.5)[0] == pytest.approx(10.0 - 0.5 * slope)


def test_a_task_of_one_trial_knows_only_its_value() -> None:
    scale = TaskScale.learn(np.array([4.2]))
    np.testing.assert_array_equal(scale.to_value(np.array([-3.0, 0.0, 3.0])), [4.2] * 3)
    np.testing.assert_array_equal(scale.to_score(np.array([4.2])), [0.0])


def test_best_is_the_lowest_value() -> None:
    assert TaskScale.learn(np.array([3.0, -1.0, 2.0])).best == -1.0
