"""What every regressor of the zoo promises.

X:      `(n, d)`, as `features.Encoder` makes it, finite
y:      `(n,)`, standard scores within a task; lower is better
groups: `(d,)`, which columns belong together: those of one number encode one parameter
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Groups = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Prediction:
    """A mean and a standard deviation for each of `n` configurations.

    Attributes:
        mean: `(n,)`, in the units of what was learned.
        std: `(n,)`, >= 0, in the same units; noise of the observation included.
    """

    mean: Vector
    std: Vector

    def __post_init__(self) -> None:
        if self.mean.shape != self.std.shape:
            raise ValueError(
                f"mean and std must have one shape, but got {self.mean.shape} and {self.std.shape}."
            )


class Predictor(Protocol):
    """What can be fitted and asked: all that cross-validation needs."""

    def fit(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> None:
        """Learn; forgets whatever was learned before."""
        ...

    def predict(self, X: Matrix) -> Prediction:
        """Predict for `X (m, d)`."""
        ...


class Regressor(Predictor, Protocol):
    """Learns `X (n, d)` -> `y (n,)` from few rows. Equal data and seed give equal models.

    Rows do not see each other: a row's prediction is the same alone as among others. `save` and
    `load` go through files without pickle, and predictions survive them to the last bit.
    """

    def save(self) -> dict[str, bytes]:
        """The fitted state, as file name -> content."""
        ...

    def load(self, files: Mapping[str, bytes]) -> None:
        """Take over the state that `save` gave."""
        ...


@runtime_checkable
class Updatable(Protocol):
    """A regressor that need not learn again what has not changed."""

    def updated(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> Regressor:
        """What `fit` would make of these rows, which are all that are known by now."""
        ...


@runtime_checkable
class JointSampler(Protocol):
    """A regressor that knows how the values of several rows vary together."""

    def sample(self, X: Matrix, n_draws: int, rng: np.random.Generator) -> Matrix:
        """Draws `(n_draws, m)` of the function at `X (m, d)`, free of noise, all of it at once."""
        ...
