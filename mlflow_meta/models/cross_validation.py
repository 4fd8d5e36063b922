"""Predictions of trials that were not learned from: some of a task, later ones, whole tasks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.metrics import spearman
from mlflow_meta.models.regressor import Groups, Matrix, Prediction, Predictor, Vector

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


def cross_predict(
    make_regressor: Callable[[], Predictor],
    X: Matrix,
    y: Vector,
    groups: Groups,
    folds: NDArray[np.int64],
) -> Prediction:
    """Predictions `(n,)` for every row by a regressor that was fitted on the other folds only.

    They are nan in a fold that leaves fewer than `MIN_LEFT` rows to learn from.
    """
    mean, std = np.full(len(y), np.nan), np.full(len(y), np.nan)
    for fold in np.unique(folds):
        rows = folds == fold
        if (~rows).sum() < MIN_LEFT:
            continue
        regressor = make_regressor()
        regressor.fit(X[~rows], y[~rows], groups=groups, seed=SEED)
        predicted = regressor.predict(X[rows])
        mean[rows], std[rows] = predicted.mean, predicted.std
    return Prediction(mean, std)


def predict_later(
    make_regressor: Callable[[], Predictor], X: Matrix, y: Vector, groups: Groups
) -> Prediction:
    """Predictions `(n,)` of each of the last three fifths of the rows from all rows before it.

    They are nan before that, and where fewer than `MIN_LEFT` rows come before.
    """
    mean, std = np.full(len(y), np.nan), np.full(len(y), np.nan)
    ends = np.linspace(0, len(y), N_FOLDS + 1).astype(int)
    for start, end in pairwise(ends[2:]):
        if start < MIN_LEFT or start == end:
            continue
        regressor = make_regressor()
        regressor.fit(X[:start], y[:start], groups=groups, seed=SEED)
        predicted = regressor.predict(X[start:end])
        mean[start:end], std[start:end] = predicted.mean, predicted.std
    return Prediction(mean, std)


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
