"""What anyone can predict without learning: a meta-model that is no better is worth nothing.

X:      `(n, 1 + d)`, as `features.Encoder.by_task` makes it: the task's place, then the unit cube
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from sklearn.neighbors import KNeighborsRegressor

from mlflow_meta.models.regressor import Groups, Matrix, Prediction, Predictor, Vector


class Mean:
    """Every run of a task is as good as its average run."""

    def fit(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> None:
        """See `Regressor.fit`."""
        self._spread = float(y.std())
        self._means = {place: float(y[X[:, 0] == place].mean()) for place in np.unique(X[:, 0])}

    def predict(self, X: Matrix) -> Prediction:
        """See `Regressor.predict`; 0, the mean of all scores, for a task that is not known."""
        mean = np.array([self._means.get(place, 0.0) for place in X[:, 0]])
        return Prediction(mean, np.full(len(X), self._spread))


class NearestRun:
    """A run is as good as the one of its task that is most like it."""

    def fit(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> None:
        """See `Regressor.fit`."""
        self._spread = float(y.std())
        self._any = KNeighborsRegressor(1).fit(X[:, 1:], y)
        self._of_task = {
            place: KNeighborsRegressor(1).fit(X[X[:, 0] == place, 1:], y[X[:, 0] == place])
            for place in np.unique(X[:, 0])
        }

    def predict(self, X: Matrix) -> Prediction:
        """See `Regressor.predict`; of a task that is not known, the nearest run of all."""
        mean = np.empty(len(X))
        for place in np.unique(X[:, 0]):
            rows = X[:, 0] == place
            mean[rows] = self._of_task.get(place, self._any).predict(X[rows, 1:])
        return Prediction(mean, np.full(len(X), self._spread))


BASELINES: Mapping[str, Callable[[], Predictor]] = {"mean": Mean, "nearest run": NearestRun}
"""Name -> factory without arguments."""
