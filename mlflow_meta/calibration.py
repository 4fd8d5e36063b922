"""Calibration: means that are not too bold, and intervals that cover what they say.

How far off a model is shows on trials that it has not seen. Two things are set right:

mean:      A model that has learned noise predicts extremes. The regression of what was observed on
           what was predicted tells how much of its boldness was justified (Cox, 1958):
           mean' = center + slope * (mean - center), slope in [0, 1].
interval:  The score |y - mean'| / std is compared with what a share of such scores stays below:
           split conformal prediction with normalised residuals (Papadopoulos et al., 2002).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Vector = NDArray[np.float64]

LEVELS = (0.68, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a model's own means and standard deviations need to be believed.

    Attributes:
        center: The mean of what was observed, towards which predictions shrink.
        slope: How much of their distance from it is kept, in [0, 1].
        factors: Level -> half-width of the interval, in standard deviations of the model; > 0.
    """

    center: float
    slope: float
    factors: Mapping[float, float]

    @classmethod
    def learn(cls, observed: Vector, mean: Vector, std: Vector) -> Calibration:
        """From predictions `(n,)` for trials that the model has not seen."""
        center = float(observed.mean())
        away = mean - center
        power = float(away @ away)
        slope = float(np.clip(away @ (observed - center) / power, 0.0, 1.0)) if power else 0.0
        errors = np.abs(observed - center - slope * away)
        scores = np.sort(errors / np.maximum(std, 1e-12))
        n = len(scores)
        # The (n + 1)-th smallest of n scores does not exist: then the largest is the best guess.
        ranks = {level: min(int(np.ceil((n + 1) * level)), n) for level in LEVELS}
        factors = {level: max(float(scores[rank - 1]), 1e-9) for level, rank in ranks.items()}
        return cls(center, slope, factors)

    def mean(self, mean: Vector) -> Vector:
        """The means `(n,)` without the boldness that was not justified."""
        return self.center + self.slope * (mean - self.center)

    def std(self, std: Vector) -> Vector:
        """The standard deviations `(n,)` that would have been right."""
        return std * self.factors[0.68]

    def interval(self, mean: Vector, std: Vector, level: float) -> tuple[Vector, Vector]:
        """Ends `(n,)` of the interval at a level of `LEVELS`, of a model's own mean and std."""
        if level not in self.factors:
            raise ValueError(f"`level` must be one of {sorted(self.factors)}, but got {level}.")
        middle, half = self.mean(mean), self.factors[level] * std
        return middle - half, middle + half


def held_out_coverage(observed: Vector, mean: Vector, std: Vector, level: float = 0.8) -> float:
    """Share of `observed (n,)`, n >= 2, in the intervals that other trials have calibrated.

    Each half, of every second trial, is held against what the other half has taught; with all of
    them the share would be `level` by construction.
    """
    inside = np.zeros(len(observed), dtype=bool)
    for first in (0, 1):
        learned = Calibration.learn(observed[first::2], mean[first::2], std[first::2])
        other = slice(1 - first, None, 2)
        low, high = learned.interval(mean[other], std[other], level)
        inside[other] = (low <= observed[other]) & (observed[other] <= high)
    return float(inside.mean())


BELIEVED = Calibration(0.0, 1.0, {level: float(ndtri((1 + level) / 2)) for level in LEVELS})
"""Takes means as they are, and standard deviations for those of a normal distribution."""
