"""All tasks in one Gaussian process, which is asked about one of them.

A column for each task, all of one length scale, tells how far tasks differ: the process needs few
trials of a task that is like the others in all but its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mlflow_meta.models.kernel import Hyperparameters, map_estimate
from mlflow_meta.models.regressor import Groups, Matrix, Vector
from mlflow_meta.models.source import given

MAX_POOLED = 800  # trials of all tasks: the time grows with their cube
MAX_OWN = 400  # of them, of the task that is asked about
MAX_TUNED = 300  # on which the hyperparameters are found

Trials = tuple[Matrix, Vector]
"""Inputs `(n, d)` and scores `(n,)` of one task."""


class Pooled:
    """What the trials of all tasks, those of one and those of others, say of the one."""

    def __init__(
        self,
        own: Trials,
        others: Sequence[Trials],
        groups: Groups,
        kernel: Hyperparameters,
        *,
        seed: int,
    ) -> None:
        """Takes the one task, which has a trial at least, and what `pooled_kernel` gives."""
        rng = np.random.default_rng(seed)
        n_own = min(len(own[1]), MAX_OWN)
        n_each = (MAX_POOLED - n_own) // max(len(others), 1)
        some = [_drawn(own, n_own, rng), *(_drawn(other, n_each, rng) for other in others)]
        self._n_tasks, d = len(some), len(groups)
        X, y, groups = _together(some, groups)
        scales = np.append(kernel.scales[:d], np.full(self._n_tasks, kernel.scales[-1]))
        self._source = given(X, y, groups, replace(kernel, scales=scales))

    def mean(self, X: Matrix) -> Vector:
        """Expected scores `(m,)` of the one task at `X (m, d)`."""
        return self._source.mean(_placed(X, 0, self._n_tasks))


def pooled_kernel(tasks: Sequence[Trials], groups: Groups, *, seed: int) -> Hyperparameters:
    """The most plausible hyperparameters; the length scales end with that of a task's column."""
    rng = np.random.default_rng(seed)
    n_each = max(MAX_TUNED // len(tasks), 1)
    return map_estimate(*_together([_drawn(task, n_each, rng) for task in tasks], groups))


def _drawn(task: Trials, n: int, rng: np.random.Generator) -> Trials:
    X, y = task
    rows = rng.permutation(len(y))[:n]
    return X[rows], y[rows]


def _together(tasks: Sequence[Trials], groups: Groups) -> tuple[Matrix, Vector, Groups]:
    """Inputs `(n, d + n_tasks)`, scores `(n,)` and groups of the columns, of all tasks."""
    X = np.concatenate([_placed(X, i, len(tasks)) for i, (X, _) in enumerate(tasks)])
    columns = np.full(len(tasks), groups.max(initial=-1) + 1)
    return X, np.concatenate([y for _, y in tasks]), np.concatenate([groups, columns])


def _placed(X: Matrix, place: int, n_tasks: int) -> Matrix:
    """`X (n, d)` before the tasks' columns, `(n, d + n_tasks)`."""
    return np.hstack([X, np.tile(np.eye(n_tasks)[place], (len(X), 1))])
