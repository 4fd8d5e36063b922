"""The queue of suggested runs: scheduled by us, claimed and finished by workers, read by people.

Ownership. A SCHEDULED run that carries our rank belongs to the worker whose claim it holds, from
the claim until it ends; before and after that, to nobody. No other run is changed.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_meta.store import names
from mlflow_meta.store.connection import translated
from mlflow_meta.store.mlflow_store import MlflowStore
from mlflow_meta.store.own_runs import origin
from mlflow_meta.trials import Objective, Suggestion

_SUGGESTED = [
    "run_id",
    "name",
    "rank",
    "status",
    "created",
    "version",
    "batch",
    "predicted",
    "std",
    "low",
    "high",
    "got",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """A suggested run that waits for a worker.

    Attributes:
        run_id: The run that the training is to land in.
        rank: 1 is to be trained first.
        params: Name -> text, exactly as written into the run.
        name: The run's name.
    """

    run_id: str
    rank: int
    params: Mapping[str, str]
    name: str


@translated
def schedule(
    store: MlflowStore,
    experiment_name: str,
    suggestion: Suggestion,
    objective: Objective,
    *,
    note: str,
    tags: Mapping[str, str],
) -> str:
    """Write one suggestion as a SCHEDULED run of the experiment; its status comes last.

    The run has no parent, since MLflow's UI folds children away; its name says what it is.

    Returns:
        The new run's id.
    """
    (experiment,) = store.experiments([experiment_name])
    # MLflow's runs table shows some 20 characters of a name: the number must be among them.
    name = f"suggested {suggestion.rank}: {suggestion.mean:.4g}"
    all_tags = {
        **origin(),
        **tags,
        names.RANK: str(suggestion.rank),
        **_objective_tags(objective),
        "mlflow.note.content": note,
    }
    run = store.client.create_run(experiment.experiment_id, tags=all_tags, run_name=name)
    run_id = str(run.info.run_id)
    predicted = names.PREDICTED + objective.metric
    store.own.log(
        run_id,
        params=suggestion.config,
        metrics={
            predicted: _rounded(suggestion.mean),
            f"{predicted}_std": _rounded(suggestion.std),
            f"{predicted}_low": _rounded(suggestion.low),
            f"{predicted}_high": _rounded(suggestion.high),
        },
    )
    store.client.update_run(run_id, status="SCHEDULED")
    return run_id


@translated
def share_view(
    store: MlflowStore, experiment_name: str, objective: Objective, param_names: Sequence[str]
) -> str:
    """Save a view of the runs table that shows predictions, results and params as columns.

    MLflow's UI lists it under Views. By default its table shows neither metrics nor params.

    Returns:
        The address of the view, from the server's root; other UIs than 3.17's may ignore it.
    """
    (experiment,) = store.experiments([experiment_name])
    predicted = names.PREDICTED + objective.metric
    metrics = [predicted, f"{predicted}_std", *objective.spellings]
    columns = [
        *(f"metrics.`{name}`" for name in metrics),
        *(f"params.`{name}`" for name in param_names),
    ]
    now_ms = int(time.time() * 1000)
    view = {
        "name": f"Suggested for {objective.metric}",
        "createdAt": now_ms,
        "updatedAt": now_ms,
        "state": json.dumps({"selectedColumns": columns}),
    }
    key = hashlib.sha256(objective.metric.encode()).hexdigest()[:32]
    store.client.set_experiment_tag(
        experiment.experiment_id, f"mlflow.sharedViewState.{key}", json.dumps(view)
    )
    return (
        f"/#/experiments/{experiment.experiment_id}/runs"
        f"?workflowType=machine_learning&viewStateShareKey={key}"
    )


@translated
def scheduled(store: MlflowStore, experiment_name: str) -> list[Scheduled]:
    """The suggested runs that wait in an experiment, those of the best rank first.

    Of one rank, the oldest comes first.
    """
    (experiment,) = store.experiments([experiment_name])
    runs = store.runs([experiment.experiment_id], "attributes.status = 'SCHEDULED'")
    runs = [run for run in runs if run.data.tags.get(names.RANK, "").isdecimal()]
    runs.sort(key=lambda run: (int(run.data.tags[names.RANK]), run.info.start_time))
    return [
        Scheduled(
            run_id=run.info.run_id,
            rank=int(run.data.tags[names.RANK]),
            params=_own_params(run),
            name=run.info.run_name or run.info.run_id,
        )
        for run in runs
    ]


@translated
def claim(store: MlflowStore, run_id: str, *, tags: Mapping[str, str]) -> bool:
    """Take a SCHEDULED run; True for exactly one of all workers that try, and `tags` are set.

    A param is written once: of several workers that log their own token, one wins. Nothing
    else in MLflow is such a compare-and-set.
    """
    token = uuid.uuid4().hex
    try:
        store.client.log_param(run_id, names.CLAIM, token)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
    run = store.client.get_run(run_id)
    if run.data.params.get(names.CLAIM) != token or run.info.status != "SCHEDULED":
        return False
    store.own.log(run_id, tags={**tags, names.STARTED_MS: str(int(time.time() * 1000))})
    store.client.update_run(run_id, status="RUNNING")
    return True


@translated
def finish(store: MlflowStore, run_id: str, *, succeeded: bool) -> None:
    """End a claimed run; one that its own training has ended already stays as it is."""
    status = store.client.get_run(run_id).info.status
    if status in ("RUNNING", "SCHEDULED"):
        store.own.end(run_id, "FINISHED" if succeeded else "FAILED")
    elif status == "FINISHED" and not succeeded:
        store.own.end(run_id, "FAILED")


@translated
def suggested_configs(store: MlflowStore, experiment_name: str) -> list[dict[str, str]]:
    """All that was ever suggested for an experiment, as texts; not to be suggested again."""
    (experiment,) = store.experiments([experiment_name])
    runs = store.runs([experiment.experiment_id], f"tags.`{names.RANK}` != ''")
    return [_own_params(run) for run in runs]


@translated
def suggested_objectives(store: MlflowStore, experiment_name: str) -> list[Objective]:
    """What the suggestions in an experiment were to improve; of one metric, what the last was."""
    (experiment,) = store.experiments([experiment_name])
    runs = store.runs([experiment.experiment_id], f"tags.`{names.RANK}` != ''")
    stated = {}
    for run in sorted(runs, key=lambda run: run.info.start_time):
        tags = run.data.tags
        if names.METRIC in tags and names.DIRECTION in tags:
            stated[tags[names.METRIC]] = _objective_of(tags)
    return [stated[metric] for metric in sorted(stated)]


def _objective_tags(objective: Objective) -> dict[str, str]:
    tags = {names.METRIC: objective.metric, names.DIRECTION: objective.direction.value}
    if objective.aliases:
        tags[names.ALIASES] = json.dumps(objective.aliases)
    if objective.at != "last":
        tags[names.AT] = objective.at
    return tags


def _objective_of(tags: Mapping[str, str]) -> Objective:
    data = {"metric": tags[names.METRIC], "direction": tags[names.DIRECTION]}
    aliases = json.loads(tags.get(names.ALIASES, "[]"))
    return Objective.from_dict({**data, "aliases": aliases, "at": tags.get(names.AT, "last")})


@translated
def suggested(store: MlflowStore, experiment_name: str, objective: Objective) -> pd.DataFrame:
    """What was suggested for an experiment, what was predicted, and what came of it.

    Returns:
        One row for each run suggested for the objective's metric, the newest suggestion first and
        each in the order of ranks: `run_id`, `name`, `rank`, `status`, `created` (UTC), `version`
        (of the meta-model), `predicted`, `std`, `low`, `high` (80% interval) and `got`, the last
        value; in the metric's own units, NaN for what is not known yet. And `params.<name>` as
        texts.
    """
    (experiment,) = store.experiments([experiment_name])
    runs = store.runs([experiment.experiment_id], "")
    rows = [
        _suggested_row(run, objective)
        for run in runs
        if run.data.tags.get(names.METRIC) == objective.metric
        and run.data.tags.get(names.RANK, "").isdecimal()
    ]
    frame = pd.DataFrame(rows, columns=None if rows else _SUGGESTED)
    last = frame.groupby("batch")["created"].transform("max")
    ordered = frame.assign(last=last).sort_values(["last", "rank"], ascending=[False, True])
    return ordered.drop(columns=["last", "batch"]).reset_index(drop=True)


def _suggested_row(run: Run, objective: Objective) -> dict[str, object]:
    metrics, tags = run.data.metrics, run.data.tags
    predicted = names.PREDICTED + objective.metric
    got = [metrics[name] for name in objective.spellings if np.isfinite(metrics.get(name, np.nan))]
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "rank": int(tags[names.RANK]),
        "status": run.info.status,
        "created": pd.Timestamp(run.info.start_time, unit="ms", tz="UTC"),
        "version": tags.get(names.MODEL_VERSION, ""),
        "batch": tags.get(names.BATCH, ""),
        "predicted": metrics.get(predicted, np.nan),
        "std": metrics.get(f"{predicted}_std", np.nan),
        "low": metrics.get(f"{predicted}_low", np.nan),
        "high": metrics.get(f"{predicted}_high", np.nan),
        "got": got[0] if got and run.info.status == "FINISHED" else np.nan,
        **{f"params.{k}": v for k, v in _own_params(run).items()},
    }


def _rounded(value: float) -> float:
    """To 6 digits: the UI shows every one there is, and a prediction has no more."""
    return float(f"{value:.6g}")


def _own_params(run: Run) -> dict[str, str]:
    """The params of the training, without ours."""
    return {k: v for k, v in run.data.params.items() if not k.startswith(names.PREFIX)}
