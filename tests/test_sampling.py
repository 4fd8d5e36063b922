"""Tests for models/sampling.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_meta.models.sampling import MIN_EACH, sampled


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), st.integers(1, 3000))
def test_no_more_than_asked_and_no_task_is_cut_short_for_a_larger_one(
    counts: list[int], most: int
) -> None:
    names = np.repeat(np.arange(len(counts)).astype(str), counts).astype(object)
    tasks = np.random.default_rng(0).permutation(names)
    rows = sampled(tasks, most)
    assert len(rows) <= max(most, 0)
    assert np.all(np.diff(rows) > 0)
    kept = [int(np.sum(tasks[rows] == str(i))) for i in range(len(counts))]
    if sum(counts) <= most:
        assert kept == counts
    elif all(kept):
        least_cut = min((k for k, n in zip(kept, counts, strict=True) if k < n), default=0)
        assert max(kept) == least_cut
        assert sum(kept) > most - len(counts)
    else:  # too many tasks
        assert max(kept) <= MIN_EACH
        gone = max(n for k, n in zip(kept, counts, strict=True) if not k)
        assert all(n >= gone for k, n in zip(kept, counts, strict=True) if k)


@pytest.mark.parametrize("n", [10, 1000])
def test_it_is_the_same_each_time_and_random_within_a_task(n: int) -> None:
    tasks = np.repeat("a", 5000).astype(object)
    rows = sampled(tasks, n)
    assert np.array_equal(rows, sampled(tasks, n))
    assert 1000 < rows.mean() < 4000
