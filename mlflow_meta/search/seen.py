"""What a search by trial remembers, and the steps that every such search ends with.

n, P, n_p, k: rows; parameters; levels of parameter p; rows that are wanted
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.surface import Incumbent, Places, Surface, Vector

N_EXPANDED_AT_ONCE = 4
MAX_WIDENED = 100_000  # rows that `widened` values


class Seen:
    """A surface that remembers the `k` best of the rows that it was asked for."""

    def __init__(self, surface: Surface, k: int) -> None:
        self.sizes = surface.sizes
        self._surface, self._k = surface, k
        nothing = np.empty((0, len(self.sizes)), dtype=np.int64)
        self._best = Incumbent(rows=nothing, values=np.empty(0), rest=-math.inf, n_assessed=0)

    def values(self, rows: Places) -> Vector:
        """Values `(n,)` of `rows (n, P)`, which are from now on seen."""
        values, best = self._surface.values(rows), self._best
        is_full = len(best.values) == self._k
        good = values < best.values[-1] if is_full and self._k else np.full(len(rows), not is_full)
        found = best.rows, best.values
        if np.any(good):
            found = lowest(
                np.concatenate([best.rows, rows[good]]),
                np.concatenate([best.values, values[good]]),
                self._k,
            )
        self._best = Incumbent(
            rows=found[0],
            values=found[1],
            rest=-math.inf,
            n_assessed=best.n_assessed + len(rows),
        )
        return values

    @property
    def best(self) -> Incumbent:
        """The `k` best rows by now; `n_assessed` counts a row as often as it was asked for."""
        return self._best


def lowest(rows: Places, values: Vector, k: int) -> tuple[Places, Vector]:
    """The `k` rows of lowest value, each once, with their values; of equals the lower levels.

    Args:
        rows: `(n, P)`.
        values: `(n,)`.
        k: How many; all where there are fewer.

    Returns:
        `(k, P)` and `(k,)`, rising.
    """
    order = np.lexsort(rows.T[::-1])
    rows, values = rows[order], values[order]
    is_new = np.ones(len(rows), dtype=bool)
    is_new[1:] = np.any(rows[1:] != rows[:-1], axis=1)
    rows, values = rows[is_new], values[is_new]
    first = np.argsort(values, kind="stable")[:k]
    return rows[first], values[first]


def descended(seen: Seen, rows: Places, rng: np.random.Generator) -> Iterator[Incumbent]:
    """Coordinate descent from each of `rows (n, P)`, until no change of one parameter is better.

    Of equally good levels one is drawn: on the steps of trees this leads on to where another
    parameter makes a difference.
    """
    values = seen.values(rows)
    while len(rows):
        before = values
        for p in rng.permutation(_movable(seen.sizes)):
            levels = rng.permutation(seen.sizes[p])
            found = seen.values(changed(rows, int(p), levels)).reshape(len(rows), len(levels))
            chosen = np.argmin(found, axis=1)
            rows = rows.copy()
            rows[:, p] = levels[chosen]
            values = found[np.arange(len(rows)), chosen]
            yield seen.best
        moved = values < before
        rows, values = lowest(rows[moved], values[moved], len(rows))


def widened(seen: Seen, k: int) -> Iterator[Incumbent]:
    """The neighbours of the `k` best rows, and of those that are found among them, best first."""
    expanded: set[bytes] = set()
    limit = seen.best.n_assessed + MAX_WIDENED
    while seen.best.n_assessed < limit:
        fresh = [row for row in seen.best.rows[:k] if row.tobytes() not in expanded]
        fresh = fresh[:N_EXPANDED_AT_ONCE]
        if not fresh:
            return
        expanded |= {row.tobytes() for row in fresh}
        for p in _movable(seen.sizes):
            seen.values(changed(np.stack(fresh), int(p), np.arange(seen.sizes[p])))
            yield seen.best


def changed(rows: Places, p: int, levels: Places) -> Places:
    """`rows (n, P)` with each of `levels (l,)` as parameter p, `(n * l, P)`, row by row."""
    found = np.repeat(rows, len(levels), axis=0)
    found[:, p] = np.tile(levels, len(rows))
    return found


def _movable(sizes: tuple[int, ...]) -> NDArray[np.int64]:
    return np.flatnonzero(np.array(sizes) > 1)
