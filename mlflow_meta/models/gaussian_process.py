"""A Gaussian process: the surest of the simple models while runs are few. See `models.kernel`."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from threadpoolctl import threadpool_limits

from mlflow_meta.models.kernel import (
    JITTER,
    Hyperparameters,
    covariance,
    map_estimate,
    polynomials,
)
from mlflow_meta.models.regressor import Groups, Matrix, Prediction, Vector

MAX_TUNED = 300  # rows on which the hyperparameters are found
MAX_ROWS = 1500  # rows that are learned from: the time grows with their cube


class GaussianProcess:
    """Exact regression: a trend, and around it a Matern-5/2 kernel with scales of its own."""

    def fit(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> None:
        """See `Regressor.fit`. Of more than `MAX_ROWS` rows, a random choice is learned from."""
        rng = np.random.default_rng(seed)
        some = rng.permutation(len(y))[:MAX_TUNED]
        with threadpool_limits(1):
            kernel = map_estimate(X[some], y[some], groups)
            rows = np.sort(rng.permutation(len(y))[:MAX_ROWS])
            K = covariance(X[rows], X[rows], kernel, groups)
            K[np.diag_indices_from(K)] += kernel.noise + JITTER
            self._factor = np.linalg.cholesky(K)
        self._inputs, self._kernel, self._groups = X[rows], kernel, groups
        self._alpha = cho_solve((self._factor, True), y[rows])

    def predict(self, X: Matrix) -> Prediction:
        """See `Regressor.predict`."""
        kernel = self._kernel
        k = covariance(X, self._inputs, kernel, self._groups)
        explained = solve_triangular(self._factor, k.T, lower=True)
        prior = kernel.amplitude + kernel.trend * (polynomials(X, self._groups) ** 2).sum(axis=1)
        variance = prior + kernel.noise - np.einsum("ij,ij->j", explained, explained)
        return Prediction(k @ self._alpha, np.sqrt(np.maximum(variance, kernel.noise)))

    def save(self) -> dict[str, bytes]:
        """See `Regressor.save`."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            kernel=self._kernel.to_array(),
            groups=self._groups,
            inputs=self._inputs,
            factor=self._factor,
            alpha=self._alpha,
        )
        return {"gaussian_process.npz": buffer.getvalue()}

    def load(self, files: Mapping[str, bytes]) -> None:
        """See `Regressor.load`."""
        with np.load(io.BytesIO(files["gaussian_process.npz"]), allow_pickle=False) as state:
            self._kernel = Hyperparameters.from_array(state["kernel"])
            self._groups, self._inputs = state["groups"], state["inputs"]
            self._factor, self._alpha = state["factor"], state["alpha"]
