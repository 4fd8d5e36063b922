"""A shallow neural network, as an ensemble: one alone does not know what it can't know."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

import numpy as np
from threadpoolctl import threadpool_limits

from mlflow_meta.models.forms import Relu
from mlflow_meta.models.regressor import Groups, Matrix, Prediction, Vector

N_MEMBERS = 5
HIDDEN_UNITS = 16
MAX_ITERATIONS = 150
WEIGHT_DECAY = 0.3


class ShallowNetwork:
    """An ensemble of one-hidden-layer ReLU networks, each on a bootstrap sample.

    mean = mean over the members; variance = their disagreement + their mean squared error on the
    rows that each has not seen.
    """

    def fit(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> None:
        """See `Regressor.fit`."""
        from sklearn.exceptions import ConvergenceWarning  # slow, and of no use to a fitted model
        from sklearn.neural_network import MLPRegressor

        del groups
        rng = np.random.default_rng(seed)
        self._center, self._spread = X.mean(axis=0), X.std(axis=0)
        self._spread[self._spread == 0] = 1.0
        Z = self._scale(X)
        layers: list[list[Matrix]] = []
        unseen_errors: list[float] = []
        for _ in range(N_MEMBERS):
            rows = rng.integers(len(y), size=len(y))
            member = MLPRegressor(
                hidden_layer_sizes=(HIDDEN_UNITS,),
                solver="lbfgs",
                alpha=WEIGHT_DECAY,
                max_iter=MAX_ITERATIONS,
                random_state=int(rng.integers(2**31)),
            )
            # One thread: on matrices this small, more of them only wait for each other (10 times).
            with threadpool_limits(1), warnings.catch_warnings():
                # Stopping early is wanted: with few trials the last iterations learn the noise.
                warnings.simplefilter("ignore", ConvergenceWarning)
                member.fit(Z[rows], y[rows])
            layers.append([*member.coefs_, *member.intercepts_])
            unseen = np.setdiff1d(np.arange(len(y)), rows)
            errors = member.predict(Z[unseen]) - y[unseen] if len(unseen) else np.array([1.0])
            unseen_errors.append(float(np.mean(errors**2)))
        self._w1, self._w2, self._b1, self._b2 = (
            np.stack(part) for part in zip(*layers, strict=True)
        )
        self._noise = float(np.mean(unseen_errors))

    def predict(self, X: Matrix) -> Prediction:
        """See `Regressor.predict`."""
        hidden = np.maximum(
            np.einsum("nd,mdh->mnh", self._scale(X), self._w1) + self._b1[:, None], 0
        )
        outputs = np.einsum("mnh,mho->mn", hidden, self._w2) + self._b2
        return Prediction(outputs.mean(axis=0), np.sqrt(outputs.var(axis=0) + self._noise))

    def form(self) -> Relu:
        """See `Formed.form`."""
        return self._form(np.full(N_MEMBERS, 1.0 / N_MEMBERS))

    def draw(self, rng: np.random.Generator) -> Relu:
        """See `Formed.draw`: the members weighted as by a Bayesian bootstrap (Rubin, 1981)."""
        return self._form(rng.dirichlet(np.ones(N_MEMBERS)))

    def _form(self, shares: Vector) -> Relu:
        """One network of all hidden units, for shares `(members,)` that sum to 1."""
        scaled = self._w1 / self._spread[:, None]
        return Relu(
            constant=float(shares @ self._b2[:, 0]),
            weights=np.concatenate(list(scaled), axis=1),
            bias=(self._b1 - np.einsum("d,mdh->mh", self._center, scaled)).ravel(),
            out=(shares[:, None] * self._w2[:, :, 0]).ravel(),
        )

    def save(self) -> dict[str, bytes]:
        """See `Regressor.save`."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            center=self._center,
            spread=self._spread,
            w1=self._w1,
            w2=self._w2,
            b1=self._b1,
            b2=self._b2,
            noise=self._noise,
        )
        return {"network.npz": buffer.getvalue()}

    def load(self, files: Mapping[str, bytes]) -> None:
        """See `Regressor.load`."""
        with np.load(io.BytesIO(files["network.npz"]), allow_pickle=False) as state:
            self._center, self._spread = state["center"], state["spread"]
            self._w1, self._w2 = state["w1"], state["w2"]
            self._b1, self._b2 = state["b1"], state["b2"]
            self._noise = float(state["noise"])

    def _scale(self, X: Matrix) -> Matrix:
        return np.asarray((X - self._center) / self._spread)
