"""The best rows that a search has seen, and the rows of a box one after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.surface import Incumbent, n_rows

Vector = NDArray[np.float64]
Places = NDArray[np.int64]
Accepts = Callable[[Places], bool]

MAX_AT_ONCE = 20_000  # rows that are valued together


def everything(row: Places) -> bool:
    """Accepts any row."""
    del row
    return True


class Best:
    """Up to `k` rows of lowest value among those offered, each once; `accepts` may refuse some."""

    def __init__(self, k: int, n_params: int, accepts: Accepts = everything) -> None:
        """Nothing has been offered yet."""
        self._k, self._accepts = k, accepts
        self.rows = np.empty((0, n_params), dtype=np.int64)
        self.values = np.empty(0)
        self._known: set[bytes] = set()

    @property
    def cut(self) -> float:
        """A row whose value is not below it is of no use; inf while there are too few."""
        return float(self.values[-1]) if len(self.values) == self._k else np.inf

    def offer(self, rows: Places, values: Vector) -> None:
        """Take in what is good enough of `rows (n, P)` with their `values (n,)`."""
        low = np.flatnonzero(values < self.cut)
        fresh = [i for i in low[np.argsort(values[low], kind="stable")] if self._is_new(rows[i])]
        if not fresh:
            return
        kept_rows = np.concatenate([self.rows, rows[fresh]])
        kept = np.concatenate([self.values, values[fresh]])
        order = np.argsort(kept, kind="stable")[: self._k]
        self.rows, self.values = kept_rows[order], kept[order]

    def _is_new(self, row: Places) -> bool:
        key = row.astype(np.int64).tobytes()
        if key in self._known:
            return False
        self._known.add(key)
        return self._accepts(row)

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
