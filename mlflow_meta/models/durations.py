"""How long a training takes: a second meta-model, of the same kind as the first.

seconds: what a run took, without its time in a queue
effect:  what hardware adds to the log of the seconds

    log seconds = f_task(config) + effect(hardware)

f is `transfer`: a task's own runs on top of what the other tasks have taught.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.columns import columns_with
from mlflow_meta.errors import TooLittle
from mlflow_meta.features import Encoder
from mlflow_meta.models.meta_model import MIN_TRIALS, MetaModel
from mlflow_meta.models.zoo import ZOO
from mlflow_meta.space import SearchSpace

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

LEAST_S = 1e-3  # what is shorter was not timed well
BEYOND = 4.0  # how many times a prediction may be beyond the shortest or longest of its task


@dataclass(frozen=True, slots=True)
class HardwareEffect:
    """What hardware adds to the log of the seconds.

    Attributes:
        encoder: Turns `hardware.*` into columns, among others.
        weights: `(d,)` of its columns; 0 for all that is not of hardware, and for hardware that
            never varied within a task, where nothing tells it from what is particular to the task.
    """

    encoder: Encoder
    weights: Vector

    @classmethod
    def learn(cls, trials: pd.DataFrame, log_seconds: Vector, space: SearchSpace) -> HardwareEffect:
        """From trials and the log of their seconds `(n,)`.

        A linear regression within the tasks, with the params beside the hardware: large models may
        have been trained on large GPUs.
        """
        from sklearn.linear_model import BayesianRidge  # slow, and of no use to one that is learned

        columns = ["task", *columns_with(trials, "params.", "hardware.")]
        encoder = Encoder.learn(trials[columns], space)
        X = encoder.encode(trials)
        d = X.shape[1]
        hardware = np.array([c.source.startswith("hardware.") for c in encoder.columns], dtype=bool)
        # Of params the squares too; that of hardware would be wild beyond what was seen.
        squares = X[:, [c.kind == "unit" for c in encoder.columns]] ** 2
        tasks = trials["task"].astype(str).to_numpy(dtype=object)
        within = _within(tasks, np.column_stack([X, squares]))
        weights = np.zeros(d)
        if within[:, :d][:, hardware].any():
            ridge = BayesianRidge(fit_intercept=False)
            ridge.fit(within, _within(tasks, log_seconds[:, None])[:, 0])
            weights[hardware] = ridge.coef_[:d][hardware]
        return cls(encoder, weights)

    def at(self, frame: pd.DataFrame) -> Vector:
        """The effect `(n,)` of each row's hardware."""
        return np.asarray(self.encoder.encode(frame) @ self.weights)


class Durations:
    """Predicts the seconds of a training from its configuration, task and hardware."""

    def __init__(self, model: MetaModel, hardware: HardwareEffect) -> None:
        """Takes what was learned; `learn` makes both."""
        self._model, self._hardware = model, hardware

    @classmethod
    def learn(cls, trials: pd.DataFrame, space: SearchSpace) -> Durations:
        """From all trials whose `duration_s` is known.

        Args:
            trials: As `MetaDataset.trials` gives them; `value` is not looked at.
            space: How to read their params.

        Raises:
            TooLittle: If fewer than `MIN_TRIALS` say how long they took, or all took equally long.
        """
        seconds = (
            trials["duration_s"].to_numpy(float)
            if "duration_s" in trials
            else np.full(len(trials), np.nan)
        )
        known = np.isfinite(seconds) & (seconds > 0)
        if known.sum() < MIN_TRIALS:
            raise TooLittle(
                f"Only {known.sum()} runs say how long they took, and {MIN_TRIALS} are needed to "
                "predict that. Leave out what is asked about time, or harvest more runs."
            )
        timed = trials[known].reset_index(drop=True)
        log_seconds = np.log(np.maximum(seconds[known], LEAST_S))
        hardware = HardwareEffect.learn(timed, log_seconds, space)
        model = ZOO["transfer"]()
        try:
            model.learn(timed.assign(value=log_seconds - hardware.at(timed)), space)
        except TooLittle as error:
            raise TooLittle(
                f"All {len(timed)} runs whose duration is known took equally long within their "
                "task, so nothing tells what takes longer. Leave out what is asked about time."
            ) from error
        return cls(model, hardware)

    def seconds(self, frame: pd.DataFrame) -> Vector:
        """The predicted median `(n,)` for rows as a meta-model reads them."""
        return np.asarray(np.exp(self._within_seen(frame, self._model.predict(frame).mean)))

    def interval(self, frame: pd.DataFrame, level: float = 0.8) -> tuple[Vector, Vector]:
        """Ends `(n,)` in seconds of the interval that holds the duration, as `level` says."""
        low, high = self._model.interval(frame, level)
        return (
            np.asarray(np.exp(self._within_seen(frame, low))),
            np.asarray(np.exp(self._within_seen(frame, high))),
        )

    def _within_seen(self, frame: pd.DataFrame, log_seconds: Vector) -> Vector:
        """Log seconds with the hardware's effect, not far beyond those that were seen."""
        low, high = np.empty(len(frame)), np.empty(len(frame))
        tasks = frame["task"].astype(str).to_numpy(dtype=object)
        for task in pd.unique(tasks):
            seen = self._model.scale_of(task).values
            low[tasks == task], high[tasks == task] = seen[0], seen[-1]
        beyond = np.log(BEYOND)
        kept = np.clip(log_seconds, low - beyond, high + beyond)
        return np.asarray(kept + self._hardware.at(frame))


def _within(tasks: NDArray[np.object_], columns: Matrix) -> Matrix:
    """Each of the columns `(n, d)`, less its mean over the task's rows."""
    frame = pd.DataFrame(columns)
    return np.asarray(frame - frame.groupby(tasks).transform("mean"))
