"""Lineage: what runs, model versions and harvests say of where they come from; read, never written.

A suggested run names its batch, model version and harvest in tags; a training its harvest in a
param; a model version its training; a harvest its runs in the meta-dataset.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from mlflow_meta.dataset import parquet
from mlflow_meta.errors import NothingToLearn, StoreError, StoreRefused
from mlflow_meta.store import names
from mlflow_meta.store.connection import translated
from mlflow_meta.store.mlflow_store import MlflowStore
from mlflow_meta.store.versions import Version, made_by

MAX_HARVESTS = 20  # the newest, whose meta-datasets are looked into for a run
MAX_TRAININGS = 200  # the newest, and as many updates
MAX_SUGGESTED = 1000  # the newest runs that were suggested, and as many batches
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such run; no id at all

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A run, and what it says of others. A text is empty where it says nothing.

    Attributes:
        run_id: Its id.
        experiment_id: Its experiment,
        experiment: and that one's name.
        name: Its name.
        status: Its status; DELETED if it is deleted.
        created_ms: When it was made.
        kind: `harvest`, `train`, `candidate`, `update` or `suggest` where it is one of ours.
        rank: Its rank where it was suggested.
        suggest_run_id: The run of that batch.
        version: Name and version of the model that suggested it, with a slash between.
        harvest_run_id: The harvest that it was suggested or trained from.
        nearest_run_id: The run that was nearest when it was suggested.
        attempt: Which attempt at its configuration it is.
        previous_run_id: The attempt before.
        parent_run_id: The run that it is nested in.
        updated_from: The version that an update has started from.
        spellings: The metric that it was to improve, as runs may log it.
        metrics: What it has logged.
    """

    run_id: str
    experiment_id: str
    experiment: str
    name: str
    status: str
    created_ms: int
    kind: str
    rank: str
    suggest_run_id: str
    version: str
    harvest_run_id: str
    nearest_run_id: str
    attempt: str
    previous_run_id: str
    parent_run_id: str
    updated_from: str
    spellings: tuple[str, ...]
    metrics: Mapping[str, float]

    @property
    def batch_id(self) -> str:
        """What the runs that were suggested together have in common."""
        return self.suggest_run_id or self.run_id

    @property
    def predicted(self) -> float:
        """What was predicted when it was suggested; nan where nothing was."""
        return self.metrics.get(names.PREDICTED + "".join(self.spellings[:1]), math.nan)

    def got(self, spellings: Sequence[str]) -> float:
        """Its first finite value of a metric, by any of its names; nan until it has finished."""
        values = [self.metrics.get(name, math.nan) for name in spellings]
        if self.status != "FINISHED":
            return math.nan
        return next((value for value in values if math.isfinite(value)), math.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What of ours is looked at, each the newest first.

    Attributes:
        harvests: Finished harvests.
        trainings: Trainings and updates.
        batches: Runs of the batches that have one.
        suggested: Suggested runs, of all experiments.
        versions: The versions that the trainings have made.
        remarks: What is older and was not looked at, as sentences.
    """

    harvests: Sequence[Record]
    trainings: Sequence[Record]
    batches: Sequence[Record]
    suggested: Sequence[Record]
    versions: Sequence[Version]
    remarks: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The runs that a harvest has read.

    Attributes:
        experiments: Id -> experiment, of each run that is a trial.
        left_out: Id -> reason, of each that is none.
    """

    experiments: Mapping[str, str]
    left_out: Mapping[str, str]


@translated
def find(store: MlflowStore, run_id: str) -> Record:
    """The run of an id, deleted or not.

    Raises:
        StoreRefused: If there is none.
    """
    try:
        run = store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        raise StoreRefused(
            f"There is no run {run_id!r} on {store.shown_uri}. Copy the id of one from its page in "
            "MLflow's UI, or from what `mlflow-meta report --json` prints."
        ) from error
    experiment = store.client.get_experiment(run.info.experiment_id)
    return _record(run, {experiment.experiment_id: experiment.name})


@translated
def records(store: MlflowStore) -> Records:
    """What of ours there is, as far as it is looked at."""
    remarks: list[str] = []
    own = store.client.get_experiment_by_name(names.PROJECT_EXPERIMENT)
    others = {e.experiment_id: e.name for e in store.experiments()}

    def newest(what: str, where: Mapping[str, str], passing: str, most: int) -> list[Record]:
        found = store.client.search_runs(
            list(where), passing, ViewType.ACTIVE_ONLY, most + 1, ["attributes.start_time DESC"]
        )
        if len(found) > most:
            remarks.append(f"Only the newest {most} {what} were looked at.")
        return [_record(run, where) for run in found[:most]]

    def ours(what: str, kind: str, most: int, also: str = "") -> list[Record]:
        if own is None:
            return []
        passing = f"tags.`{names.KIND}` = '{kind}'{also}"
        return newest(what, {own.experiment_id: own.name}, passing, most)

    finished = " and attributes.status = 'FINISHED'"
    trainings = [
        *ours("trainings", "train", MAX_TRAININGS),
        *ours("updates", "update", MAX_TRAININGS),
    ]
    passing = f"tags.`{names.RANK}` != ''"
    return Records(
        harvests=ours("harvests", "harvest", MAX_HARVESTS, finished),
        trainings=trainings,
        batches=ours("batches", "suggest", MAX_SUGGESTED),
        suggested=newest("suggested runs", others, passing, MAX_SUGGESTED) if others else [],
        versions=made_by(store, [run.run_id for run in trainings]),
        remarks=remarks,
    )


@translated
def sources(store: MlflowStore, harvest_run_id: str) -> Sources | None:
    """The runs that a harvest has read; None if its meta-dataset is gone or of another version."""
    try:
        content = store.file(harvest_run_id, names.DATASET_FILE)
        runs, left_out, notes = parquet.read(content, ["run_id", "experiment"])
    except (StoreError, NothingToLearn) as error:
        log.warning(
            "The meta-dataset of the harvest %s can't be read (%s).",
            harvest_run_id,
            error,
            extra={"action": "skip_harvest", "run_id": harvest_run_id},
        )
        return None
    trials = runs.iloc[: notes["n_trials"]]
    return Sources(
        experiments=dict(zip(trials["run_id"], trials["experiment"].astype(str), strict=True)),
        left_out=dict(zip(left_out["run_id"], left_out["reason"].astype(str), strict=True)),
    )


def _record(run: Run, experiments: Mapping[str, str]) -> Record:
    tags, params = run.data.tags, run.data.params
    kind = tags.get(names.KIND, "")
    is_learned = kind in ("train", "update")
    return Record(
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        experiment=experiments[run.info.experiment_id],
        name=run.info.run_name or "",
        status=run.info.status if run.info.lifecycle_stage == "active" else "DELETED",
        created_ms=run.info.start_time or 0,
        kind=kind,
        rank=tags.get(names.RANK, ""),
        suggest_run_id=tags.get(names.SUGGEST_RUN, ""),
        version=tags.get(names.MODEL_VERSION, ""),
        harvest_run_id=(
            params.get("harvest_run_id", "") if is_learned else tags.get(names.HARVEST_RUN, "")
        ),
        nearest_run_id=tags.get(names.NEAREST_RUN, ""),
        attempt=tags.get(names.ATTEMPT, ""),
        previous_run_id=tags.get(names.PREVIOUS_RUN, ""),
        parent_run_id=tags.get("mlflow.parentRunId", ""),
        updated_from=params.get("updated_from", "") if is_learned else "",
        spellings=_spellings(tags),
        metrics=dict(run.data.metrics),
    )


def _spellings(tags: Mapping[str, str]) -> tuple[str, ...]:
    if names.METRIC not in tags:
        return ()
    with suppress(ValueError):  # somebody may have edited it
        aliases = json.loads(tags.get(names.ALIASES, "[]"))
        if isinstance(aliases, list):
            return (tags[names.METRIC], *map(str, aliases))
    return (tags[names.METRIC],)
