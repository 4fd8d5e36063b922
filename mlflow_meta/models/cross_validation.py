"""Predictions of trials that were not learned from: some of a task, later ones, whole tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.metrics import spearman
from mlflow_meta.models.calls import Calls
from mlflow_meta.models.regressor import Groups, Matrix, Prediction, Predictor, Vector

P = TypeVar("P", bound=Predictor)
Split = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Rows `(n,)` to learn from, and rows `(n,)` to predict."""

N_FOLDS = 5
MIN_LEFT = 5  # rows without which a fold is not worth a fit
SEED = 0


def folds_within(tasks: NDArray[np.object_]) -> NDArray[np.int64]:
    """Fold `(n,)` of each trial, dealt out at random within each task."""
    rng = np.random.default_rng(SEED)
    folds = np.empty(len(tasks), dtype=np.int64)
    start = 0
    for task in pd.unique(tasks):
        rows = np.flatnonzero(tasks == task)
        folds[rng.permutation(rows)] = (start + np.arange(len(rows))) % N_FOLDS
        start += len(rows)
    return folds


def folds_across(tasks: NDArray[np.object_]) -> NDArray[np.int64]:
    """Fold `(n,)` of each trial such that every task lies in one fold whole."""
    order = {task: i for i, task in enumerate(pd.unique(tasks))}
    return np.array([order[task] % min(N_FOLDS, len(order)) for task in tasks])


def each_held_out(folds: NDArray[np.int64]) -> list[Split]:
    """Each fold, to be predicted from the others."""
    return [(folds != fold, folds == fold) for fold in np.unique(folds)]


def each_later(n: int) -> list[Split]:
    """Each of the last three fifths of `n` rows, to be predicted from all rows before it."""
    rows = np.arange(n)
    ends = np.linspace(0, n, N_FOLDS + 1).astype(int)
    return [(rows < start, (start <= rows) & (rows < end)) for start, end in pairwise(ends[2:])]


def predicting(
    calls: Calls,
    make_regressor: Callable[[], Predictor],
    X: Matrix,
    y: Vector,
    groups: Groups,
    splits: Sequence[Split],
) -> Callable[[], Prediction]:
    """Begin to predict rows by regressors that were fitted on others only.

    Args:
        calls: By which it is done.
        make_regressor: A fresh one for every split.
        X: `(n, d)`.
        y: `(n,)`.
        groups: `(d,)`, as `Regressor.fit` takes them.
        splits: Which rows to learn from, and which to predict.

    Returns:
        What waits for the predictions `(n,)`. They are nan in rows that no split asks for, and
        where fewer than `MIN_LEFT` rows are left to learn from.
    """
    begun = [
        (asked, calls.begin(predicted, make_regressor, X[known], y[known], groups, X[asked]))
        for known, asked in splits
        if known.sum() >= MIN_LEFT and asked.any()
    ]

    def all_predicted() -> Prediction:
        mean, std = np.full(len(y), np.nan), np.full(len(y), np.nan)
        for asked, result in begun:
            found = result()
            mean[asked], std[asked] = found.mean, found.std
        return Prediction(mean, std)

    return all_predicted


def predicted(
    make_regressor: Callable[[], Predictor], X: Matrix, y: Vector, groups: Groups, asked: Matrix
) -> Prediction:
    """Predictions for `asked (m, d)` of a regressor that was fitted to `X (n, d)`, `y (n,)`."""
    return fitted(make_regressor, X, y, groups).predict(asked)


def fitted(make_regressor: Callable[[], P], X: Matrix, y: Vector, groups: Groups) -> P:
    """A regressor that was fitted to `X (n, d)`, `y (n,)`."""
    regressor = make_regressor()
    regressor.fit(X, y, groups=groups, seed=SEED)
    return regressor


def spearman_by_task(tasks: NDArray[np.object_], observed: Vector, predicted: Vector) -> float:
    """Mean over the tasks of the rank correlation within each, weighted by their trials.

    nan predictions are left out; nan where no task has three others.
    """
    found: list[tuple[float, int]] = []
    for task in pd.unique(tasks):
        rows = (tasks == task) & np.isfinite(predicted)
        correlation = spearman(observed[rows], predicted[rows]) if rows.sum() >= 3 else np.nan
        if np.isfinite(correlation):
            found.append((correlation, int(rows.sum())))
    if not found:
        return float("nan")
    correlations, weights = zip(*found, strict=True)
    return float(np.average(correlations, weights=weights))
