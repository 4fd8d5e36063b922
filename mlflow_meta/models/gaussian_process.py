"""A Gaussian process: the surest of the simple models while runs are few. See `models.kernel`."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from threadpoolctl import threadpool_limits

from mlflow_meta.models.kernel import JITTER, map_estimate, matern, square_distances
from mlflow_meta.models.regressor import Groups, Matrix, Prediction, Vector

MAX_TUNED = 300  # rows on which the hyperparameters are found
MAX_ROWS = 1500  # rows that are learned from: the time grows with their cube


class GaussianProcess:
    """Exact regression with a Matern-5/2 kernel and a length scale for each group of columns."""

    def fit(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> None:
        """See `Regressor.fit`. Of more than `MAX_ROWS` rows, a random choice is learned from."""
        rng = np.random.default_rng(seed)
        some = rng.permutation(len(y))[:MAX_TUNED]
        with threadpool_limits(1):
            found = map_estimate(X[some], y[some], groups)
            self._scales, self._amplitude, self._noise = found.scales, found.amplitude, found.noise
            rows = np.sort(rng.permutation(len(y))[:MAX_ROWS])
            self._inputs = X[rows] / self._scales
            K = self._amplitude * matern(square_distances(self._inputs, self._inputs))
            K[np.diag_indices_from(K)] += self._noise + JITTER
            self._factor = np.linalg.cholesky(K)
        self._alpha = cho_solve((self._factor, True), y[rows])

    def predict(self, X: Matrix) -> Prediction:
        """See `Regressor.predict`."""
        k = self._amplitude * matern(square_distances(X / self._scales, self._inputs))
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
