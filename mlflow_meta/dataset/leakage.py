"""Params and tags that tell the result: what is known only after a training can't be chosen.

n   trials
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.columns import columns_with

Vector = NDArray[np.float64]

MIN_TRIALS = 10  # in which a column is set, or chance may do it
MIN_VALUES = 5  # distinct ones that it has; fewer are choices
MIN_TRIALS_RANKED = 20
MIN_VALUES_RANKED = 15
_EXACT = 1e-8  # share of the variance that a straight line leaves, where it is only rounding
_RANKED = 0.999  # rank correlation of what does little but tell the result
_RELATED = 0.9  # rank correlation with the result of a metric that is another view of it
_MAX_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Leak:
    """A column that tells the result.

    Attributes:
        column: `params.<name>` or `tags.<name>`.
        why: What gives it away, to follow the column's name in a sentence.
        is_certain: Whether it can be nothing else. A setting may happen to rank all runs.
    """

    column: str
    why: str
    is_certain: bool

    @property
    def is_left_out(self) -> bool:
        """Whether nothing is learned from it: a tag that is dropped costs no choice."""
        return self.is_certain or self.column.startswith("tags.")

    @property
    def remark(self) -> str:
        """What was done about it, as a sentence."""
        if self.is_left_out:
            return f"{self.column} {self.why}: nothing is learned from it."
        return (
            f"{self.column} {self.why}. If it was logged after the training, delete it from the "
            "search space: see `mlflow-meta space`."
        )


def leaks(trials: pd.DataFrame, metrics: pd.DataFrame) -> list[Leak]:
    """The columns of `trials` that tell their value.

    Args:
        trials: `(n,)` with `task`, `value` and the columns.
        metrics: `(n,)` all that was measured in the same trials, as `metrics.<name>`.
    """
    of_task = trials["task"].astype(str)
    value = trials["value"].to_numpy(float)
    named = columns_with(metrics, "metrics.")
    measured = metrics[named].to_numpy(float, na_value=np.nan)
    found = []
    for column, numbers in _numbers(trials):
        rows = np.flatnonzero(np.isfinite(numbers))
        x, y, tasks = numbers[rows], value[rows], of_task.iloc[rows]
        if len(rows) < MIN_TRIALS or len(np.unique(x)) < MIN_VALUES:
            continue
        if _is_line(x, y, tasks) or any(_is_rounded(x, sign * y) for sign in (1, -1, 100, -100)):
            found.append(Leak(column, "is the metric itself in other words", True))
            continue
        same = [named[place] for place in _equal_columns(measured, rows, x)]
        if why := _suspicion(column, x, y, tasks, same):
            found.append(Leak(column, why, False))
    varying = [c for c in columns_with(trials, "params.") if trials[c].nunique() > 1]
    if {leak.column for leak in found if leak.is_certain} >= set(varying):
        # It may be a toy, with one setting that is its own result; else nothing were left.
        return [leak for leak in found if leak.column.startswith("tags.")]
    return found


def _numbers(trials: pd.DataFrame) -> Iterator[tuple[str, Vector]]:
    for column in columns_with(trials, "params.", "tags."):
        values = trials[column]
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            yield column, values.to_numpy(float, na_value=np.nan)


def _is_line(x: Vector, y: Vector, tasks: pd.Series) -> bool:
    """Whether y is a straight line of x, of one slope, within each task."""
    return 1.0 - _correlation(_within(x, tasks), _within(y, tasks)) ** 2 <= _EXACT


def _is_rounded(x: Vector, y: Vector) -> bool:
    """Whether x is y with fewer decimals."""
    for decimals in range(1, _MAX_DECIMALS + 1):
        if np.array_equal(np.round(x, decimals), x):
            return bool(np.all(np.abs(x - y) <= 0.501 * 10.0**-decimals))
    return False


def _equal_columns(measured: NDArray[np.float64], rows: NDArray[np.int64], x: Vector) -> list[int]:
    """Which columns of `measured`, `(n, m)`, are x, `(k,)`, at these k rows."""
    few = np.flatnonzero(np.all(measured[rows[:MIN_TRIALS]] == x[:MIN_TRIALS, None], axis=0))
    return [int(place) for place in few if np.array_equal(measured[rows, place], x)]


def _suspicion(
    column: str, x: Vector, y: Vector, tasks: pd.Series, same: Sequence[str]
) -> str | None:
    """Why a column, which is the metrics `same`, may be a consequence of the result, or None."""
    ranked = abs(_rank_correlation(x, y, tasks))
    # A setting may be logged as a metric of the same name, such as the learning rate.
    others = [metric for metric in same if metric.partition(".")[2] != column.partition(".")[2]]
    if others and ranked >= _RELATED:
        return f"is the metric {others[0].removeprefix('metrics.')!r}"
    enough = len(x) >= MIN_TRIALS_RANKED and len(np.unique(x)) >= MIN_VALUES_RANKED
    if enough and ranked >= _RANKED:
        return f"puts all runs in the order of their result (rank correlation {ranked:.4f})"
    return None


def _rank_correlation(x: Vector, y: Vector, tasks: pd.Series) -> float:
    of_x, of_y = (pd.Series(v, tasks.index).groupby(tasks).rank() for v in (x, y))
    return _correlation(_within(np.asarray(of_x), tasks), _within(np.asarray(of_y), tasks))


def _within(values: Vector, tasks: pd.Series) -> Vector:
    """The values less the mean of their task."""
    series = pd.Series(values, tasks.index)
    return np.asarray(series - series.groupby(tasks).transform("mean"), dtype=float)


def _correlation(x: Vector, y: Vector) -> float:
    """Of two centered vectors; 0 where one is constant, or too large for its square."""
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.sqrt((x @ x) * (y @ y)))
        return float(x @ y) / norm if 0 < norm < np.inf else 0.0
