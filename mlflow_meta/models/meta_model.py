"""The meta-model: config x context -> what the objective will be, and how sure that is.

trials: frame with `task`, `value` (minimised), `params.<name>` (missing where inactive), and any
        `hardware.*`, `dataset.*`, `tags.*`
score:  Gaussian rank of the value within its task, lower is better; see `models.scale`
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np
import pandas as pd

from mlflow_meta.calibration import BELIEVED, Calibration, held_out_coverage
from mlflow_meta.errors import TooLittle
from mlflow_meta.features import Encoder
from mlflow_meta.metrics import rmse
from mlflow_meta.models.calls import Calls
from mlflow_meta.models.cross_validation import (
    SEED,
    each_held_out,
    fitted,
    folds_within,
    predicting,
    spearman_by_task,
)
from mlflow_meta.models.regressor import (
    Matrix,
    Prediction,
    Regressor,
    Updatable,
    Vector,
)
from mlflow_meta.models.sampling import sampled
from mlflow_meta.models.scale import TaskScale
from mlflow_meta.models.signal import Signal, signal
from mlflow_meta.space import SearchSpace

MIN_TRIALS = 8
MAX_JUDGED = 800  # trials of a cross-validation; with more it takes minutes and says the same


class MetaModel:
    """A regressor with all that it needs around it: features, scales of the tasks, calibration.

    Fitting twice on one set of trials gives one model. What the model says of its own accuracy
    (`cv_rmse`, `cv_spearman`, `cv_coverage` of its 80% intervals, their width) comes from
    cross-validation: in each of 5 folds, a fifth of every task's trials is predicted from all
    others; of more than `MAX_JUDGED` trials, from so many of them.
    """

    def __init__(
        self,
        make_regressor: Callable[[], Regressor],
        learn_encoder: Callable[[pd.DataFrame, SearchSpace], Encoder] = Encoder.learn,
    ) -> None:
        """Takes factories: cross-validation needs a fresh regressor for every fold."""
        self.make_regressor, self._learn_encoder = make_regressor, learn_encoder

    def fit(
        self, trials: pd.DataFrame, space: SearchSpace, *, executor: Executor | None = None
    ) -> None:
        """Learn from the trials of all tasks.

        Args:
            trials: See above.
            space: How to read their params.
            executor: Where to fit the folds side by side; None for one after the other, which
                gives the same.

        Raises:
            TooLittle: If there are fewer than `MIN_TRIALS` trials, or all are equally good.
        """
        with Calls(executor) as calls:
            self.fitting(trials, space, calls)()

    def fitting(self, trials: pd.DataFrame, space: SearchSpace, calls: Calls) -> Callable[[], None]:
        """Begin `fit` by `calls`; what is returned ends it."""
        self._prepare(trials, space)
        scores, groups = task_scores(trials), self.encoder.groups
        X = self.encoder.encode(trials)
        # So many rows are sent nowhere: here they are learned from while others fit the folds.
        whole = calls if len(trials) <= MAX_JUDGED else Calls()
        regressor = whole.begin(fitted, self.make_regressor, X, scores, groups)
        tasks = trials["task"].astype(str).to_numpy(dtype=object)
        some = sampled(tasks, MAX_JUDGED)
        tasks, scores = tasks[some], scores[some]
        splits = each_held_out(folds_within(tasks))
        predictions = predicting(calls, self.make_regressor, X[some], scores, groups, splits)

        def end() -> None:
            self.regressor, held_out = regressor(), predictions()
            self.calibration = Calibration.learn(scores, held_out.mean, held_out.std)
            self.cv_scores, self.cv_predicted = scores, self.calibration.mean(held_out.mean)
            self.cv_rmse = rmse(scores, self.cv_predicted)
            self.cv_coverage = held_out_coverage(scores, held_out.mean, held_out.std)
            self.signal = signal(tasks, scores, held_out.mean)
            found = spearman_by_task(tasks, scores, held_out.mean)
            self.cv_spearman = found if np.isfinite(found) else 0.0

        return end

    def learn(self, trials: pd.DataFrame, space: SearchSpace) -> None:
        """`fit` without asking how good it is: the regressor's own uncertainty is believed.

        Raises:
            TooLittle: As `fit` does.
        """
        self._prepare(trials, space)
        self.calibration, self.signal = BELIEVED, Signal(p_value=0.0, z=np.inf, n=len(trials))
        X, groups = self.encoder.encode(trials), self.encoder.groups
        self.regressor = fitted(self.make_regressor, X, task_scores(trials), groups)

    def _prepare(self, trials: pd.DataFrame, space: SearchSpace) -> None:
        check_trials(trials)
        self.scales = scales_of(trials)
        self.encoder = self._learn_encoder(trials, space)

    def updated(self, trials: pd.DataFrame) -> MetaModel:
        """A model that knows `trials`, all that there are by now, with what was found kept.

        Kept are the features, the calibration, and what cross-validation has told: a param or a
        context that is new is no feature. A new task is one.

        Raises:
            TooLittle: As `fit` does.
        """
        check_trials(trials)
        new = MetaModel(self.make_regressor, self._learn_encoder)
        new.scales = scales_of(trials)
        places = [*self.encoder.tasks, *new.scales] if self.encoder.tasks else []
        new.encoder = replace(self.encoder, tasks=tuple(dict.fromkeys(places)))
        new.calibration, new.signal = self.calibration, self.signal
        new.cv_rmse, new.cv_spearman = self.cv_rmse, self.cv_spearman
        new.cv_coverage = self.cv_coverage
        X, y, groups = new.encoder.encode(trials), task_scores(trials), new.encoder.groups
        if isinstance(self.regressor, Updatable):
            new.regressor = self.regressor.updated(X, y, groups=groups, seed=SEED)
        else:
            new.regressor = fitted(self.make_regressor, X, y, groups)
        return new

    def relearned(self, trials: pd.DataFrame) -> MetaModel:
        """What it would be if only `trials` were known: learned anew, its calibration kept.

        Raises:
            TooLittle: As `fit` does.
        """
        new = MetaModel(self.make_regressor, self._learn_encoder)
        new.learn(trials, self.encoder.space)
        new.calibration = self.calibration
        return new

    def n_unseen(self, trials: pd.DataFrame) -> int:
        """How many of `trials` it has not learned from, told by their task and value."""
        n = 0
        for task, scale in scales_of(trials).items():
            seen = self.scales[task].values.tolist() if task in self.scales else []
            n += (Counter(scale.values.tolist()) - Counter(seen)).total()
        return n

    @property
    def has_signal(self) -> bool:
        """Whether it has told good from bad, at least a little, on trials it had not seen."""
        return self.calibration.slope > 0 and self.signal.is_accepted

    def score(self, frame: pd.DataFrame) -> Prediction:
        """Predicted scores `(n,)`, comparable within a task, with calibrated std."""
        return self.score_encoded(self.encoder.encode(frame))

    def score_encoded(self, X: Matrix) -> Prediction:
        """`score` of rows `(n, d)` as `encoder` makes them of a frame."""
        raw = self.regressor.predict(X)
        return Prediction(self.calibration.mean(raw.mean), self.calibration.std(raw.std))

    def predict(self, frame: pd.DataFrame) -> Prediction:
        """Predicted values `(n,)` in the units of each row's task.

        std is half the width of the central 68% interval. A row of a task that was never seen, or
        of none, is put on the scale of all trials together.
        """
        raw = self.regressor.predict(self.encoder.encode(frame))
        low, high = self.calibration.interval(raw.mean, raw.std, 0.68)
        low_value, high_value = self._to_values(frame, low), self._to_values(frame, high)
        middle = self._to_values(frame, self.calibration.mean(raw.mean))
        return Prediction(middle, (high_value - low_value) / 2)

    def at_scores(self, frame: pd.DataFrame, raw: Vector) -> Vector:
        """What `predict(frame).mean` would be if the regressor said `raw (n,)`; never falling."""
        return self._to_values(frame, self.calibration.mean(raw))

    def interval(self, frame: pd.DataFrame, level: float = 0.8) -> tuple[Vector, Vector]:
        """Lower and upper ends `(n,)` of the prediction interval, in the units of `predict`."""
        raw = self.regressor.predict(self.encoder.encode(frame))
        low, high = self.calibration.interval(raw.mean, raw.std, level)
        return self._to_values(frame, low), self._to_values(frame, high)

    def scale_of(self, task: str) -> TaskScale:
        """The scale of a task; of all trials together for one that was never seen."""
        if task in self.scales:
            return self.scales[task]
        return TaskScale.learn(np.concatenate([scale.values for scale in self.scales.values()]))

    def _to_values(self, frame: pd.DataFrame, scores: Vector) -> Vector:
        # A row without a task is of the only one there is, or of none that is known.
        usual = next(iter(self.scales)) if len(self.scales) == 1 else ""
        given = frame["task"] if "task" in frame else [None] * len(frame)
        tasks = np.array([usual if pd.isna(task) else str(task) for task in given], dtype=object)
        values = np.empty(len(frame))
        for task in pd.unique(tasks):
            rows = tasks == task
            values[rows] = self.scale_of(task).to_value(scores[rows])
        return values

    def save(self) -> dict[str, bytes]:
        """The fitted state, as file name -> content: JSON, npz and LightGBM text, no pickle."""
        state = {
            "encoder": self.encoder.to_dict(),
            "scales": {task: list(scale.values) for task, scale in self.scales.items()},
            "calibration": {
                "center": self.calibration.center,
                "slope": self.calibration.slope,
                "factors": list(self.calibration.factors.items()),
            },
            "cv_rmse": self.cv_rmse,
            "cv_spearman": self.cv_spearman,
            "cv_coverage": self.cv_coverage,
            "signal": [self.signal.p_value, self.signal.z, self.signal.n],
        }
        return {"meta_model.json": json.dumps(state, indent=1).encode(), **self.regressor.save()}

    def load(self, files: Mapping[str, bytes]) -> None:
        """Take over the state that `save` gave."""
        state = json.loads(files["meta_model.json"])
        self.encoder = Encoder.from_dict(state["encoder"])
        self.scales = {t: TaskScale(np.array(v)) for t, v in state["scales"].items()}
        learned = state["calibration"]
        self.calibration = Calibration(
            learned["center"], learned["slope"], {level: f for level, f in learned["factors"]}
        )
        self.cv_rmse, self.cv_spearman = state["cv_rmse"], state["cv_spearman"]
        self.cv_coverage = state["cv_coverage"]
        self.signal = Signal(*state["signal"])
        self.regressor = self.make_regressor()
        self.regressor.load(files)


def check_trials(trials: pd.DataFrame) -> None:
    """Raise if nothing can be learned from `trials`: too few, or all equally good."""
    missing = {"task", "value"} - set(trials)
    if missing:
        raise ValueError(
            f"Trials need the columns task and value, but {sorted(missing)} is missing."
        )
    if trials["task"].isna().any():
        raise ValueError("Every trial must have a task; trials of one task are comparable.")
    if not np.all(np.isfinite(trials["value"].to_numpy(float))):
        raise ValueError("Every trial's value must be finite; leave out the others.")
    if len(trials) < MIN_TRIALS:
        raise TooLittle(
            f"A meta-model needs at least {MIN_TRIALS} finished runs with the metric, but there "
            f"are {len(trials)}. Train {MIN_TRIALS - len(trials)} more with other parameters, such "
            "as `mlflow-meta suggest -e EXPERIMENT --metric METRIC --explore` schedules, or "
            "harvest more experiments."
        )
    if (trials.groupby("task")["value"].nunique() < 2).all():
        raise TooLittle(
            f"All {len(trials)} runs are equally good within their task, so nothing tells a good "
            "configuration from a bad one. Is it the right metric?"
        )


def scales_of(trials: pd.DataFrame) -> dict[str, TaskScale]:
    """The scale of each task, of all its trials."""
    tasks = trials["task"].astype(str).to_numpy(dtype=object)
    values = trials["value"].to_numpy(float)
    by_task = trials.groupby(tasks, sort=False).indices
    return {str(task): TaskScale.learn(values[rows]) for task, rows in by_task.items()}


def task_scores(trials: pd.DataFrame) -> Vector:
    """Scores `(n,)` of the trials, each within its own task."""
    tasks = trials["task"].astype(str).to_numpy(dtype=object)
    values = trials["value"].to_numpy(float)
    scores = np.empty(len(trials))
    for rows in trials.groupby(tasks, sort=False).indices.values():
        scores[rows] = TaskScale.learn(values[rows]).to_score(values[rows])
    return scores
