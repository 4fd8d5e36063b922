"""What a report tells, before it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd

from mlflow_meta.explain import Explanation
from mlflow_meta.metrics import coverage
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Direction, Objective


def waiting(suggested: pd.DataFrame) -> pd.Series:
    """Which rows, as `Story.suggested` has them, are to be trained or in training."""
    is_open = suggested["status"].isin(["SCHEDULED", "RUNNING"])
    return is_open & (suggested["verdict"] != "rejected")


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What was suggested for an experiment, and what has come of it.

    Attributes:
        experiment_name: Which experiment.
        task: Which of its tasks; the experiment's name where it is one.
        objective: What is to be improved.
        model: Which meta-model has explained, such as `mlflow-meta-rmse v3`; empty for none.
        before: The runs that were not suggested: `run_id`, `start_time`, `got` (in the metric's
            own units), `duration_s` and `params.<name>`.
        suggested: One row a suggestion: `run_id`, `name`, `rank`, `status`, `version` (of the
            meta-model, such as `mlflow-meta-rmse/3`; empty where none was asked), `verdict` (what
            people have decided: `approved`, `rejected` or empty), `reason` (theirs), `predicted`,
            `low`, `high`, `got` (NaN where it has not finished), `start_time`, `duration_s` and
            `params.<name>`.
        explanation: Which params matter, and what they do; None where nobody can say.
        space: Of the params, whose scales the axes have; None where it is not known.
        why_not: Why there is no explanation, as a sentence; empty where there is one.
        address: What the address of a run's page begins with; empty where it is not known.
        now: When it is told.
    """

    experiment_name: str
    task: str
    objective: Objective
    model: str
    before: pd.DataFrame
    suggested: pd.DataFrame
    explanation: Explanation | None
    space: SearchSpace | None
    why_not: str
    address: str
    now: datetime

    @property
    def done(self) -> pd.DataFrame:
        """The suggestions that have finished with the metric."""
        return self.suggested[self.suggested["got"].notna()]

    @property
    def waiting(self) -> pd.Series:
        """Which suggestions are to be trained or in training."""
        return waiting(self.suggested)

    @property
    def best_before(self) -> float:
        """The best metric of the runs before; NaN if there are none."""
        return self._best(self.before["got"])

    @property
    def best_after(self) -> float:
        """The best metric of all runs; NaN if there are none."""
        return self._best(pd.concat([self.before["got"], self.done["got"]]))

    @property
    def coverage(self) -> float:
        """Share of the finished suggestions that lie in their 80% interval; NaN if none has."""
        if self.done.empty:
            return np.nan
        got, low, high = (self.done[name].to_numpy(float) for name in ("got", "low", "high"))
        return coverage(got, low, high)

    def _best(self, got: pd.Series) -> float:
        values = got.to_numpy(float)
        if not len(values):
            return np.nan
        is_low = self.objective.direction is Direction.MINIMIZE
        return float(values.min() if is_low else values.max())
