"""The regressors of the zoo for scikit-learn: pipelines, cross-validation, searches.

X:      `(n, d)`, finite numbers
y:      `(n,)` in any units; learned as z = (y - center) / spread
groups: `(d,)` which columns belong together, see `models.regressor`
"""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from mlflow_meta.models.regressor import Groups, Vector
from mlflow_meta.models.zoo import REGRESSORS

MIN_ROWS = 2  # fewer have no spread


class ZooRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # both come without types
    """One kind of regressor of the zoo, as an estimator.

    Columns should be of unit scale, as `StandardScaler` makes them; only `lightgbm`, `extra_trees`
    and `network` do as well without. All rows are taken for trials of one task, so `transfer` has
    no other to learn from.

    Attributes:
        regressor_: The fitted regressor, of z.
        n_features_in_: d.
        feature_names_in_: Names of X's columns `(d,)`, where it was fitted on a frame.

    Example:
        >>> model = make_pipeline(StandardScaler(), ZooRegressor("gaussian_process"))
        >>> mean, std = model.fit(X, y).predict(X_new, return_std=True)
    """

    def __init__(
        self,
        kind: str = "gaussian_process",
        *,
        column_groups: ArrayLike | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        """Nothing is checked before `fit`, as in all of scikit-learn.

        Args:
            kind: A name in the zoo.
            column_groups: `(d,)`; columns of one number encode one thing, such as a category.
                None: each stands for itself.
            random_state: Equal data and equal numbers give equal models.
        """
        self.kind = kind
        self.column_groups = column_groups
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> ZooRegressor:
        """Learn from `X (n, d)` and `y (n,)`.

        Raises:
            ValueError: If there is no such kind, X or y is not finite, there are fewer than
                `MIN_ROWS` rows, or `column_groups` has not one number for each column.
        """
        if self.kind not in REGRESSORS:
            raise ValueError(f"`kind` must be one of {sorted(REGRESSORS)}, but got {self.kind!r}.")
        inputs, values = validate_data(
            self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=MIN_ROWS
        )
        z = self._standardise(np.asarray(values, dtype=np.float64))
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        self.regressor_ = REGRESSORS[self.kind]()
        self.regressor_.fit(inputs, z, groups=self._groups(), seed=int(seed))
        return self

    @overload
    def predict(self, X: ArrayLike, return_std: Literal[False] = False) -> Vector: ...

    @overload
    def predict(self, X: ArrayLike, return_std: Literal[True]) -> tuple[Vector, Vector]: ...

    def predict(self, X: ArrayLike, return_std: bool = False) -> Vector | tuple[Vector, Vector]:
        """Expected y at `X (m, d)`, `(m,)`; with its standard deviation where that is asked for.

        The standard deviation `(m,)` includes the noise of an observation.
        """
        check_is_fitted(self)
        z = self.regressor_.predict(validate_data(self, X, reset=False, dtype=np.float64))
        mean = self._center + self._spread * z.mean
        return (mean, self._spread * z.std) if return_std else mean

    def _standardise(self, y: Vector) -> Vector:
        """Keep the center and spread of y; its z, `(n,)`."""
        peak = float(np.abs(y).max()) or 1.0  # so that no square overflows
        unit = y / peak
        # Equal values have no spread, though by rounding they may differ from their own mean.
        center, spread = unit.mean(), unit.std() if unit.min() < unit.max() else 1.0
        self._center, self._spread = float(peak * center), float(peak * spread)
        return np.asarray((unit - center) / spread)

    def _groups(self) -> Groups:
        d = self.n_features_in_
        if self.column_groups is None:
            return np.arange(d)
        groups = np.asarray(self.column_groups)
        if groups.shape != (d,):
            raise ValueError(
                f"`column_groups` must have one number for each of X's {d} columns, but its shape "
                f"is {groups.shape}."
            )
        return np.unique(groups, return_inverse=True)[1]
