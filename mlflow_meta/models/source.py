"""A source: what one task teaches about others, the mean of a Gaussian process of its own.

table: `(n, d + 1)` the inputs that a source is learned from, and the scores as last column
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.linalg import cho_solve

from mlflow_meta.models.kernel import (
    JITTER,
    Hyperparameters,
    correlation,
    covariance,
    map_estimate,
    polynomials,
)
from mlflow_meta.models.regressor import Groups, Matrix, Vector

MAX_SOURCE_ROWS = 300  # of a task, drawn at random: what a source costs grows with them
MAX_TUNED = 200  # rows on which hyperparameters are found
_MAX_CACHED = 256


@dataclass(frozen=True, slots=True)
class Source:
    """The posterior mean of one task's Gaussian process.

    Attributes:
        inputs: `(n, d)` what it was learned from.
        groups: `(d,)`, see `models.kernel`.
        kernel: Its hyperparameters.
        alpha: `(n,)` K^-1 y.
        slopes: `(k,)` trend * P' alpha, by which its trend has the polynomials.
    """

    inputs: Matrix
    groups: Groups
    kernel: Hyperparameters
    alpha: Vector
    slopes: Vector

    def mean(self, X: Matrix) -> Vector:
        """Expected scores `(m,)` at `X (m, d)`."""
        k = correlation(X, self.inputs, self.kernel.scales)
        return np.asarray(
            self.kernel.amplitude * (k @ self.alpha) + polynomials(X, self.groups) @ self.slopes
        )


def learn_source(X: Matrix, y: Vector, groups: Groups) -> Source:
    """The source of a task with the scores `y (n,)`; kept, since every target needs it again."""
    table = _table(X, y)
    return _learn_source(table.tobytes(), len(table), tuple(groups.tolist()))


class Sources:
    """Sources by what they were learned from: their hyperparameters outlive updates and files.

    To find these is what takes the time. They are those that `learn_source` finds, so that it makes
    no difference, but for the time, which of them are known.
    """

    def __init__(self, kernels: Mapping[str, Hyperparameters] | None = None) -> None:
        """Takes hyperparameters that are known already, as `kernels` gives them."""
        self._known = dict(kernels or {})
        self._sources: dict[str, Source] = {}

    @property
    def kernels(self) -> dict[str, Hyperparameters]:
        """Digest of what was learned from -> hyperparameters, of all that are known."""
        return {**self._known, **{key: s.kernel for key, s in self._sources.items()}}

    def learn(self, X: Matrix, y: Vector, groups: Groups) -> Source:
        """What `learn_source` returns."""
        table = _table(X, y)
        key = hashlib.sha256(table.tobytes() + groups.tobytes()).hexdigest()
        if key not in self._sources:
            kernel = self._known.get(key)
            self._sources[key] = (
                given(table[:, :-1], table[:, -1], groups, kernel)
                if kernel
                else learn_source(X, y, groups)
            )
        return self._sources[key]

    def save(self) -> dict[str, Any]:
        """The hyperparameters of what `learn` was asked for, as arrays."""
        kernels = [source.kernel for source in self._sources.values()]
        return {
            "source_keys": np.array(list(self._sources), dtype="U64"),
            "source_kernels": np.array([kernel.to_array() for kernel in kernels]),
        }

    @classmethod
    def load(cls, arrays: Mapping[str, Any]) -> Sources:
        """Inverse of `save`."""
        keys, kernels = arrays["source_keys"].tolist(), arrays["source_kernels"]
        found = [Hyperparameters.from_array(kernel) for kernel in kernels]
        return cls(dict(zip(keys, found, strict=True)))


def given(X: Matrix, y: Vector, groups: Groups, kernel: Hyperparameters) -> Source:
    """The source of all of `X (n, d)` and `y (n,)`, where the hyperparameters are known."""
    K = covariance(X, X, kernel, groups)
    K[np.diag_indices(len(K))] += kernel.noise + JITTER
    alpha = cho_solve((np.linalg.cholesky(K), True), y)
    return Source(X, groups, kernel, alpha, kernel.trend * (polynomials(X, groups).T @ alpha))


def _table(X: Matrix, y: Vector) -> Matrix:
    rows = np.random.default_rng(0).permutation(len(y))[:MAX_SOURCE_ROWS]
    return np.column_stack([X[rows], y[rows]])


@lru_cache(maxsize=_MAX_CACHED)
def _learn_source(content: bytes, n: int, groups: tuple[int, ...]) -> Source:
    table = np.frombuffer(content).reshape(n, len(groups) + 1)
    X, y, columns = table[:, :-1], table[:, -1], np.array(groups)
    return given(X, y, columns, map_estimate(X[:MAX_TUNED], y[:MAX_TUNED], columns))
