"""A Gaussian process: the surest of the simple models while runs are few.

Notation, as in Rasmussen & Williams (2006), chapters 2 and 5:

X:      `(n, d)` inputs, each divided by its column's length scale
r:      `(n, m)` distance of two inputs
K:      `(n, n)` covariance, a * matern(r) + noise * I
alpha:  K^-1 y
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from mlflow_meta.models.regressor import Matrix, Prediction, Vector

MAX_TUNED = 300  # rows on which the hyperparameters are found
MAX_ROWS = 1500  # rows that are learned from: the time grows with their cube
_JITTER = 1e-8

# MAP, with log-normal priors: `mean` and `std` of the logarithm. The length scales grow with the
# root of the dimension, so that the prior's complexity does not (Hvarfner et al., 2024, section 4);
# theirs are some 8 times longer, and end in a flat function where a few dozen trials are all.
_LENGTH = (np.log(0.5), 1.0)
_AMPLITUDE = (0.0, 0.5)
_NOISE = (np.log(0.1), 1.0)


class GaussianProcess:
    """Exact regression with a Matern-5/2 kernel and a length scale for each column."""

    def fit(self, X: Matrix, y: Vector, *, seed: int) -> None:
        """See `Regressor.fit`. Of more than `MAX_ROWS` rows, a random choice is learned from."""
        rng = np.random.default_rng(seed)
        some = rng.permutation(len(y))[:MAX_TUNED]
        with threadpool_limits(1):
            self._scales, self._amplitude, self._noise = _map_estimate(X[some], y[some])
            rows = np.sort(rng.permutation(len(y))[:MAX_ROWS])
            self._inputs = X[rows] / self._scales
            K = self._amplitude * _matern(_square_distances(self._inputs, self._inputs))
            K[np.diag_indices_from(K)] += self._noise + _JITTER
            self._factor = np.linalg.cholesky(K)
        self._alpha = cho_solve((self._factor, True), y[rows])

    def predict(self, X: Matrix) -> Prediction:
        """See `Regressor.predict`."""
        k = self._amplitude * _matern(_square_distances(X / self._scales, self._inputs))
        explained = solve_triangular(self._factor, k.T, lower=True)
        variance = self._amplitude + self._noise - np.einsum("ij,ij->j", explained, explained)
        return Prediction(k @ self._alpha, np.sqrt(np.maximum(variance, self._noise)))

    def save(self) -> dict[str, bytes]:
        """See `Regressor.save`."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            scales=self._scales,
            amplitude=self._amplitude,
            noise=self._noise,
            inputs=self._inputs,
            factor=self._factor,
            alpha=self._alpha,
        )
        return {"gaussian_process.npz": buffer.getvalue()}

    def load(self, files: Mapping[str, bytes]) -> None:
        """See `Regressor.load`."""
        with np.load(io.BytesIO(files["gaussian_process.npz"]), allow_pickle=False) as state:
            self._scales, self._inputs = state["scales"], state["inputs"]
            self._amplitude, self._noise = float(state["amplitude"]), float(state["noise"])
            self._factor, self._alpha = state["factor"], state["alpha"]


def _square_distances(A: Matrix, B: Matrix) -> Matrix:
    squares = (A**2).sum(axis=1)[:, None] + (B**2).sum(axis=1) - 2.0 * A @ B.T
    return np.asarray(np.maximum(squares, 0.0))


def _matern(squares: Matrix) -> Matrix:
    """Matern-5/2 correlation at squared distances, R&W eq. (4.17)."""
    s = np.sqrt(5.0 * squares)
    return np.asarray((1.0 + s + s**2 / 3.0) * np.exp(-s))


def _map_estimate(X: Matrix, y: Vector) -> tuple[Vector, float, float]:
    """Length scales `(d,)`, amplitude and noise of greatest posterior density."""
    d = X.shape[1]
    means = np.concatenate([np.full(d, _LENGTH[0] + np.log(d) / 2), [_AMPLITUDE[0], _NOISE[0]]])
    stds = np.concatenate([np.full(d, _LENGTH[1]), [_AMPLITUDE[1], _NOISE[1]]])

    def loss(logs: Vector) -> tuple[float, Vector]:
        likelihood, slope = _negative_log_likelihood(logs, X, y)
        z = (logs - means) / stds
        return likelihood + float(0.5 * z @ z), slope + z / stds

    bounds = [(m - 4 * s, m + 4 * s) for m, s in zip(means, stds, strict=True)]
    found = minimize(
        loss, means, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60}
    )
    best = np.exp(found.x)
    return best[:d], float(best[d]), float(best[d + 1])


def _negative_log_likelihood(logs: Vector, X: Matrix, y: Vector) -> tuple[float, Vector]:
    """-log p(y | X) without its constant, R&W eq. (5.8), and its gradient, eq. (5.9)."""
    d, n = X.shape[1], len(y)
    scales, amplitude, noise = np.exp(logs[:d]), np.exp(logs[d]), np.exp(logs[d + 1])
    Z = X / scales
    squares = _square_distances(Z, Z)
    correlation = _matern(squares)
    K = amplitude * correlation + (noise + _JITTER) * np.eye(n)
    try:
        factor = cho_factor(K, lower=True)
    except LinAlgError:  # a step too far; L-BFGS goes back from it
        return 1e10, np.zeros_like(logs)
    alpha = cho_solve(factor, y)
    value = 0.5 * y @ alpha + np.log(np.diag(factor[0])).sum()
    # d value / d theta = -1/2 tr((alpha alpha' - K^-1) dK / d theta)
    inner = -0.5 * (np.outer(alpha, alpha) - cho_solve(factor, np.eye(n)))
    s = np.sqrt(5.0 * squares)
    W = inner * amplitude * (5.0 / 3.0) * (1.0 + s) * np.exp(-s)
    by_scale = 2.0 * (W.sum(axis=1) @ Z**2 - np.einsum("ij,ij->j", Z, W @ Z))
    by_amplitude = amplitude * (inner * correlation).sum()
    by_noise = noise * np.trace(inner)
    return float(value), np.concatenate([by_scale, [by_amplitude, by_noise]])
