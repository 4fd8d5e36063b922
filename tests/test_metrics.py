import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlflow_meta.metrics import coverage, rmse, spearman

vectors = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=30).map(
    lambda pairs: np.array(pairs, dtype=float).T
)


@given(vectors)
def test_spearman_is_that_of_scipy_also_with_ties(pair: np.ndarray) -> None:
    observed, predicted = pair
    if len(set(observed)) == 1 or len(set(predicted)) == 1:
        assert np.isnan(spearman(observed, predicted))
    else:
        expected = stats.spearmanr(observed, predicted).statistic
        assert spearman(observed, predicted) == pytest.approx(expected)


def test_spearman_of_a_perfect_order_is_1_and_of_the_reverse_minus_1() -> None:
    order = np.arange(9.0)
    assert spearman(order, np.exp(order)) == pytest.approx(1.0)
    assert spearman(order, -(order**3)) == pytest.approx(-1.0)


def test_rmse_is_in_the_units_of_the_values() -> None:
    assert rmse(np.array([0.0, 0.0]), np.array([3.0, 4.0])) == pytest.approx(np.sqrt(12.5))


def test_coverage_counts_the_ends_of_an_interval() -> None:
    observed = np.array([0.0, 1.0, 2.0, 3.0])
    assert coverage(observed, np.full(4, 1.0), np.full(4, 2.0)) == 0.5


def test_coverage_of_a_normal_interval_is_the_normal_probability() -> None:
    y = np.random.default_rng(0).normal(size=100_000)
    assert coverage(y, np.full_like(y, -1.0), np.full_like(y, 1.0)) == pytest.approx(
        stats.norm.cdf(1) - stats.norm.cdf(-1), abs=0.01
    )
