"""The k lowest rows that were seen, by what the surface itself says of them."""

from __future__ import annotations

import math

import numpy as np

from mlflow_meta.search.surface import Places, Surface, Vector, n_rows

PER_CHUNK = 4096  # rows that are valued at once: bounds the memory
N_ROUNDS = 30  # of `descend` at most
N_DESCENTS = 8  # rows that are stepped from in each


class Lowest:
    """The `k` rows of lowest value among those given, all different, rising.

    Attributes:
        rows: `(n, P)`.
        values: `(n,)`, by the surface.
    """

    rows: Places
    values: Vector

    def __init__(self, surface: Surface, k: int) -> None:
        self._surface = surface
        self._k = k
        self.rows = np.empty((0, len(surface.sizes)), dtype=np.int64)
        self.values = np.empty(0)

    @property
    def bar(self) -> float:
        """A row that belongs to the k lowest has a value below it, or is among them."""
        return float(self.values[-1]) if len(self.values) == self._k else math.inf

    def add(self, rows: Places) -> None:
        """Take in `rows (n, P)`."""
        both = np.concatenate([self.rows, rows])
        _, first = np.unique(
            np.ravel_multi_index(tuple(both.T), self._surface.sizes), return_index=True
        )
        fresh = np.sort(first[first >= len(self.rows)])
        parts = [both[fresh[i : i + PER_CHUNK]] for i in range(0, len(fresh), PER_CHUNK)]
        values = np.concatenate([self.values, *map(self._surface.values, parts)])
        rows = np.concatenate([self.rows, both[fresh]])
        order = np.argsort(values, kind="stable")[: self._k]
        self.rows, self.values = rows[order], values[order]


def spread(sizes: tuple[int, ...], n: int) -> Places:
    """Rows `(n, P)`, all different, spread evenly over the `n` or more that there are."""
    n_all = n_rows(sizes)
    start = n_all // n // 2
    places = start + np.arange(n, dtype=np.int64) * (n_all // n)
    return np.array(np.unravel_index(places, sizes), dtype=np.int64).T


def descend(lowest: Lowest, sizes: tuple[int, ...]) -> None:
    """Add what one changed level leads to from the lowest rows, until it leads no lower."""
    before = math.inf
    for _ in range(N_ROUNDS):
        if not lowest.values[0] < before:
            return
        before = float(lowest.values[0])
        lowest.add(_neighbours(lowest.rows[:N_DESCENTS], sizes))


def _neighbours(rows: Places, sizes: tuple[int, ...]) -> Places:
    found = []
    for p, size in enumerate(sizes):
        changed = np.repeat(rows, size, axis=0)
        changed[:, p] = np.tile(np.arange(size), len(rows))
        found.append(changed)
    return np.concatenate(found)
