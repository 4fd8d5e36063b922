"""Tests for search/best.py: against sorting everything that was offered."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_meta.search.best import Best


@pytest.mark.parametrize("seed", range(20))
def test_the_lowest_rows_that_stand_for_k_configurations_are_kept(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 12))
    weights = rng.integers(0, 5, size=200)
    values = np.round(rng.normal(size=200), 1)  # with ties
    best = Best(k, 1, lambda row: int(weights[row[0]]))
    known = np.empty(0, dtype=np.int64)
    for _ in range(30):
        rows = rng.integers(200, size=int(rng.integers(1, 40)))  # some again and again
        best.offer(rows[:, None], values[rows])
        known = np.union1d(known, rows)
    wanted = known[weights[known] > 0]
    order = wanted[np.argsort(values[wanted], kind="stable")]
    reached = np.cumsum(weights[order])
    enough = int(np.searchsorted(reached, k)) + 1
    assert best.values.tolist() == values[order[:enough]].tolist()
    assert len({int(row[0]) for row in best.rows}) == len(best.rows)
    assert best.cut == (values[order[enough - 1]] if reached[-1] >= k else np.inf)


def test_what_is_known_to_be_of_no_use_is_not_weighed() -> None:
    asked: list[int] = []

    def weight(row: np.ndarray) -> int:
        asked.append(int(row[0]))
        return 10

    best = Best(10, 1, weight)
    best.offer(np.arange(1000)[::-1, None], np.arange(1000.0)[::-1])
    assert best.rows.tolist() == [[0]]
    assert len(asked) <= 10
