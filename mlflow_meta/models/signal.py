"""Whether predictions of held-out trials tell good from bad, or are as good as chance.

The values are permuted within each task; the statistic is the sum over tasks of the covariance of
prediction and score, on which alone the gain in squared error depends under permutation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Vector = NDArray[np.float64]

N_PERMUTATIONS = 999
ACCEPTED = 0.05  # p-value up to which there is a signal
_SEED = 0


def p_value(tasks: NDArray[np.object_], scores: Vector, predicted: Vector) -> float:
    """One-sided p-value, in (0, 1], of no relation between `predicted` and `scores` in any task.

    Args:
        tasks: Task of each trial, `(n,)`.
        scores: Observed, `(n,)`.
        predicted: For trials that were not learned from, `(n,)`; nan is left out.
    """
    rng = np.random.default_rng(_SEED)
    found, permuted = 0.0, np.zeros(N_PERMUTATIONS)
    for task in pd.unique(tasks):
        rows = (tasks == task) & np.isfinite(predicted)
        if rows.sum() < 2:
            continue
        y, away = scores[rows], predicted[rows] - predicted[rows].mean()
        found += float(away @ y)
        permuted += [float(rng.permutation(away) @ y) for _ in range(N_PERMUTATIONS)]
    return float((1 + np.sum(permuted >= found - 1e-12)) / (1 + N_PERMUTATIONS))
