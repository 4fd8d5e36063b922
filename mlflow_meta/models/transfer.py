"""Every task told from its own trials and from all other tasks.

See `models.task_prior`; where it has trials, half of what is said of it is by `models.pooled`.

X:      `(n, 1 + d)`, as `features.Encoder.by_task` makes it: the task's place, -1 for one that is
        not known, then the unit cube of the search space
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mlflow_meta.models.extra_trees import ExtraTrees
from mlflow_meta.models.kernel import Hyperparameters
from mlflow_meta.models.pooled import Pooled, pooled_kernel
from mlflow_meta.models.regressor import Groups, Matrix, Prediction, Vector
from mlflow_meta.models.source import Sources
from mlflow_meta.models.task_prior import MAX_ROWS, TaskPosterior

MAX_SOURCES = 30  # other tasks, the largest, that a task is told from
MIN_SOURCE_ROWS = 3
POOLED = 0.5  # share of the process that pools all tasks in what is said of one


class Drawn:
    """A posterior whose mean is drawn towards what another model of the same task says.

    mean = (1 - share) * mean_posterior + share * mean_other, and every joint draw moves along;
    variance = variance_posterior + share * (1 - share) * (mean_posterior - mean_other)^2, where
    they disagree.
    """

    def __init__(
        self, posterior: TaskPosterior, other: Callable[[Matrix], Vector], share: float
    ) -> None:
        """Takes the other model's mean `(m,)` at `X (m, d)`, and share in [0, 1]."""
        self._posterior, self._other, self._share = posterior, other, share

    def predict(self, X: Matrix) -> Prediction:
        """See `Regressor.predict`."""
        smooth = self._posterior.predict(X)
        away = self._other(X) - smooth.mean
        disagreement = self._share * (1 - self._share) * away**2
        std = np.sqrt(smooth.std**2 + disagreement)
        return Prediction(smooth.mean + self._share * away, std)

    def sample(self, X: Matrix, n_draws: int, rng: np.random.Generator) -> Matrix:
        """See `JointSampler.sample`."""
        away = self._other(X) - self._posterior.predict(X).mean
        return self._posterior.sample(X, n_draws, rng) + self._share * away


