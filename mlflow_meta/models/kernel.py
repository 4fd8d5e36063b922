"""A Matern-5/2 kernel with a trend, and the hyperparameters under which data are most plausible.

The trend is a sum of low polynomials, one for each parameter: what a few dozen runs in a dozen
parameters can tell, where no two of them are near each other. The Matern part has the rest.
Notation, as in Rasmussen & Williams (2006), chapters 2 (2.7 for the trend) and 5:

X:       `(n, d)` inputs
groups:  `(d,)` which columns share a length scale: those of one number encode one parameter, such
         as a category's
Z:       `(n, d)` inputs, each divided by its column's length scale
P:       `(n, k)` the trend's polynomials at X
K:       `(n, n)` covariance, amplitude * matern(|z - z'|^2) + trend * P P' + noise * I
alpha:   K^-1 y
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from mlflow_meta.models.regressor import Groups, Matrix, Vector

JITTER = 1e-8

# MAP, with log-normal priors: `mean` and `std` of the logarithm. The length scales grow with the
# root of the dimension, so that the prior's complexity does not (Hvarfner et al., 2024, section 4);
# theirs are some 8 times longer, and end in a flat function where a few dozen trials are all.
_LENGTH = (np.log(0.5), 1.0)
_AMPLITUDE = (0.0, 0.5)
_NOISE = (np.log(0.1), 1.0)
_TREND = (0.0, 2.0)  # wide: there are tasks with hardly any, and some that are nothing else
_MAX_STEPS = 40
_FAR = 1.5  # from the middle, in half widths of the unit cube, where the polynomials end


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What the kernel leaves open.

    Attributes:
        scales: Length scale of each column, `(d,)`; > 0.
        amplitude: Variance of the function around the trend.
        noise: Variance of an observation around the function.
        trend: Variance of the trend, on average over the unit cube.
    """

    scales: Vector
    amplitude: float
    noise: float
    trend: float

    def to_array(self) -> Vector:
        """As one array `(3 + d,)`, to be saved."""
        return np.array([self.amplitude, self.noise, self.trend, *self.scales])

    @classmethod
    def from_array(cls, array: Vector) -> Hyperparameters:
        """Inverse of `to_array`."""
        amplitude, noise, trend = array[:3].tolist()
        return cls(array[3:], amplitude, noise, trend)


def polynomials(X: Matrix, groups: Groups) -> Matrix:
    """The trend's polynomials `(n, k)` at `X (n, d)`; |P|^2 is 1 on average over the unit cube.

    Legendre's of first and second degree in each column; of a category's columns the first only.
    """
    sizes, n_groups = _sizes(tuple(groups.tolist()))
    u = np.clip(2.0 * X - 1.0, -_FAR, _FAR)
    first = np.sqrt(3.0) * u / np.sqrt(sizes)
    second = np.sqrt(5.0) * (1.5 * u[:, sizes == 1] ** 2 - 0.5)
    return np.asarray(np.hstack([first, second]) / np.sqrt(2.0 * n_groups))


@lru_cache(maxsize=64)
def _sizes(groups: tuple[int, ...]) -> tuple[NDArray[np.int64], int]:
    """How many columns each column's group has, `(d,)`; and how many groups there are."""
    _, group_of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return counts[group_of], len(counts)


def covariance(A: Matrix, B: Matrix, hyperparameters: Hyperparameters, groups: Groups) -> Matrix:
    """Covariance `(n, m)` of the function at `A (n, d)` and `B (m, d)`."""
    h = hyperparameters
    trend = h.trend * polynomials(A, groups) @ polynomials(B, groups).T
    return np.asarray(h.amplitude * correlation(A, B, h.scales) + trend)


def square_distances(A: Matrix, B: Matrix) -> Matrix:
    """Squared distances `(n, m)` of the rows of `A (n, d)` and `B (m, d)`."""
    squares = (A**2).sum(axis=1)[:, None] + (B**2).sum(axis=1) - 2.0 * A @ B.T
    return np.asarray(np.maximum(squares, 0.0))


