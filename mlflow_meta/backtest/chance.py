"""What choosing at random comes to, in closed form.

With n values in ascending order and j of them drawn without replacement, none of the i lowest is
drawn with probability C(n - i, j) / C(n, j) = prod_{t < j} (n - i - t) / (n - t).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def minimum_chances(n: int) -> Matrix:
    """`(n, n)`: the probability that of j = 1 ... n draws (rows) the i-th lowest is the minimum."""
    left = np.arange(n)[:, None]  # t: how many were drawn before
    missed = np.maximum(n - np.arange(n + 1) - left, 0) / (n - left)
    survival = np.cumprod(missed, axis=0)
    return np.asarray(survival[:, :-1] - survival[:, 1:])


def expected_course(values: Vector) -> Vector:
    """`(n,)` the expected minimum of 1 ... n values drawn without replacement."""
    return np.asarray(minimum_chances(len(values)) @ np.sort(values))


def course_quantile(values: Vector, level: float) -> Vector:
    """`(n,)` the `level` quantile of the minimum of 1 ... n values drawn without replacement."""
    reached = np.cumsum(minimum_chances(len(values)), axis=1) >= level - 1e-12
    return np.asarray(np.sort(values)[np.argmax(reached, axis=1)])


def expected_wait(n: int, n_good: int) -> float:
    """How many of n values are drawn until one of the good ones comes, on average."""
    return (n + 1) / (n_good + 1)
