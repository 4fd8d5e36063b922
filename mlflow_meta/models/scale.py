"""From a task's own units to standard scores and back.

Raw values of different tasks must never be pooled: an rmse of 5 may be excellent on one task and
a disaster on another. What can be compared is the place within the task: half of it the rank,
which no outlier moves, and half the distance, which says how much better the best are.

value:  the objective in its own units, minimised
rank:   Gaussian rank within the task, Phi^-1((rank - 1/2) / n)
z:      the value cut at `_LOW` and `_HIGH` robust standard deviations from the median, standardised
score:  (rank + z) / 2; lower is better
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from mlflow_meta.metrics import ranks

Vector = NDArray[np.float64]

_LOW, _HIGH = -4.0, 2.0  # a bad value may be any number, while a good one is what is looked for
_QUARTILES = 1.349  # how many standard deviations the quartiles of a normal are apart


@dataclass(frozen=True)
class TaskScale:
    """What the values of one task have been.

    Attributes:
        values: `(n,)`, in ascending order; n >= 1.
    """

    values: Vector

    @classmethod
    def learn(cls, values: Vector) -> TaskScale:
        """From the values `(n,)` of the task's trials, in any order."""
        return cls(np.sort(np.asarray(values, dtype=float)))

    @cached_property
    def grid(self) -> Vector:
        """The scores `(n,)` of `values`, rising."""
        return self.to_score(self.values)

    @property
    def best(self) -> float:
        """The lowest value seen."""
        return float(self.values[0])

    def to_score(self, values: Vector) -> Vector:
        """Scores `(n,)` of the very values that the scale was learned from, in their order."""
        gaussian = np.asarray(ndtri((ranks(values) - 0.5) / len(values)))
        unit = values / (np.abs(values).max() or 1.0)  # so that no difference overflows
        low, middle, high = np.quantile(unit, (0.25, 0.5, 0.75))
        if high == low:  # most are equal: nothing tells how far the others may be
            return gaussian
        cut = np.clip((unit - middle) * _QUARTILES / (high - low), _LOW, _HIGH)
        return np.asarray((gaussian + (cut - cut.mean()) / cut.std()) / 2)

    def score_at(self, values: Vector) -> Vector:
        """Scores `(m,)` of any values `(m,)`: linear between those seen, and no further."""
        return np.asarray(np.interp(values, self.values, self.to_score(self.values)))

    def to_value(self, scores: Vector) -> Vector:
        """Values `(m,)` at the scores `(m,)`: rising, linear between neighbours.

        Beyond the best and the worst it goes on with the slope of the outer quarter, but never
        over a bound that the metric seems to have: 0 where all values lie on one side of it, and
        1 (or -1) where all lie within.
        """
        n = len(self.values)
        if n == 1:
            return np.full(len(scores), self.values[0])
        grid = self.grid
        outer = max(1, n // 4)
        low_slope = _slope(grid[: outer + 1], self.values[: outer + 1])
        high_slope = _slope(grid[-1 - outer :], self.values[-1 - outer :])
        inside = np.interp(scores, grid, self.values)
        below = np.minimum(scores - grid[0], 0.0) * low_slope
        above = np.maximum(scores - grid[-1], 0.0) * high_slope
        low, high = self.bounds
        return np.asarray(np.clip(inside + below + above, low, high))

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which the metric seems to lie."""
        low, high = self.values[0], self.values[-1]
        if low >= 0:
            return 0.0, (1.0 if high <= 1 else np.inf)
        if high <= 0:
            return (-1.0 if low >= -1 else -np.inf), 0.0
        return -np.inf, np.inf


def _slope(scores: Vector, values: Vector) -> float:
    """From the first to the last; 0 where all are equal."""
    return float((values[-1] - values[0]) / (scores[-1] - scores[0])) if np.ptp(values) else 0.0
