"""From MLflow's runs to the columns of a meta-dataset."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import Experiment, Run

from mlflow_meta.columns import type_column
from mlflow_meta.dataset import MetaDataset
from mlflow_meta.store import names
from mlflow_meta.trials import Direction, Objective

HARDWARE_TAGS = frozenset(
    [
        "gpu",
        "gpus",
        "gpu_model",
        "gpu_count",
        "n_gpus",
        "num_gpus",
        "device",
        "accelerator",
        "hardware",
        "instance_type",
        "machine_type",
        "node_type",
        "cpu",
        "cpu_model",
        "cpu_cores",
        "n_cpus",
        "num_cpus",
        "threads",
        "n_threads",
        "memory",
        "memory_gb",
    ]
)
"""Tags by which users say what a run ran on, lower case."""

MAX_FEATURES = 200  # columns of a data set that become columns of ours; the most used ones
MAX_TAG_NAMES = 200  # tags of users that become columns of ours; the most used ones
MAX_TAG_CHARS = 250  # a longer tag is a text or a document, not a category


def to_dataset(runs: Sequence[Run], experiments: Sequence[Experiment]) -> MetaDataset:
    """The finished runs among `runs` that have a metric; the others are counted by reason."""
    experiment_names = {e.experiment_id: e.name for e in experiments}
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs}
    reasons = [_why_not(run, parents) for run in runs]
    kept = [run for run, reason in zip(runs, reasons, strict=True) if reason is None]
    datasets = [_dataset_of(run) for run in kept]
    frame = pd.DataFrame(
        {
            "run_id": [run.info.run_id for run in kept],
            "experiment_id": [run.info.experiment_id for run in kept],
            "experiment": [experiment_names[run.info.experiment_id] for run in kept],
            "status": [run.info.status for run in kept],
            "start_time": pd.DatetimeIndex(
                np.array([_started_ms(run) for run in kept], dtype="datetime64[ms]"), tz="UTC"
            ),
            "duration_s": [(int(r.info.end_time or 0) - _started_ms(r)) / 1000 for r in kept],
        }
    )
    frame["duration_s"] = frame["duration_s"].where(frame["duration_s"] >= 0).astype(float)
    frame["task"] = _tasks(frame["experiment"], [d.get("name") for d in datasets])
    columns = {
        **_typed("params.", [_params_of(run) for run in kept]),
        **_metric_columns(kept),
        **_typed("tags.", [_tags_of(run) for run in kept], cap=MAX_TAG_NAMES),
        **_typed("hardware.", [_hardware_of(run) for run in kept]),
        **_dataset_columns(datasets),
    }
    return MetaDataset(
        frame=pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1),
        primary=_primary_metrics(experiments),
        quarantined=dict(Counter(reason for reason in reasons if reason is not None)),
    )


def _why_not(run: Run, parents: set[str | None]) -> str | None:
    """Why a run teaches nothing; None if it does."""
    if run.info.status != "FINISHED":
        return f"not finished: {run.info.status}"
    if run.info.run_id in parents:
        return "parent of nested runs"
    if not any(np.isfinite(value) for value in _metrics_of(run).values()):
        return "no finite metric"
    return None


def _started_ms(run: Run) -> int:
    # A suggested run waited in a queue since its creation: the worker writes when it began.
    began = run.data.tags.get(names.STARTED_MS, "")
    return int(began) if began.isdecimal() else int(run.info.start_time or 0)


def _params_of(run: Run) -> dict[str, str]:
    return {k: v for k, v in run.data.params.items() if not k.startswith(names.PREFIX)}


def _tags_of(run: Run) -> dict[str, str]:
    return {
        key: value
        for key, value in run.data.tags.items()
        if not key.startswith(("mlflow.", names.PREFIX))
        and key.lower() not in HARDWARE_TAGS
        and len(value) <= MAX_TAG_CHARS
    }


def _hardware_of(run: Run) -> dict[str, str]:
    stated = {k.lower(): v for k, v in run.data.tags.items() if k.lower() in HARDWARE_TAGS}
    measured = {
        key.removeprefix(names.HARDWARE): value
        for key, value in run.data.tags.items()
        if key.startswith(names.HARDWARE)
    }
    return {**stated, **measured}


def _typed(
    prefix: str, rows: Sequence[Mapping[str, str]], cap: int | None = None
) -> dict[str, pd.Series]:
    counts = Counter(key for row in rows for key in row)
    most_used = [key for key, _ in counts.most_common(cap)]
    return {prefix + key: type_column([row.get(key) for row in rows]) for key in sorted(most_used)}


def _metric_columns(runs: Iterable[Run]) -> dict[str, list[float]]:
    rows = [_metrics_of(run) for run in runs]
    logged = {key for row in rows for key in row}
    return {f"metrics.{key}": [row.get(key, np.nan) for row in rows] for key in sorted(logged)}


def _metrics_of(run: Run) -> dict[str, float]:
    # What we predicted for a suggested run is no result of that run.
    suggested = names.RANK in run.data.tags
    return {
        key: value
        for key, value in run.data.metrics.items()
        if not (suggested and key.startswith(names.PREDICTED))
    }


def _dataset_of(run: Run) -> dict[str, Any]:
    """Name, digest, rows and feature names of the data set that a run was trained on."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    if not inputs:
        return {"features": _signature_inputs(run.data.tags.get("mlflow.log-model.history", ""))}
    by_context = {tag.value: i.dataset for i in reversed(inputs) for tag in i.tags}
    training = by_context.get("train", inputs[0].dataset)
    dataset = by_context.get("training", training)
    schema, profile = _json(dataset.schema), _json(dataset.profile)
    specs = schema.get("mlflow_colspec") if isinstance(schema, dict) else None
    rows = profile.get("num_rows") if isinstance(profile, dict) else None
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "rows": rows if isinstance(rows, int | float) else None,
        "features": _names_in(specs),
    }


