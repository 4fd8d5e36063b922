"""Report: what was suggested, what was predicted, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlflow_meta import pictures
from mlflow_meta.dataset import MetaDataset
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.metrics import coverage
from mlflow_meta.store import MlflowStore
from mlflow_meta.store.suggested import suggested as suggested_runs
from mlflow_meta.store.suggested import suggested_objectives
from mlflow_meta.trials import Direction, Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The balance of an experiment.

    Attributes:
        objective: What was to be improved.
        suggested: One row for each suggested run, as `MlflowStore.suggested` gives it.
        n_before: How many runs had the metric that were not suggested.
        best_before: The best metric among them; nan if there are none.
        best_after: The best metric among all runs.
        coverage: Share of the finished suggestions whose metric lay in its 80% interval; nan if
            none is finished.
        picture: The metric of every run in the order of training, as PNG.
    """

    objective: Objective
    suggested: pd.DataFrame
    n_before: int
    best_before: float
    best_after: float
    coverage: float
    picture: bytes


def report(
    store: MlflowStore,
    experiment_name: str,
    *,
    metric: str | Sequence[str] | None = None,
    direction: Direction | None = None,
) -> Report:
    """Compare what was suggested for an experiment with what came of it.

    Args:
        store: Where the runs are.
        experiment_name: Which experiment.
        metric: Which metric, or its several spellings, as `train` takes them; None for the one that
            the suggestions were made for.
        direction: Which values are better; None for what the suggestions, the experiment or the
            names say.

    Raises:
        NothingToLearn: If nothing was suggested for it, or no run has the metric.
    """
    sought = suggested_objectives(store, experiment_name)
    if metric is None and len(sought) != 1:
        asked = "Pass --metric with one of " + ", ".join(o.metric for o in sought) + "."
        raise NothingToLearn(
            asked
            if sought
            else f"Nothing was suggested for {experiment_name!r} yet. Run `mlflow-meta suggest -e "
            f"{experiment_name}`."
        )
    curves = {name for o in sought if o.at == "best" for name in o.spellings}
    dataset = store.read([experiment_name], curves=sorted(curves))
    objective = _objective(dataset, sought, metric, direction)
    if not dataset.has_curves(objective):  # none has a point that counts
        objective = replace(objective, at="last")
    runs = dataset.trials(objective)[["run_id", "value"]]
    runs["got"] = objective.direction.sign * runs["value"]
    suggested = suggested_runs(store, experiment_name, objective)
    got = runs.set_index("run_id")["got"]  # on a curve, the value that counts
    suggested["got"] = suggested["run_id"].map(got).fillna(suggested["got"]).astype(float)
    runs = runs.merge(dataset.frame[["run_id", "start_time"]], on="run_id")
    before = runs[~runs["run_id"].isin(suggested["run_id"])]
    done = suggested[suggested["got"].notna()].merge(runs[["run_id", "start_time"]], on="run_id")
    sign = objective.direction.sign
    return Report(
        objective=objective,
        suggested=suggested,
        n_before=len(before),
        best_before=float(sign * before["value"].min()) if len(before) else np.nan,
        best_after=float(sign * runs["value"].min()),
        coverage=_coverage(done) if len(done) else np.nan,
        picture=pictures.progress(before, done, objective),
    )


def _objective(
    dataset: MetaDataset,
    sought: Sequence[Objective],
    metric: str | Sequence[str] | None,
    direction: Direction | None,
) -> Objective:
    """What was asked, as the suggestions were made for it where that is one of theirs."""
    theirs = [o for o in sought if metric is None or metric == o.metric]
    if theirs:
        return replace(theirs[0], direction=direction or theirs[0].direction)
    return dataset.objective(metric, direction)


def _coverage(done: pd.DataFrame) -> float:
    got, low, high = (done[column].to_numpy(float) for column in ("got", "low", "high"))
    return coverage(got, low, high)
