"""Tests for acquisition.py: each formula against a second, slower way to the same number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_meta.acquisition import expected_improvement

moderate = st.floats(-100, 100)
spread = st.floats(1e-3, 100)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-2.0, 0.5), (3.0, 2.0)])
def test_expected_improvement_matches_monte_carlo(mean: float, std: float) -> None:
    y = np.random.default_rng(0).normal(mean, std, size=1_000_000)
    analytic = expected_improvement(np.array([mean]), np.array([std]), best=0.5)
    np.testing.assert_allclose(analytic, np.maximum(0.5 - y, 0.0).mean(), rtol=2e-2)


def test_expected_improvement_of_a_certain_model_is_the_plain_improvement() -> None:
    ei = expected_improvement(np.array([1.0, 3.0]), np.zeros(2), best=2.0)
    np.testing.assert_array_equal(ei, [1.0, 0.0])


@given(mean=moderate, std=spread, best=moderate)
def test_it_is_at_least_the_improvement_of_the_mean_and_never_negative(
    mean: float, std: float, best: float
) -> None:
    (ei,) = expected_improvement(np.array([mean]), np.array([std]), best=best)
    assert ei >= max(best - mean, 0.0) - 1e-9


@given(mean=moderate, std=spread, best=moderate, more=st.floats(1e-3, 10))
def test_a_lower_mean_or_a_larger_std_never_makes_it_less(
    mean: float, std: float, best: float, more: float
) -> None:
    ei = expected_improvement(
        np.array([mean, mean - more, mean]), np.array([std, std, std + more]), best=best
    )
    assert ei[1] >= ei[0] - 1e-9
    assert ei[2] >= ei[0] - 1e-9


@given(mean=moderate, std=spread, best=moderate, scale=st.floats(0.1, 10), shift=moderate)
def test_it_has_the_units_of_the_objective(
    mean: float, std: float, best: float, scale: float, shift: float
) -> None:
    plain = expected_improvement(np.array([mean]), np.array([std]), best=best)
    moved = expected_improvement(
        np.array([mean * scale + shift]), np.array([std * scale]), best=best * scale + shift
    )
    np.testing.assert_allclose(moved, plain * scale, rtol=1e-6, atol=1e-9)


def test_expected_improvement_says_which_shapes_differ() -> None:
    with pytest.raises(ValueError, match=r"got \(2,\) and \(3,\)"):
        expected_improvement(np.zeros(2), np.zeros(3), best=0.0)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_a_std_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="`std >= 0` must hold"):
        expected_improvement(np.zeros(2), np.array([1.0, bad]), best=0.0)