def _signature_inputs(history: str) -> list[str]:
    models = _json(history)
    if not isinstance(models, list) or not models or not isinstance(models[-1], dict):
        return []
    signature = models[-1].get("signature")
    return _names_in(_json(signature.get("inputs"))) if isinstance(signature, dict) else []


def _names_in(specs: object) -> list[str]:
    if not isinstance(specs, list):
        return []
    return [str(spec["name"]) for spec in specs if isinstance(spec, dict) and "name" in spec]


def _json(text: object) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _dataset_columns(datasets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not any(datasets):
        return {}
    features: list[frozenset[str]] = [frozenset(d.get("features") or ()) for d in datasets]
    columns: dict[str, Any] = {
        "dataset.name": pd.array([d.get("name") for d in datasets], dtype="string"),
        "dataset.digest": pd.array([d.get("digest") for d in datasets], dtype="string"),
        "dataset.rows": pd.array([d.get("rows") for d in datasets], dtype="Float64"),
        "dataset.columns": pd.array([len(f) or None for f in features], dtype="Int64"),
    }
    counts = Counter(feature for row in features for feature in row)
    for feature in sorted(name for name, _ in counts.most_common(MAX_FEATURES)):
        used = [feature in row if row else None for row in features]
        columns[f"dataset.feature.{feature}"] = pd.array(used, dtype="boolean")
    return columns


def _tasks(experiments: pd.Series, datasets: Sequence[str | None]) -> list[str]:
    """The experiment; and the data set where the experiment's runs name several."""
    named = pd.Series(list(datasets), index=experiments.index, dtype=object)
    several = named.groupby(experiments).nunique() > 1
    return [
        f"{experiment} / {name}" if several[experiment] and name else str(experiment)
        for experiment, name in zip(experiments, named, strict=True)
    ]


def _primary_metrics(experiments: Iterable[Experiment]) -> dict[str, Objective]:
    """The objectives that teams have set as tags of their experiments."""
    found: dict[str, Objective] = {}
    for experiment in experiments:
        metric = experiment.tags.get("mlflow.experiment.primaryMetric.name")
        greater = experiment.tags.get("mlflow.experiment.primaryMetric.greaterIsBetter", "").lower()
        if metric and greater in ("true", "false"):
            direction = Direction.MAXIMIZE if greater == "true" else Direction.MINIMIZE
            found[experiment.name] = Objective(metric=metric, direction=direction)
    return found
