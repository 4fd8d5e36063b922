"""Trials -> the memory of a registered model."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.columns import config_of
from mlflow_meta.features import Encoder
from mlflow_meta.models.forms import Additive
from mlflow_meta.models.linear import QuadraticRidge
from mlflow_meta.proposal import context_of
from mlflow_meta.served.memory import Duration, Memory, Nearness, Reference
from mlflow_meta.space import SearchSpace

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

MAX_TRIED = 4000  # configurations that distances are measured to: every request asks for all
MIN_TIMED = 8  # trials with a duration from which one is predicted
_LEAST_S = 1e-3  # MLflow's clock counts milliseconds
_BEYOND = 2.0  # how far a predicted duration may leave the range of those that were seen
_AT_ONCE = 500  # rows of a matrix of distances
_FOLDS = 5


def remember(trials: pd.DataFrame, space: SearchSpace) -> Memory:
    """The memory of a model that was trained on `trials`, read by `space`.

    Args:
        trials: Frame of trials; `duration_s` may be missing, as a column or in some rows.
        space: Whose params are configurations.
    """
    encoder = Encoder.learn(trials, space)
    X = encoder.encode(trials)
    seconds = trials["duration_s"].to_numpy(float) if "duration_s" in trials else X[:, 0] * np.nan
    buffer = io.BytesIO()
    trials.to_parquet(buffer, index=False)
    return Memory(
        encoder=encoder,
        references=_references(trials, space),
        usual_task=str(trials["task"].astype(str).value_counts().index[0]),
        duration=learn_duration(X, encoder.groups, seconds),
        nearness=learn_nearness(encoder, X),
        trials=buffer.getvalue(),
    )


def learn_duration(X: Matrix, groups: NDArray[np.int64], seconds: Vector) -> Duration:
    """From `X (n, d)` and the durations `(n,)`, nan where one is not known.

    A sum of the params, and of the squares of numbers, on the logarithm: what multiplies the time,
    such as epochs and rows, adds there. Where it predicts held-out trials no better than their
    mean does, the mean is all that is said.
    """
    known = np.isfinite(seconds) & (seconds >= 0)
    if known.sum() < MIN_TIMED:
        return _always(X.shape[1], np.nan, 1.0, 1.0)
    X, y = X[known], np.log(np.maximum(seconds[known], _LEAST_S))
    shortest, longest = np.exp(y.min()) / _BEYOND, np.exp(y.max()) * _BEYOND
    fold = np.random.default_rng(0).permutation(len(y)) % _FOLDS
    mean_error = model_error = 0.0
    for held_out in range(_FOLDS):
        rest, out = fold != held_out, fold == held_out
        mean_error += float(((y[out] - y[rest].mean()) ** 2).sum())
        said = np.clip(
            _fitted(X[rest], y[rest], groups).at(X[out]), np.log(shortest), np.log(longest)
        )
        model_error += float(((y[out] - said) ** 2).sum())
    if model_error >= mean_error:
        return _always(X.shape[1], float(y.mean()), shortest, longest)
    return Duration(log_seconds=_fitted(X, y, groups), shortest=shortest, longest=longest)


def _always(d: int, log_seconds: float, shortest: float, longest: float) -> Duration:
    form = Additive(constant=log_seconds, linear=np.zeros(d), square=np.zeros(d))
    return Duration(log_seconds=form, shortest=shortest, longest=longest)


def _fitted(X: Matrix, y: Vector, groups: NDArray[np.int64]) -> Additive:
    model = QuadraticRidge()
    model.fit(X, y, groups=groups, seed=0)
    return model.form()


def learn_nearness(encoder: Encoder, X: Matrix) -> Nearness:
    """From the trials' `X (n, d)`; of more than `MAX_TRIED` configurations from so many."""
    of_params = [(i, c) for i, c in enumerate(encoder.columns) if c.source.startswith("params.")]
    columns = np.array([i for i, _ in of_params], dtype=np.int64)
    # Two choices differ in two columns: 1/2 + 1/2 = 1.
    weights = np.array([np.sqrt(0.5) if c.kind == "is" else 1.0 for _, c in of_params])
    tried = np.unique(X[:, columns] * weights, axis=0)
    rows = np.random.default_rng(0).permutation(len(tried))[:MAX_TRIED]
    tried = tried[np.sort(rows)]
    return Nearness(columns=columns, weights=weights, tried=tried, apart=_apart(tried))


def _apart(tried: Matrix) -> Vector:
    """How far each of `tried (m, p)` is from the nearest other one, rising, `(m,)`."""
    if len(tried) < 2:
        return np.zeros(len(tried))
    found = []
    for start in range(0, len(tried), _AT_ONCE):
        some = tried[start : start + _AT_ONCE]
        squared = (some**2).sum(axis=1)[:, None] + (tried**2).sum(axis=1) - 2 * some @ tried.T
        squared[np.arange(len(some)), np.arange(start, start + len(some))] = np.inf
        found.append(squared.min(axis=1))
    return np.sort(np.sqrt(np.maximum(np.concatenate(found), 0.0)))


def _references(trials: pd.DataFrame, space: SearchSpace) -> dict[str, Reference]:
    tasks = trials["task"].astype(str)
    found = {}
    for place in trials.groupby(tasks, sort=False)["value"].idxmin():
        task = str(tasks[place])
        config = config_of(trials.loc[[place]].to_dict("records")[0])
        context = context_of(trials, space, task)
        found[task] = Reference(
            config=space.active({k: v for k, v in config.items() if k in space.params}),
            context={k: v.item() if isinstance(v, np.generic) else v for k, v in context.items()},
        )
    return found
