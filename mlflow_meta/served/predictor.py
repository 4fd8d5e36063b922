"""Encoded rows -> values: the meta-model's own answers, with one look at each task's scale.

X:      `(n, d)`, as the meta-model's encoder makes it
score:  what the regressor predicts, comparable within a task; lower is better
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mlflow_meta.models import MetaModel, Prediction
from mlflow_meta.models.scale import TaskScale

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_MIDDLE = 0.68  # the level whose half width is a standard deviation


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Values `(n,)`, minimised, in the units of each row's task.

    Attributes:
        mean: As `MetaModel.predict` has it.
        std: Likewise.
        low_80: Lower end of the interval, as `MetaModel.interval` has it.
        high_80: Upper end of it.
        low_90: Likewise.
        high_90: Likewise.
        best: The lowest value that was seen of the task; nan where none was.
        chance: Probability of a value below the best; nan where there is none.
    """

    mean: Vector
    std: Vector
    low_80: Vector
    high_80: Vector
    low_90: Vector
    high_90: Vector
    best: Vector
    chance: Vector


class Predictor:
    """Asks a meta-model for all that it can say of a row."""

    def __init__(self, model: MetaModel) -> None:
        """Takes a fitted model."""
        self._model = model
        values = np.concatenate([scale.values for scale in model.scales.values()])
        self._pooled = TaskScale.learn(values)  # for a task that was never seen

    def predict(self, X: Matrix, tasks: Sequence[str]) -> Predicted:
        """Of rows `X (n, d)` of the `n` tasks."""
        return self.predict_and_means(X, tasks, X[:0], ())[0]

    def predict_and_means(
        self, X: Matrix, tasks: Sequence[str], others: Matrix, tasks_of_others: Sequence[str]
    ) -> tuple[Predicted, Vector]:
        """`predict` of `X (n, d)`, and the means alone of `others (m, d)`, `(m,)`.

        Together: to ask a regressor once is most of what few rows cost.
        """
        both = self._model.regressor.predict(np.vstack([X, others]) if len(others) else X)
        raw = Prediction(both.mean[: len(X)], both.std[: len(X)])
        of_others = self._model.calibration.mean(both.mean[len(X) :])
        means = self._values(of_others[None], tasks_of_others)[0] if len(others) else of_others
        return self._told(raw, tasks), means

    def _told(self, raw: Prediction, tasks: Sequence[str]) -> Predicted:
        calibration = self._model.calibration
        mean, std = calibration.mean(raw.mean), calibration.std(raw.std)
        ends = [
            end
            for level in (_MIDDLE, 0.8, 0.9)
            for end in calibration.interval(raw.mean, raw.std, level)
        ]
        low, high, *of_levels = self._values(np.stack([*ends, mean]), tasks)
        low_80, high_80, low_90, high_90, middle = of_levels
        best, chance = np.full(len(mean), np.nan), np.full(len(mean), np.nan)
        for task, rows in _by_task(tasks):
            if (scale := self._model.scales.get(task)) is not None:
                best[rows] = scale.best
                beaten = ndtr((scale.grid[0] - mean[rows]) / np.maximum(std[rows], 1e-12))
                chance[rows] = beaten if _can_be_beaten(scale) else 0.0
        return Predicted(
            mean=middle, std=(high - low) / 2, low_80=low_80, high_80=high_80, low_90=low_90,
            high_90=high_90, best=best, chance=chance,
        )  # fmt: skip

    def _values(self, scores: Matrix, tasks: Sequence[str]) -> Matrix:
        """Values of `scores (q, n)`, `(q, n)`."""
        values = np.empty_like(scores)
        for task, rows in _by_task(tasks):
            scale = self._model.scales.get(task, self._pooled)
            some = scores[:, rows]
            values[:, rows] = scale.to_value(some.ravel()).reshape(some.shape)
        return values


def _by_task(tasks: Sequence[str]) -> list[tuple[str, NDArray[np.int64] | slice]]:
    """Each task with its rows."""
    distinct = dict.fromkeys(tasks)
    if len(distinct) == 1:
        return [(tasks[0], slice(None))]
    places: dict[str, list[int]] = {task: [] for task in distinct}
    for i, task in enumerate(tasks):
        places[task].append(i)
    return [(task, np.array(rows, dtype=np.int64)) for task, rows in places.items()]


def _can_be_beaten(scale: TaskScale) -> bool:
    """Whether the metric's range goes on below the best."""
    return bool(scale.bounds[0] < scale.best)
