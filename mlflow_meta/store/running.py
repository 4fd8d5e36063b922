"""Runs that train: their curves beside those of finished ones, and what is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from mlflow_meta.outlook import Curve
from mlflow_meta.store import curves
from mlflow_meta.store.contract import Record
from mlflow_meta.store.mlflow_runs import MlflowRuns, Point
from mlflow_meta.store.runs import Runs
from mlflow_meta.trials import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is written into a run that trains.

    Attributes:
        tags: Name -> text.
        metrics: Name -> value.
        step: Of the metrics.
        at_ms: Their time.
        is_killed: Whether its status becomes KILLED.
    """

    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    step: int
    at_ms: int
    is_killed: bool = False


def as_if_finished(runs: Runs) -> Runs:
    """The same runs, those that train as if they had just finished: trials, with their tasks."""
    status = runs.infos["status"]
    changed = pc.if_else(pc.equal(status, "RUNNING"), pa.scalar("FINISHED"), status)
    place = runs.infos.schema.get_field_index("status")
    return replace(runs, infos=runs.infos.set_column(place, "status", changed))


def curves_of(runs: Runs, objective: Objective) -> dict[str, tuple[Curve, int]]:
    """Run id -> its curve, minimised, and the time of its last point in ms.

    Of the metric's spellings the first one that a run has counts.
    """
    points = curves.frame(runs)
    found: dict[str, tuple[Curve, int]] = {}
    for spelling in objective.spellings:
        for run_id, rows in points[points["metric"] == spelling].groupby("run_id", observed=True):
            if run_id not in found:
                values = objective.direction.sign * rows["value"].to_numpy(float)
                curve = Curve.of(rows["step"].to_numpy(), values)
                found[str(run_id)] = (curve, int(rows["timestamp_ms"].max()))
    return found


def tell(store: MlflowRuns, record: Record, told: Told) -> None:
    """Write what is new of it; the same twice is written once."""
    tags = {key: text for key, text in told.tags.items() if record.tags.get(key, "") != text}
    metrics = {k: v for k, v in told.metrics.items() if record.metrics.get(k) != v}
    if tags:
        store.log_batch(record.run_id, tags=tags)
    if metrics:
        points = [Point(key, value, told.at_ms, told.step) for key, value in metrics.items()]
        store.log_points(record.run_id, points)
    if told.is_killed:
        store.set_status(record.run_id, "KILLED")
