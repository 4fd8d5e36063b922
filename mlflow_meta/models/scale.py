"""From a task's own units to standard scores and back.

Raw values of different tasks must never be pooled: an rmse of 5 may be excellent on one task and
a disaster on another. What can be compared is the rank within the task.

value:  the objective in its own units, minimised
score:  Gaussian rank within the task, Phi^-1((rank - 1/2) / n); lower is better
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
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

    @property
    def best(self) -> float:
        """The lowest value seen."""
        return float(self.values[0])

    def to_score(self, values: Vector) -> Vector:
        """Scores `(n,)` of the very values that the scale was learned from, in their order."""
        return np.asarray(ndtri((rankdata(values) - 0.5) / len(values)))

    def to_value(self, scores: Vector) -> Vector:
        """Values `(m,)` at the scores `(m,)`: rising, linear between neighbours.

        Beyond the best and the worst it goes on with the slope of the outer quarter, but never
        over a bound that the metric seems to have: 0 where all values lie on one side of it, and
        1 (or -1) where all lie within.
        """
        n = len(self.values)
        if n == 1:
            return np.full(len(scores), self.values[0])
        grid = np.asarray(ndtri((np.arange(1, n + 1) - 0.5) / n))
        outer = max(1, n // 4)
        low_slope = (self.values[outer] - self.values[0]) / (grid[outer] - grid[0])
        high_slope = (self.values[-1] - self.values[-1 - outer]) / (grid[-1] - grid[-1 - outer])
        inside = np.interp(scores, grid, self.values)
        below = np.minimum(scores - grid[0], 0.0) * low_slope
        above = np.maximum(scores - grid[-1], 0.0) * high_slope
        low, high = self._bounds()
        return np.asarray(np.clip(inside + below + above, low, high))

    def _bounds(self) -> tuple[float, float]:
        low, high = self.values[0], self.values[-1]
        if low >= 0:
            return 0.0, (1.0 if high <= 1 else np.inf)
        if high <= 0:
            return (-1.0 if low >= -1 else -np.inf), 0.0
        return -np.inf, np.inf