def matern(squares: Matrix) -> Matrix:
    """Matern-5/2 correlation at squared distances, R&W eq. (4.17)."""
    s = np.sqrt(5.0 * squares)
    return np.asarray((1.0 + s + s**2 / 3.0) * np.exp(-s))


def correlation(A: Matrix, B: Matrix, scales: Vector) -> Matrix:
    """Matern-5/2 correlation `(n, m)` of the inputs `A (n, d)` and `B (m, d)`."""
    return matern(square_distances(A / scales, B / scales))


def map_estimate(X: Matrix, y: Vector, groups: Groups) -> Hyperparameters:
    """The hyperparameters of greatest posterior density."""
    from scipy.optimize import minimize  # slow to import, and of no use to a fitted model

    _, group_of = np.unique(groups, return_inverse=True)
    d = int(group_of.max()) + 1
    others = (_AMPLITUDE, _NOISE, _TREND)
    means = np.array([_LENGTH[0] + np.log(d) / 2] * d + [mean for mean, _ in others])
    stds = np.array([_LENGTH[1]] * d + [std for _, std in others])
    P = polynomials(X, groups)
    products = P @ P.T

    def loss(logs: Vector) -> tuple[float, Vector]:
        likelihood, slope = negative_log_likelihood(logs, X, y, group_of, products)
        z = (logs - means) / stds
        return likelihood + float(0.5 * z @ z), slope + z / stds

    bounds = [(m - 4 * s, m + 4 * s) for m, s in zip(means, stds, strict=True)]
    found = minimize(
        loss, means, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _MAX_STEPS}
    )
    best = np.exp(found.x)
    amplitude, noise, trend = best[d:].tolist()
    return Hyperparameters(best[:d][group_of], amplitude, noise, trend)


def negative_log_likelihood(
    logs: Vector, X: Matrix, y: Vector, group_of: NDArray[np.int64], products: Matrix
) -> tuple[float, Vector]:
    """-log p(y | X) without its constant, R&W eq. (5.8), and its gradient, eq. (5.9).

    Args:
        logs: Logarithms of the groups' length scales, the amplitude, the noise and the trend,
            `(g + 3,)`.
        X: `(n, d)`.
        y: `(n,)`.
        group_of: Group of each column, `(d,)`, from 0 to `g - 1`.
        products: P P', `(n, n)`.
    """
    d, n = len(logs) - 3, len(y)
    scales, (amplitude, noise, trend) = np.exp(logs[:d]), np.exp(logs[d:])
    Z = X / scales[group_of]
    squares = square_distances(Z, Z)
    s = np.sqrt(5.0 * squares)
    fall = np.exp(-s)
    shape = (1.0 + s + s**2 / 3.0) * fall
    K = amplitude * shape + trend * products
    K[np.diag_indices(n)] += noise + JITTER
    try:
        factor = cho_factor(K, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:  # a step too far; L-BFGS goes back from it
        return 1e10, np.zeros_like(logs)
    alpha = cho_solve(factor, y, check_finite=False)
    value = 0.5 * y @ alpha + np.log(np.diag(factor[0])).sum()
    # d value / d theta = -1/2 tr((alpha alpha' - K^-1) dK / d theta)
    inner = -0.5 * (np.outer(alpha, alpha) - cho_solve(factor, np.eye(n), check_finite=False))
    W = inner * amplitude * (5.0 / 3.0) * (1.0 + s) * fall
    by_column = 2.0 * (W.sum(axis=1) @ Z**2 - np.einsum("ij,ij->j", Z, W @ Z))
    by_scale = np.bincount(group_of, weights=by_column, minlength=d)
    by_amplitude = amplitude * (inner * shape).sum()
    by_noise = noise * np.trace(inner)
    by_trend = trend * (inner * products).sum()
    return float(value), np.concatenate([by_scale, [by_amplitude, by_noise, by_trend]])
