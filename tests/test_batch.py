"""Tests for batch.py: greedy choices against the best of all batches, and what keeps them apart."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mlflow_meta.acquisition import expected_improvement
from mlflow_meta.batch import jointly_best, jointly_best_by_cost, worthy_and_apart

NOTHING_YET = np.full(40, np.inf)


def reached(draws: np.ndarray, best: np.ndarray, chosen: list[int]) -> float:
    """E[min(best, f of the chosen)]."""
    return float(np.minimum(draws[:, chosen].min(axis=1), best).mean())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("q", [1, 2, 3])
def test_a_greedy_batch_has_nearly_the_gain_of_the_best_of_all_batches(seed: int, q: int) -> None:
    draws = np.random.default_rng(seed).normal(size=(40, 9))
    best = np.full(40, 0.5)
    greedy = reached(draws, best, jointly_best(draws, best, q))
    exhaustive = min(reached(draws, best, list(batch)) for batch in combinations(range(9), q))
    gain, most = 0.5 - greedy, 0.5 - exhaustive
    assert gain <= most + 1e-12
    assert gain >= (1 - np.exp(-1)) * most  # Nemhauser's bound; q = 1 is exact:
    assert q > 1 or gain == pytest.approx(most)


def test_a_portfolio_serves_every_task_before_it_serves_one_twice() -> None:
    # Each of 3 tasks has its own best configuration, and a second best that is nearly as good.
    tasks = np.ones((3, 6))
    for task in range(3):
        tasks[task, [2 * task, 2 * task + 1]] = 0.0, 0.01
    assert set(jointly_best(tasks, np.full(3, np.inf), 3)) == {0, 2, 4}


def test_the_gain_of_one_candidate_is_its_expected_improvement() -> None:
    mean, std = np.array([0.3, -0.2, 0.0]), np.array([1.0, 0.1, 0.6])
    draws = np.random.default_rng(0).normal(mean, std, size=(200_000, 3))
    gains = [0.1 - reached(draws, np.full(len(draws), 0.1), [i]) for i in range(3)]
    np.testing.assert_allclose(gains, expected_improvement(mean, std, 0.1), rtol=2e-2)


def test_what_is_the_same_in_every_world_is_not_chosen_twice() -> None:
    first = np.random.default_rng(0).normal(-1.0, 1.0, size=40)
    other = np.random.default_rng(1).normal(0.5, 1.0, size=40)
    draws = np.column_stack([first, first + 1e-9, other])
    assert jointly_best(draws, NOTHING_YET, 2) == [0, 2]


def test_all_are_chosen_where_more_were_asked_for_and_each_once() -> None:
    draws = np.random.default_rng(0).normal(size=(40, 5))
    assert sorted(jointly_best(draws, NOTHING_YET, 9)) == list(range(5))
    positions = np.random.default_rng(0).random((5, 2))
    assert sorted(worthy_and_apart(draws[0], positions, 9, costs=np.zeros(5))) == list(range(5))


def test_a_neighbour_is_passed_over_for_one_that_is_a_little_less_worth() -> None:
    positions = np.array([[0.0, 0.0], [0.001, 0.0], [1.0, 1.0], [0.5, 0.5]])
    worth = np.array([1.0, 0.99, 0.8, 0.1])
    assert worthy_and_apart(worth, positions, 2, costs=np.zeros(4)) == [0, 2]


def test_what_is_too_dear_is_passed_over_too() -> None:
    positions = np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [0.9, 0.0]])
    worth, costs = np.array([1.0, 0.8, 0.6, 0.1]), np.array([1.0, 9.0, 1.0, 1.0])
    assert worthy_and_apart(worth, positions, 4, costs=costs, budget=2.5) == [0, 2]


@pytest.mark.parametrize("seed", range(8))
def test_an_affordable_batch_has_its_share_of_the_best_affordable_gain(seed: int) -> None:
    rng = np.random.default_rng(seed)
    draws, best, costs = rng.normal(size=(40, 9)), np.full(40, 0.5), rng.lognormal(size=9)
    budget = float(np.median(costs) * 2.5)
    chosen = jointly_best_by_cost(draws, best, 9, costs, budget)
    assert costs[chosen].sum() <= budget
    affordable = [
        list(batch)
        for q in (1, 2, 3, 4, 5)
        for batch in combinations(range(9), q)
        if costs[list(batch)].sum() <= budget
    ]
    most = max(0.5 - reached(draws, best, batch) for batch in affordable)
    assert 0.5 - reached(draws, best, chosen) >= 0.5 * (1 - np.exp(-1)) * most


def test_gain_per_cost_alone_would_leave_a_budget_unspent_and_is_not_trusted_alone() -> None:
    # Per cost the first is best; after it the second, which gains 50 times as much, is too dear.
    draws = np.tile([[0.98, 0.0]], (40, 1))
    assert jointly_best_by_cost(draws, np.ones(40), 2, np.array([0.01, 1.0]), 1.0) == [1]


def test_where_there_is_no_budget_the_order_is_that_of_gain_per_cost() -> None:
    draws = np.tile([[0.8, 0.5, 0.9]], (40, 1))
    costs = np.array([1.0, 5.0, 1.0])
    assert jointly_best_by_cost(draws, np.ones(40), 1, costs) == [0]


def test_nothing_is_chosen_where_nothing_can_be_paid_for() -> None:
    draws = np.random.default_rng(0).normal(size=(40, 3))
    assert jointly_best_by_cost(draws, NOTHING_YET, 3, np.full(3, 2.0), 1.0) == []
