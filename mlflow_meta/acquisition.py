"""Acquisition functions: how much a configuration is worth trying.

Pure functions of a prediction. All of them are to be *maximised*, while the objective they speak
about is to be *minimised*. Notation, as in Jones et al. (1998):

mean, std:  prediction of the objective, `(n,)` each, in the objective's own units; std >= 0
best:       the incumbent's value (f_min)
z:          (best - mean) / std, how many standard deviations of improvement are expected
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Vector = NDArray[np.float64]


def expected_improvement(mean: Vector, std: Vector, best: float) -> Vector:
    """Expected improvement over the incumbent, E[max(best - Y, 0)] for Y ~ N(mean, std^2).

    Args:
        mean: Predicted objective, `(n,)`.
        std: Predicted standard deviation, `(n,)`; 0 means that the model is certain.
        best: The incumbent's value. Lower is better.

    Returns:
        `(n,)`, never negative, in the objective's units.

    Raises:
        ValueError: If the shapes differ, or a std is negative or not finite.

    References:
        Jones, Schonlau, Welch. *Efficient Global Optimization of Expensive Black-Box Functions*.
        J. Global Optimization 13, 1998, eq. (15).
    """
    if mean.shape != std.shape:
        raise ValueError(f"mean and std must have one shape, but got {mean.shape} and {std.shape}.")
    if not np.all(np.isfinite(std) & (std >= 0)):
        raise ValueError(f"`std >= 0` must hold, but min(std)={np.min(std)}.")
    gain = best - mean
    z = np.divide(gain, std, out=np.zeros_like(gain), where=std > 0)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.where(std > 0, np.maximum(gain * ndtr(z) + std * density, 0.0), np.maximum(gain, 0.0))
