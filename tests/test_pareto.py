"""Tests for pareto.py: fronts against their definition, volumes against Monte Carlo and Optuna."""

from __future__ import annotations

from math import gamma, pi

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume

from mlflow_meta.pareto import directions, fronts, hypervolume, scalarised


@pytest.mark.parametrize("seed", range(5))
def test_the_first_front_is_what_nothing_dominates_and_the_others_follow(seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 5, size=(30, 3)).astype(float)
    found, left, front = fronts(values), set(range(30)), 1
    while left:
        first = {
            i
            for i in left
            if not any(
                (values[j] <= values[i]).all() and (values[j] < values[i]).any() for j in left
            )
        }
        assert {i for i in left if found[i] == front} == first
        left, front = left - first, front + 1


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_volume_is_that_of_optuna_and_of_random_points(k: int) -> None:
    rng = np.random.default_rng(k)
    values, reference = rng.random((20, k)), np.full(k, 0.9)
    volume = hypervolume(values, reference)
    inside = values[(values < reference).all(axis=1)]
    assert volume == pytest.approx(compute_hypervolume(inside, reference))
    points = rng.random((100_000, k)) * 0.9
    share = (values[:, None] <= points).all(axis=2).any(axis=0).mean()
    assert volume == pytest.approx(share * 0.9**k, rel=0.03)


def test_the_mean_over_random_weights_is_the_volume() -> None:
    rng = np.random.default_rng(0)
    values, reference = rng.random((12, 3)), np.ones(3)
    best = -scalarised(values, directions(200_000, 3, rng), reference).min(axis=0)
    constant = pi**1.5 / (2**3 * gamma(2.5))  # Golovin and Zhang's c_k
    assert constant * best.mean() == pytest.approx(hypervolume(values, reference), rel=0.02)


def test_what_is_beyond_the_reference_adds_nothing() -> None:
    weights = directions(5, 2, np.random.default_rng(0))
    beyond = scalarised(np.array([[2.0, 0.0]]), weights, np.ones(2))
    np.testing.assert_array_equal(beyond, np.zeros((1, 5)))
    assert hypervolume(np.array([[2.0, 0.0]]), np.ones(2)) == 0.0
