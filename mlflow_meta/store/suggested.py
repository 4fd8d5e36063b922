"""What was suggested for an experiment, as people and the next search see it."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlflow_meta import shown
from mlflow_meta.space.decisions import DECISION, Verdict, decision_of
from mlflow_meta.space.rejections import Rejection
from mlflow_meta.store import names
from mlflow_meta.store.connection import translated
from mlflow_meta.store.contract import Record, Store
from mlflow_meta.store.descriptions import NOTE
from mlflow_meta.store.mlflow_store import MlflowStore
from mlflow_meta.store.plans import Item, digest
from mlflow_meta.store.publish import DISCARDED, is_draft
from mlflow_meta.store.queue import is_superseded, own_params
from mlflow_meta.subsets import folded
from mlflow_meta.trials import DURATION, Objective, Suggestion

_SUGGESTED = [
    "run_id",
    "name",
    "rank",
    "status",
    "created",
    "version",
    "batch",
    "verdict",
    "reason",
    "predicted",
    "std",
    "low",
    "high",
    "got",
]


@translated
def share_view(
    store: MlflowStore, experiment_name: str, objective: Objective, param_names: Sequence[str]
) -> str:
    """Save a view of the runs table that shows predictions, results and params as columns.

    MLflow's UI lists it under Views. By default its table shows neither metrics nor params.

    Returns:
        The address of the view, from the server's root; other UIs than 3.17's may ignore it.
    """
    experiment_id = store.experiment_id(experiment_name)
    predicted = names.PREDICTED + objective.metric
    metrics = [
        names.RANK,
        predicted,
        names.LOW + predicted,
        names.HIGH + predicted,
        names.PREDICTED_DURATION,
        *objective.spellings,
    ]
    columns = [
        *(f"metrics.`{name}`" for name in metrics),
        *(f"params.`{name}`" for name in param_names),
    ]
    now_ms = int(time.time() * 1000)
    view = {
        "name": f"Suggested for {objective.metric}",
        "createdAt": now_ms,
        "updatedAt": now_ms,
        "state": json.dumps(
            {
                "selectedColumns": columns,
                "orderByKey": f"metrics.`{names.RANK}`",
                "orderByAsc": True,
            }
        ),
    }
    store.client.set_experiment_tag(
        experiment_id, f"mlflow.sharedViewState.{_view_key(objective.metric)}", json.dumps(view)
    )
    return view_address(experiment_id, objective.metric)


def view_address(experiment_id: str, metric: str) -> str:
    """The address of the view that `share_view` saves, from the server's root."""
    asked = f"workflowType=machine_learning&viewStateShareKey={_view_key(metric)}"
    return f"/#/experiments/{experiment_id}/runs?{asked}"


def _view_key(metric: str) -> str:
    return hashlib.sha256(metric.encode()).hexdigest()[:32]


def configs_of(records: Sequence[Record]) -> list[dict[str, str]]:
    """What was suggested, as texts; not to be suggested again."""
    return [own_params(record) for record in records]


def suggested_objectives(store: Store, experiment_name: str) -> list[Objective]:
    """What the suggestions in an experiment were to improve; of one metric, what the last was."""
    stated = {}
    for record in suggested_runs(store, experiment_name):
        tags = record.tags
        if names.METRIC in tags and names.DIRECTION in tags:
            stated[tags[names.METRIC]] = _objective_of(tags)
    return [stated[metric] for metric in sorted(stated)]


def rejections_in(records: Sequence[Record]) -> list[Rejection]:
    """What people have rejected of it, and why, the oldest suggestion first."""
    decided = [(record, decision_of(record.tags)) for record in records]
    return [
        Rejection(
            run=record.name,
            config=own_params(record),
            reason=decision.reason,
            run_id=record.run_id,
        )
        for record, decision in decided
        if decision.verdict is Verdict.REJECTED and not is_superseded(record)
    ]


def undecided_in(records: Sequence[Record]) -> list[str]:
    """Of those that wait, which have a decision that can't be read, and why, as sentences."""
    waiting = [record for record in records if record.status == "SCHEDULED"]
    said = [(record, decision_of(record.tags).remark) for record in waiting]
    return [f"{shown.line(record.name)} ({record.run_id}): {why}" for record, why in said if why]


def suggested_runs(store: Store, experiment_name: str) -> list[Record]:
    """The runs of all suggestions that were published, the oldest first."""
    return [
        record
        for record in store.search_runs(store.experiment_id(experiment_name), rank=None)
        if record.tags[names.RANK].isdecimal()
        and not is_draft(record)
        and record.params.get(names.CLAIM) != DISCARDED
    ]


