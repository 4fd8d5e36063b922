"""Report: what was suggested, what was predicted, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pandas as pd

from mlflow_meta import pictures, shown
from mlflow_meta.columns import columns_with
from mlflow_meta.dataset import MetaDataset
from mlflow_meta.errors import NoModel, NothingToLearn
from mlflow_meta.explain import explain
from mlflow_meta.known import known_to, space_of, task_of
from mlflow_meta.metrics import coverage
from mlflow_meta.pages import Story, page, waiting
from mlflow_meta.store import MlflowStore, registry
from mlflow_meta.store.suggested import suggested as suggested_runs
from mlflow_meta.store.suggested import suggested_objectives
from mlflow_meta.trials import Direction, Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The balance of an experiment.

    Attributes:
        objective: What was to be improved.
        suggested: One row for each suggested run, as `store.suggested` gives it, and its
            `start_time` and `duration_s` where it has finished.
        n_before: How many runs had the metric that were not suggested.
        best_before: The best metric among them; nan if there are none.
        best_after: The best metric among all runs.
        coverage: Share of the finished suggestions whose metric lay in its 80% interval; nan if
            none is finished.
        before: The runs that were not suggested, as `pages.Story` has them.
        picture: The metric of every run in the order of training, as PNG.
    """

    objective: Objective
    suggested: pd.DataFrame
    n_before: int
    best_before: float
    best_after: float
    coverage: float
    before: pd.DataFrame
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
    times = dataset.frame[["run_id", "start_time", "duration_s"]]
    suggested = suggested.merge(times, on="run_id", how="left")
    params = dataset.frame[["run_id", *columns_with(dataset.frame, "params.")]]
    runs = runs.merge(times, on="run_id").merge(params, on="run_id")
    before = runs[~runs["run_id"].isin(suggested["run_id"])]
    done = suggested[suggested["got"].notna() & suggested["start_time"].notna()]
    drawn = pd.concat([done, suggested[waiting(suggested) & suggested["got"].isna()]])
    sign = objective.direction.sign
    return Report(
        objective=objective,
        suggested=suggested,
        n_before=len(before),
        best_before=float(sign * before["value"].min()) if len(before) else np.nan,
        best_after=float(sign * runs["value"].min()),
        coverage=_coverage(done) if len(done) else np.nan,
        before=before,
        picture=pictures.progress(before, drawn, objective),
    )


def report_page(store: MlflowStore, experiment_name: str, found: Report, *, now: datetime) -> bytes:
    """A report as one interactive HTML file, with what the champion says of the params.

    Args:
        store: Where the champion is.
        experiment_name: Which experiment the report is about.
        found: The report.
        now: When it is told.
    """
    metric = found.objective.metric
    task, model, why_not = experiment_name, "", ""
    explanation = space = None
    try:
        champion = registry.champion(store, metric=metric)
        model = f"{champion.name} v{champion.version}"
        known = known_to(store, champion)
        task = task_of(experiment_name, known)
        space = space_of(known, task, champion.model)
        explanation = explain(
            champion.model,
            known.trials,
            space,
            task=task,
            direction=champion.objective.direction,
            rng=np.random.default_rng(0),  # asked twice, it answers the same
        )
    except (NoModel, NothingToLearn) as error:
        why_not = f"Nobody can say which params matter: {shown.line(str(error))}"
    is_server = store.uri.startswith("http")
    where = f"{store.uri.rstrip('/')}/#/experiments/{store.experiment_id(experiment_name)}/runs/"
    return page(
        Story(
            experiment_name=experiment_name,
            task=task,
            objective=found.objective,
            model=model,
            before=found.before,
            suggested=found.suggested,
            explanation=explanation,
            space=space,
            why_not=why_not,
            address=where if is_server else "",
            now=now,
        )
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
