"""Whether predictions of held-out trials tell good from bad, or are as good as chance.

The values are permuted within each task; the statistic is the sum over tasks of the covariance of
prediction and score, on which alone the gain in squared error depends under permutation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Vector = NDArray[np.float64]

N_PERMUTATIONS = 999
ACCEPTED = 0.05  # p-value up to which there is a signal
MIN_Z = 0.5  # below which it is not said how many more trials it takes: it might be any number
POWERFUL_Z = 2.49  # is expected where 4 of 5 samples reach ACCEPTED: 1.645 + 0.842
_SEED = 0


@dataclass(frozen=True, slots=True)
class Signal:
    """How clearly predictions of held-out trials tell good from bad.

    Attributes:
        p_value: One-sided, in (0, 1], of no relation between prediction and score in any task.
        z: The statistic, in its standard deviations under permutation; about 0 by chance.
        n: Trials that were predicted.
    """

    p_value: float
    z: float
    n: int

    @property
    def is_accepted(self) -> bool:
        """Whether chance alone would hardly do as well."""
        return self.p_value <= ACCEPTED

    @property
    def n_more(self) -> int | None:
        """About how many more trials show such a relation in 4 of 5 cases, if it is real.

        z grows as the square root of the trials; that the model gets better too is not counted.
        0 where it is shown already; None where nothing speaks for one.
        """
        if self.is_accepted:
            return 0
        if self.z < MIN_Z:
            return None
        return max(int(np.ceil(self.n * ((POWERFUL_Z / self.z) ** 2 - 1))), 1)


def signal(tasks: NDArray[np.object_], scores: Vector, predicted: Vector) -> Signal:
    """Whether `predicted` is related to `scores` in some task.

    Args:
        tasks: Task of each trial, `(n,)`.
        scores: Observed, `(n,)`.
        predicted: For trials that were not learned from, `(n,)`; nan is left out.
    """
    rng = np.random.default_rng(_SEED)
    found, n, permuted = 0.0, 0, np.zeros(N_PERMUTATIONS)
    for task in pd.unique(tasks):
        rows = (tasks == task) & np.isfinite(predicted)
        if rows.sum() < 2:
            continue
        y, away = scores[rows], predicted[rows] - predicted[rows].mean()
        found += float(away @ y)
        permuted += [float(rng.permutation(away) @ y) for _ in range(N_PERMUTATIONS)]
        n += int(rows.sum())
    p_value = float((1 + np.sum(permuted >= found - 1e-12)) / (1 + N_PERMUTATIONS))
    spread = float(permuted.std())
    return Signal(p_value, (found - float(permuted.mean())) / spread if spread > 0 else 0.0, n)
