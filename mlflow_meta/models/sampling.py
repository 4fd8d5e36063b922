"""A part of many trials that is as good to judge models on, and much faster."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MIN_EACH = 50  # trials of a task that are kept before whole tasks are left out
_SEED = 0


def sampled(tasks: NDArray[np.object_], most: int) -> NDArray[np.int64]:
    """At most `most` rows, in their order: as many of each task as there is room for.

    Of a task with more, some at random. Where there are too many tasks for `MIN_EACH` of each, the
    largest are kept.

    Args:
        tasks: `(n,)` the task of each row.
        most: Rows to keep; all of them if there are no more.
    """
    if len(tasks) <= most:
        return np.arange(len(tasks))
    codes, _ = pd.factorize(tasks)
    counts = np.bincount(codes)
    kept = np.minimum(counts, _each(counts, most))
    order = np.argsort(-counts, kind="stable")
    kept[order[np.cumsum(kept[order]) > most]] = 0
    rng = np.random.default_rng(_SEED)
    shuffled = rng.permutation(len(tasks))
    by_task = shuffled[np.argsort(codes[shuffled], kind="stable")]
    place = np.arange(len(tasks)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_task[place < np.repeat(kept, counts)])


def _each(counts: NDArray[np.int64], most: int) -> int:
    """The most rows of one task with which all tasks fit; at least `MIN_EACH`."""
    low, high = min(MIN_EACH, most), int(counts.max())
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(counts, middle).sum() <= most:
            low = middle
        else:
            high = middle - 1
    return low
