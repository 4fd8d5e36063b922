"""Monitor: what was predicted against what came of it, as a history that MLflow's UI draws."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlflow_meta import shown
from mlflow_meta.brought import brought
from mlflow_meta.dataset import MetaDataset
from mlflow_meta.store import MlflowStore, names
from mlflow_meta.store.ledger import Ledger, known_experiments
from mlflow_meta.store.mlflow_runs import Point
from mlflow_meta.store.own_runs import origin
from mlflow_meta.store.suggested import suggested, suggested_objectives
from mlflow_meta.trials import Objective

HISTORIES = (
    "predicted", "realised", "error", "coverage_80", "regret", "share_better", "hours_saved"
)  # fmt: skip
"""Columns of `brought` that become metrics, a point for each suggested run that has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitored:
    """What the suggestions for one metric of an experiment have brought so far.

    Attributes:
        experiment: Its name.
        objective: What was to be improved.
        run_id: Our run that has the history; empty where nothing has ended, or after a dry run.
        n_suggested: How many runs were suggested.
        course: A row for each that has ended, as `brought` gives it.
        n_new: How many of them are new in the history.
    """

    experiment: str
    objective: Objective
    run_id: str
    n_suggested: int
    course: pd.DataFrame
    n_new: int


def monitor(
    store: MlflowStore,
    experiment_names: Sequence[str] = (),
    *,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Monitored]:
    """Add what has ended since last time to the monitoring run of each experiment and metric.

    It reads the newest harvest, so harvest first. Done twice, or by two at once, it adds nothing
    twice. A run that ended before others, but was harvested after them, is in the table
    `brought.csv` at its place, and in the history in the place of one of them.

    Args:
        store: Where the suggestions and the harvest are, and the history goes.
        experiment_names: Which experiments; none for all that have suggestions and were harvested.
        dry_run: Look, and write nothing.
        progress: Called with what is being done.

    Raises:
        NothingToLearn: If nothing was harvested, or an experiment that was named does not exist.
        NoPermission: If the user may not write the history; nothing was written.
    """
    if not dry_run:
        store.check_may_edit(names.PROJECT_EXPERIMENT)
    _, dataset = store.dataset()
    found = []
    for name in experiment_names or _harvested(store, dataset):
        progress(f"looking what came of the suggestions for {name}")
        for objective in suggested_objectives(store, name):
            seen = _seen(store, dataset, name, objective)
            if not dry_run and len(seen.course):
                seen = _written(store, seen)
            found.append(seen)
    return found


def _harvested(store: MlflowStore, dataset: MetaDataset) -> list[str]:
    """The experiments of the harvest for which anything was suggested."""
    ids = known_experiments(store)
    frame = dataset.frame[["experiment", "experiment_id"]].astype(str).drop_duplicates()
    return sorted(frame.loc[frame["experiment_id"].isin(ids), "experiment"])


def _seen(
    store: MlflowStore, dataset: MetaDataset, experiment: str, objective: Objective
) -> Monitored:
    """What has become of what was suggested, as far as it was harvested."""
    ours = suggested(store, experiment, objective)
    own = dataset.only([experiment]) if experiment in set(dataset.frame["experiment"]) else None
    runs = pd.DataFrame(columns=["run_id", "ended_at", "realised", "duration_s"], dtype=float)
    if own is not None and own.has(objective):
        if not own.has_curves(objective):  # none has a point that counts
            objective = replace(objective, at="last")
        trials = own.trials(objective)[["run_id", "value"]]
        runs = trials.merge(own.frame[["run_id", "start_time", "duration_s"]], on="run_id")
        lasted = pd.to_timedelta(runs["duration_s"].fillna(0.0), unit="s")
        runs["ended_at"] = runs["start_time"] + lasted
        runs["realised"] = objective.direction.sign * runs["value"]
    predicted = ours[["run_id", "predicted", "low", "high"]]
    return Monitored(
        experiment=experiment,
        objective=objective,
        run_id="",
        n_suggested=len(ours),
        course=brought(runs.merge(predicted, on="run_id", how="left"), objective.direction),
        n_new=0,
    )


def _written(store: MlflowStore, seen: Monitored) -> Monitored:
    """The history, with what is new in it."""
    run_id = _monitoring_run(store, seen)
    known = store.get_run(run_id).metrics
    n_known = int(known.get("n_ended", 0))
    points = [
        Point(key, float(row[key]), int(row["ended_at"].timestamp() * 1000), step)
        for step, (_, row) in enumerate(seen.course.iterrows(), start=1)
        if step > n_known
        for key in HISTORIES
        if np.isfinite(row[key])
    ]
    n_ended = len(seen.course)
    if n_ended > n_known:
        store.log_files(run_id, {"brought.csv": shown.csv(seen.course)})
        store.log_points(run_id, points)
        # Last: whoever died before it is followed by one who adds the same points again.
        ended_ms = int(seen.course["ended_at"].iloc[-1].timestamp() * 1000)
        store.log_points(run_id, [Point("n_ended", float(n_ended), ended_ms, n_ended)])
    return replace(seen, run_id=run_id, n_new=max(0, n_ended - n_known))


def _monitoring_run(store: MlflowStore, seen: Monitored) -> str:
    """The only run that has the history of a metric of an experiment."""
    ledger = Ledger.of(store, store.experiment_id(seen.experiment))
    metric = seen.objective.metric
    key = f"monitor.{hashlib.sha256(metric.encode()).hexdigest()[:32]}"
    if run_id := ledger.entries().get(key):
        return run_id
    run_id = store.create_run(
        store.own_experiment_id(),
        f"monitor {seen.experiment}: {metric}",
        {
            **origin(),
            names.KIND: "monitor",
            names.EXPERIMENT: ledger.experiment_id,
            names.METRIC: metric,
            "mlflow.note.content": _NOTE,
        },
    )
    store.set_status(run_id, "FINISHED")
    return ledger.enter(key, run_id)


_NOTE = """What the suggestions of mlflow-meta have brought. A step is a suggested run that ended.

| metric | of each, or of all until then |
|---|---|
| `predicted`, `realised`, `error` | what was expected, what came, and realised - predicted |
| `coverage_80` | share in their 80% interval: about 0.8 if the meta-model knows what it knows |
| `regret` | by how much it is worse than the best known by then |
| `share_better` | share that beat the best before them |
| `hours_saved` | of training, against as many runs like those before as it takes to be as good |

`brought.csv` has all of it as a table.
"""