def item(
    suggestion: Suggestion,
    objective: Objective,
    task: str,
    *,
    note: str,
    tags: Mapping[str, str],
) -> Item:
    """A suggestion as a run to be.

    The run has no parent, since MLflow's UI folds children away; its name says what it is.

    Args:
        suggestion: What to train, and what is predicted.
        objective: What it is to improve.
        task: What it is for. Of one task, equal configurations are the same suggestion.
        note: The run's description, as `note` makes it.
        tags: Its other tags.
    """
    params = {name: str(value) for name, value in folded(suggestion.config).items()}
    predicted = names.PREDICTED + objective.metric
    others = {
        names.PREDICTED + name: shown.kept(v)
        for name, v in suggestion.others.items()
        if name != DURATION
    }
    if suggestion.duration_s is not None:
        others[names.PREDICTED_DURATION] = shown.kept(suggestion.duration_s)
    if suggestion.front is not None:
        others[names.FRONT] = suggestion.front
    return Item(
        suggestion=digest([params, task]),
        # MLflow's runs table shows some 20 characters of a name: the number must be among them.
        name=f"suggested {suggestion.rank}: {suggestion.mean:.4g}",
        params=params,
        metrics={
            names.RANK: float(suggestion.rank),
            predicted: shown.kept(suggestion.mean),
            names.STD + predicted: shown.kept(suggestion.std),
            names.LOW + predicted: shown.kept(suggestion.low),
            names.HIGH + predicted: shown.kept(suggestion.high),
            **others,
        },
        tags={
            **tags,
            names.RANK: str(suggestion.rank),
            names.TASK: task,
            **_objective_tags(objective),
            NOTE: note,
        },
    )


def note(
    item: Suggestion, experiment_name: str, *, title: str, said: Sequence[str], origin: str = ""
) -> str:
    """The description of a suggested run, which the UI shows as Markdown.

    Args:
        item: The suggestion.
        experiment_name: Where it waits.
        title: Its first words, as Markdown.
        said: What is expected of it and why, a paragraph each, as Markdown; empty ones are left
            out.
        origin: What has predicted that, as Markdown.
    """
    params = "\n".join(
        f"| {shown.cell(name)} | {shown.cell(str(value))} |"
        for name, value in folded(item.config).items()
    )
    work = shown.code(f"mlflow-meta work -e {shlex.quote(experiment_name)} -- python train.py")
    decide = f"Set its tag `{DECISION}` to `approve` or `reject` to decide on it."
    use = f"While it is scheduled, {work} trains it. {decide}"
    table = f"| param | value |\n|---|---|\n{params}"
    parts = [
        f"**{title}**, by mlflow-meta.",
        *filter(None, said),
        table,
        *filter(None, [origin]),
        use,
    ]
    return "\n\n".join(parts) + "\n"


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


def suggested(store: Store, experiment_name: str, objective: Objective) -> pd.DataFrame:
    """What was suggested for an experiment, what was predicted, and what came of it.

    Returns:
        One row for each run suggested for the objective's metric, the newest suggestion first and
        each in the order of ranks: `run_id`, `name`, `rank`, `status`, `created` (UTC), `version`
        (of the meta-model), `verdict` (`approved`, `rejected` or empty), `reason`, `predicted`,
        `std`, `low`, `high` (80% interval) and `got`, the last value; in the metric's own units,
        NaN for what is not known yet. And `params.<name>` as texts. Of several attempts the last
        one.
    """
    rows = [
        _row(record, objective)
        for record in suggested_runs(store, experiment_name)
        if record.tags.get(names.METRIC) == objective.metric and not is_superseded(record)
    ]
    frame = pd.DataFrame(rows, columns=None if rows else _SUGGESTED)
    last = frame.groupby("batch")["created"].transform("max")
    ordered = frame.assign(last=last).sort_values(["last", "rank"], ascending=[False, True])
    return ordered.drop(columns=["last", "batch"]).reset_index(drop=True)


def _row(record: Record, objective: Objective) -> dict[str, object]:
    metrics, tags = record.metrics, record.tags
    decision = decision_of(tags)
    predicted = names.PREDICTED + objective.metric
    got = [metrics[name] for name in objective.spellings if np.isfinite(metrics.get(name, np.nan))]
    return {
        "run_id": record.run_id,
        "name": record.name,
        "rank": int(tags[names.RANK]),
        "status": record.status,
        "created": pd.Timestamp(record.start_ms, unit="ms", tz="UTC"),
        "version": tags.get(names.MODEL_VERSION, ""),
        "batch": tags.get(names.SUGGEST_RUN, ""),
        "verdict": "" if decision.verdict is Verdict.NONE else decision.verdict.value,
        "reason": decision.reason,
        "predicted": metrics.get(predicted, np.nan),
        "std": metrics.get(names.STD + predicted, np.nan),
        "low": metrics.get(names.LOW + predicted, np.nan),
        "high": metrics.get(names.HIGH + predicted, np.nan),
        "got": got[0] if got and record.status == "FINISHED" else np.nan,
        **{f"params.{k}": v for k, v in own_params(record).items()},
    }
