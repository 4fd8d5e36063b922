"""A linear model with the curvature of each number: the baseline that every other has to beat."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from mlflow_meta.models.forms import Additive
from mlflow_meta.models.regressor import Groups, Matrix, Prediction, Vector


class QuadraticRidge:
    """Bayesian ridge on the columns, and on the squares of those that are not 0 or 1.

    Without squares a linear model's best configuration lies always in a corner of the space; with
    them it has a best learning rate.

        y ~ N(phi w + b, noise),  phi = [(x - c), (x - c)^2]

    Shrinkage and noise are found by evidence maximisation (MacKay, 1992), as in scikit-learn's
    `BayesianRidge`, whose posterior covariance of w gives the uncertainty far from the data.
    """

    def fit(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> None:
        """See `Regressor.fit`. Needs no chance."""
        from sklearn.linear_model import BayesianRidge  # slow, and of no use to a fitted model

        del groups, seed
        self._center = X.mean(axis=0)
        is_number = [len(np.unique(column)) > 2 for column in X.T]
        self._squared = np.flatnonzero(is_number)
        model = BayesianRidge().fit(self._expand(X), y)
        self._weights = np.asarray(model.coef_, dtype=float)
        self._intercept = float(model.intercept_)
        self._covariance = np.asarray(model.sigma_, dtype=float)
        self._offset = self._expand(X).mean(axis=0)
        self._noise = 1.0 / float(model.alpha_)

    def predict(self, X: Matrix) -> Prediction:
        """See `Regressor.predict`."""
        phi = self._expand(X)
        mean = (phi * self._weights).sum(axis=1) + self._intercept
        away = phi - self._offset
        variance = np.einsum("ij,jk,ik->i", away, self._covariance, away) + self._noise
        return Prediction(mean, np.sqrt(np.maximum(variance, 0.0)))

    def form(self) -> Additive:
        """See `Formed.form`."""
        return self._form(self._weights)

    def draw(self, rng: np.random.Generator) -> Additive:
        """See `Formed.draw`: of the posterior of the weights."""
        values, vectors = np.linalg.eigh(self._covariance)
        spread = np.sqrt(np.maximum(values, 0.0)) * rng.normal(size=len(values))
        return self._form(self._weights + vectors @ spread)

    def _form(self, weights: Vector) -> Additive:
        """Multiplied out: w (x - c) + q (x - c)^2 = (w - 2 q c) x + q x^2 - w c + q c^2."""
        c, d = self._center, len(self._center)
        w, q = weights[:d], np.zeros(d)
        q[self._squared] = weights[d:]
        # The uncertainty is about the middle of the data, where the mean is what it is.
        shift = self._offset @ (self._weights - weights)
        return Additive(
            constant=float(self._intercept - w @ c + q @ c**2 + shift),
            linear=w - 2 * q * c,
            square=q,
        )

    def save(self) -> dict[str, bytes]:
        """See `Regressor.save`."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            center=self._center,
            squared=self._squared,
            weights=self._weights,
            intercept=self._intercept,
            covariance=self._covariance,
            offset=self._offset,
            noise=self._noise,
        )
        return {"linear.npz": buffer.getvalue()}

    def load(self, files: Mapping[str, bytes]) -> None:
        """See `Regressor.load`."""
        with np.load(io.BytesIO(files["linear.npz"]), allow_pickle=False) as state:
            self._center, self._squared = state["center"], state["squared"]
            self._weights, self._intercept = state["weights"], float(state["intercept"])
            self._covariance, self._offset = state["covariance"], state["offset"]
            self._noise = float(state["noise"])

    def _expand(self, X: Matrix) -> Matrix:
        away = X - self._center
        return np.column_stack([away, away[:, self._squared] ** 2])
