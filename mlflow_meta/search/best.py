"""The best rows that a search has seen, and the rows of a box one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.surface import Incumbent, n_rows

Vector = NDArray[np.float64]
Places = NDArray[np.int64]
Weight = Callable[[Places], int]
"""How many wanted configurations a row stands for; more than `k` are as good as `k`."""

MAX_AT_ONCE = 20_000  # rows that are valued together


def one(row: Places) -> int:
    """Every row is a configuration of its own."""
    del row
    return 1


class Best:
    """The rows of lowest value among those offered, each once, that stand for `k` configurations.

    Attributes:
        rows: `(n, P)`; together they stand for `k`, or for all that was offered, and none of them
            can be spared.
        values: `(n,)` theirs, rising.
    """

    def __init__(self, k: int, n_params: int, weight: Weight = one, cut: float = math.inf) -> None:
        """Nothing has been offered yet; what is not below `cut` is of no use."""
        self._k, self._weight, self._cut = k, weight, cut
        self.rows = np.empty((0, n_params), dtype=np.int64)
        self.values = np.empty(0)
        self._weights = np.empty(0, dtype=np.int64)
        self._known: set[bytes] = set()

    @property
    def cut(self) -> float:
        """A row whose value is not below it is of no use; at first inf, or what was given."""
        return float(self.values[-1]) if self._weights.sum() >= self._k else self._cut

    def offer(self, rows: Places, values: Vector) -> None:
        """Take in what is good enough of `rows (n, P)` with their `values (n,)`."""
        low = np.flatnonzero(values < self.cut)
        for start in range(0, len(low), self._k):
            # Part by part, the lowest first: what is weighed needlessly would take its time.
            some = low[np.argsort(values[low], kind="stable")][start : start + self._k]
            if values[some[0]] >= self.cut:
                return
            self._take(rows[some], values[some])

    def _take(self, rows: Places, values: Vector) -> None:
        weights = np.array([self._new(row) for row in rows])
        is_wanted = weights > 0
        kept = np.concatenate([self.values, values[is_wanted]])
        order = np.argsort(kept, kind="stable")
        weights = np.concatenate([self._weights, weights[is_wanted]])[order]
        # Up to and with the first at which there are enough.
        order = order[: int(np.searchsorted(np.cumsum(weights), self._k)) + 1]
        self._weights = weights[: len(order)]
        self.rows = np.concatenate([self.rows, rows[is_wanted]])[order]
        self.values = kept[order]

    def _new(self, row: Places) -> int:
        """The weight of a row; 0 where it was offered before."""
        key = row.astype(np.int64).tobytes()
        if key in self._known:
            return 0
        self._known.add(key)
        return min(self._weight(row), self._k)

    def incumbent(self, rest: float, n_assessed: int) -> Incumbent:
        """What is known by now."""
        return Incumbent(rows=self.rows, values=self.values, rest=rest, n_assessed=n_assessed)


def all_rows(box: tuple[Places, ...]) -> Places:
    """Every row of a box, `(n, P)`."""
    return rows_at(box, np.arange(n_rows([len(levels) for levels in box])))


def rows_at(box: tuple[Places, ...], places: Places) -> Places:
    """The rows at `places (n,)` of a box, counted with its last parameter running fastest."""
    rows = np.empty((len(places), len(box)), dtype=np.int64)
    for p in reversed(range(len(box))):
        places, level = np.divmod(places, len(box[p]))
        rows[:, p] = box[p][level]
    return rows
