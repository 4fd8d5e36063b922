"""The weighted mean of regressors: what one believes alone is not followed into a corner.

A search looks for the best prediction, and so finds the boldest mistake of a model. Models of
different kinds make different mistakes; where they disagree, the blend is not sure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mlflow_meta.models.regressor import Groups, Matrix, Prediction, Regressor, Vector


class Blend:
    """Members and their weights.

    mean = mean of the means; variance = mean of the variances + variance of the means.
    """

    def __init__(self, weights: Mapping[Callable[[], Regressor], float]) -> None:
        """Takes factories of members, whose file names must differ, and weights that sum to 1."""
        self._members = [make() for make in weights]
        self._weights = np.array(list(weights.values()))

    def fit(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> None:
        """See `Regressor.fit`."""
        for member in self._members:
            member.fit(X, y, groups=groups, seed=seed)

    def predict(self, X: Matrix) -> Prediction:
        """See `Regressor.predict`."""
        predictions = [member.predict(X) for member in self._members]
        means = np.stack([prediction.mean for prediction in predictions])
        variances = np.stack([prediction.std**2 for prediction in predictions])
        mean = self._weights @ means
        return Prediction(mean, np.sqrt(self._weights @ (variances + (means - mean) ** 2)))

    def save(self) -> dict[str, bytes]:
        """See `Regressor.save`."""
        return {name: content for m in self._members for name, content in m.save().items()}

    def load(self, files: Mapping[str, bytes]) -> None:
        """See `Regressor.load`."""
        for member in self._members:
            member.load(files)
