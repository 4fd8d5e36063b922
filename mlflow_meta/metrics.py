"""How good predictions are: rank correlation, error, coverage.

Observed and predicted values are `(n,)`; lower values are better configurations.
"""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def ranks(values: Vector) -> Vector:
    """Ranks `(n,)` from 1, equal values sharing their mean rank.

    What `scipy.stats.rankdata` gives; to import it takes longer than all else that a served
    model needs.
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places], dtype=float)


def spearman(observed: Vector, predicted: Vector) -> float:
    """Spearman's rank correlation; 1 is a perfect order, 0 none. nan if either is constant."""
    a, b = ranks(observed), ranks(predicted)
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else float("nan")


def rmse(observed: Vector, predicted: Vector) -> float:
    """Root mean squared error, in the units of the values; lower is better."""
    return float(np.sqrt(np.mean((observed - predicted) ** 2)))


def coverage(observed: Vector, low: Vector, high: Vector) -> float:
    """Share of the observed values that lie in their intervals, ends included."""
    return float(np.mean((low <= observed) & (observed <= high)))