class Transfer:
    """A posterior for each task, with the other tasks as its prior."""

    def fit(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> None:
        """See `Regressor.fit`."""
        self._X, self._y, self._groups, self._seed = X, y, groups, seed
        self._posteriors: dict[int, TaskPosterior | Drawn] = {}
        self._sources = Sources()
        self._kernel: Hyperparameters | None = None

    def updated(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> Transfer:
        """See `Updatable.updated`."""
        new = Transfer()
        new.fit(X, y, groups=groups, seed=seed)
        new._sources = Sources(self._sources.kernels)
        return new

    def predict(self, X: Matrix) -> Prediction:
        """See `Regressor.predict`."""
        mean, std = np.empty(len(X)), np.empty(len(X))
        for place in np.unique(X[:, 0]):
            rows = X[:, 0] == place
            predicted = self._posterior(int(place)).predict(X[rows, 1:])
            mean[rows], std[rows] = predicted.mean, predicted.std
        return Prediction(mean, std)

    def sample(self, X: Matrix, n_draws: int, rng: np.random.Generator) -> Matrix:
        """See `JointSampler.sample`; all rows must be of one task."""
        (place,) = np.unique(X[:, 0])
        return self._posterior(int(place)).sample(X[:, 1:], n_draws, rng)

    def save(self) -> dict[str, bytes]:
        """See `Regressor.save`."""
        kept = Sources(self._sources.kernels)
        with threadpool_limits(1):
            for place in self._teachers()[: MAX_SOURCES + 1]:  # one more: none teaches itself
                kept.learn(*self._rows(place))
            pools = len(self._teachers()) > 1
            pooled: dict[str, Any] = (
                {"pooled_kernel": self._pooled_kernel().to_array()} if pools else {}
            )
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            X=self._X,
            y=self._y,
            groups=self._groups,
            seed=self._seed,
            **kept.save(),
            **pooled,
        )
        return {"transfer.npz": buffer.getvalue()}

    def load(self, files: Mapping[str, bytes]) -> None:
        """See `Regressor.load`."""
        with np.load(io.BytesIO(files["transfer.npz"]), allow_pickle=False) as state:
            X, y, groups, seed = state["X"], state["y"], state["groups"], int(state["seed"])
            self.fit(X, y, groups=groups, seed=seed)
            self._sources = Sources.load(state)
            if "pooled_kernel" in state:
                self._kernel = Hyperparameters.from_array(state["pooled_kernel"])

    def _posterior(self, place: int) -> TaskPosterior | Drawn:
        """That of the task at `place`, worked out once, when it is first asked for."""
        if place not in self._posteriors:
            with threadpool_limits(1):
                self._posteriors[place] = self._make_posterior(place)
        return self._posteriors[place]

    def _make_posterior(self, place: int) -> TaskPosterior | Drawn:
        X, y, groups = self._rows(place)
        others = [other for other in self._teachers() if other != place][:MAX_SOURCES]
        sources = [self._sources.learn(*self._rows(other)) for other in others]
        learn = self._sources.learn
        posterior = TaskPosterior(sources, X, y, groups, seed=self._seed, learn=learn)
        if sources and len(y):
            told = [self._rows(other)[:2] for other in others]
            pooled = Pooled((X, y), told, groups, self._pooled_kernel(), seed=self._seed)
            return Drawn(posterior, pooled.mean, POOLED)
        if len(y) <= MAX_ROWS:
            return posterior
        trees = ExtraTrees()  # they hold the rows that the Gaussian process can't
        trees.fit(X, y, groups=groups, seed=self._seed)
        return Drawn(posterior, lambda X: trees.predict(X).mean, 1.0 - MAX_ROWS / len(y))

    def _pooled_kernel(self) -> Hyperparameters:
        """That of all tasks pooled, found once, when it is first asked for."""
        if self._kernel is None:
            tasks = [self._rows(place)[:2] for place in self._teachers()[: MAX_SOURCES + 1]]
            self._kernel = pooled_kernel(tasks, self._groups[1:], seed=self._seed)
        return self._kernel

    def _rows(self, place: int) -> tuple[Matrix, Vector, Groups]:
        """Inputs, scores and groups of the task at `place`."""
        rows = self._X[:, 0] == place
        return self._X[rows, 1:], self._y[rows], self._groups[1:]

    def _teachers(self) -> list[int]:
        """Places of the tasks of which a source can be learned, the largest first."""
        places, counts = np.unique(self._X[:, 0], return_counts=True)
        largest = places[(-counts).argsort(kind="stable")].astype(int)
        scores = {place: self._y[self._X[:, 0] == place] for place in largest.tolist()}
        return [p for p, y in scores.items() if len(y) >= MIN_SOURCE_ROWS and np.ptp(y) > 0]


class OneTask:
    """`Transfer` where all rows of `X (n, d)` are of one task, and no column says so."""

    def __init__(self) -> None:
        self._transfer = Transfer()

    def fit(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> None:
        """See `Regressor.fit`."""
        self._transfer.fit(_placed(X), y, groups=np.concatenate([[-1], groups]), seed=seed)

    def predict(self, X: Matrix) -> Prediction:
        """See `Regressor.predict`."""
        return self._transfer.predict(_placed(X))

    def save(self) -> dict[str, bytes]:
        """See `Regressor.save`."""
        return self._transfer.save()

    def load(self, files: Mapping[str, bytes]) -> None:
        """See `Regressor.load`."""
        self._transfer.load(files)


def _placed(X: Matrix) -> Matrix:
    """`X (n, d)` behind a column that puts every row at place 0, `(n, 1 + d)`."""
    return np.column_stack([np.zeros(len(X)), X])
