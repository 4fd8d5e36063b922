"""The tracking store: the one place that reads and writes MLflow.

Ownership. A run belongs to whoever created it, with one exception: a SCHEDULED run that carries
our rank belongs to the worker whose claim it holds, from the claim until it ends. Nothing is ever
deleted, and no run of others is changed.

What may be retried. Reading, always. `schedule` and `save_*` write a run's status last, so that
what died half-way is never taken for whole: it stays RUNNING, or is marked FAILED.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException

from mlflow_meta.dataset import MetaDataset
from mlflow_meta.errors import NothingToLearn, StoreRefused
from mlflow_meta.store import names
from mlflow_meta.store.connection import connect, translated
from mlflow_meta.store.parse import to_dataset
from mlflow_meta.trials import Direction, Objective, Suggestion

_SUGGESTED = [
    "run_id",
    "name",
    "rank",
    "status",
    "created",
    "version",
    "harvest",
    "predicted",
    "std",
    "low",
    "high",
    "got",
]

PAGE = 1000  # runs asked for at once
BATCH = 100  # params, or tags, that MLflow takes in one request


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


class MlflowStore:
    """A tracking server, or the database of one."""

    def __init__(self, tracking_uri: str | None = None) -> None:
        """Open the store; None takes MLFLOW_TRACKING_URI, else ./mlflow.db. See `connect`."""
        self.uri, self.client = connect(tracking_uri)

    @classmethod
    def create(
        cls, tracking_uri: str, experiment_names: Sequence[str], artifacts: Path
    ) -> MlflowStore:
        """Make a new SQLite store with these experiments, and open it.

        Args:
            tracking_uri: `sqlite:///` and an absolute path.
            experiment_names: Names of experiments to make, beside our own.
            artifacts: Folder for their artifacts.
        """
        client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        for name in (names.PROJECT_EXPERIMENT, *experiment_names):
            client.create_experiment(name, artifact_location=(artifacts / name).as_uri())
        return cls(tracking_uri)

    # Reading

    @translated
    def experiments(self, wanted: Sequence[str] = ()) -> list[Experiment]:
        """The active experiments of these names; all but our own where none is named.

        Raises:
            NothingToLearn: If one does not exist; names the ones that are most alike.
        """
        everything: list[Experiment] = []
        token = None
        while True:
            page = self.client.search_experiments(max_results=PAGE, page_token=token)
            everything += page
            token = page.token
            if not token:
                break
        if not wanted:
            return [e for e in everything if e.name != names.PROJECT_EXPERIMENT]
        by_name = {experiment.name: experiment for experiment in everything}
        for name in wanted:
            if name not in by_name:
                near = get_close_matches(name, by_name, n=3, cutoff=0.5) or sorted(by_name)[:5]
                raise NothingToLearn(
                    f"There is no experiment {name!r} on {self.uri}. Did you mean "
                    f"{', '.join(repr(n) for n in near)}?"
                )
        return [by_name[name] for name in dict.fromkeys(wanted)]

    @translated
    def read(
        self, wanted: Sequence[str] = (), *, progress: Callable[[int], None] = lambda _: None
    ) -> MetaDataset:
        """Every run of the experiments that teaches something; all experiments if none is named.

        Args:
            wanted: Names of experiments.
            progress: Called with how many runs have been read so far.
        """
        experiments = self.experiments(wanted)
        runs = self._runs([e.experiment_id for e in experiments], "", progress)
        return to_dataset(runs, experiments)

    def _runs(
        self,
        experiment_ids: list[str],
        filter_string: str,
        progress: Callable[[int], None] = lambda _: None,
    ) -> list[Run]:
        found: dict[str, Run] = {}  # paging is by offset: a run added meanwhile shows twice
        token = None
        while experiment_ids:
            page = self.client.search_runs(
                experiment_ids, filter_string, ViewType.ACTIVE_ONLY, PAGE, page_token=token
            )
            found.update((run.info.run_id, run) for run in page)
            progress(len(found))
            token = page.token
            if not token:
                break
        return list(found.values())

    # Our own runs

    @contextmanager
    def own_run(self, name: str, tags: Mapping[str, str]) -> Iterator[str]:
        """A run in our own experiment: FINISHED when the block ends, FAILED when it raises."""
        run_id = self._create_own_run(name, tags)
        try:
            yield run_id
        except BaseException:
            self._end(run_id, "FAILED")
            raise
        self._end(run_id, "FINISHED")

    @translated
    def _create_own_run(self, name: str, tags: Mapping[str, str]) -> str:
        run = self.client.create_run(
            self._own_experiment(), tags={**_origin(), **tags}, run_name=name
        )
        return str(run.info.run_id)

    def _own_experiment(self) -> str:
        experiment = self.client.get_experiment_by_name(names.PROJECT_EXPERIMENT)
        if experiment is None:
            return str(self.client.create_experiment(names.PROJECT_EXPERIMENT))
        if experiment.lifecycle_stage != "active":
            raise StoreRefused(
                f"The experiment {names.PROJECT_EXPERIMENT!r}, where mlflow-meta keeps harvests "
                "and models, was deleted. Restore it with `mlflow experiments restore "
                f"--experiment-id {experiment.experiment_id}`."
            )
        return str(experiment.experiment_id)

    @translated
    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write params, metrics and tags to a run of ours."""
        now_ms = int(time.time() * 1000)
        pairs = [Param(key, str(value)) for key, value in (params or {}).items()]
        for start in range(0, len(pairs), BATCH):
            self.client.log_batch(run_id, params=pairs[start : start + BATCH])
        self.client.log_batch(
            run_id,
            metrics=[Metric(key, value, now_ms, 0) for key, value in (metrics or {}).items()],
            tags=[RunTag(key, value) for key, value in (tags or {}).items()],
        )

    @translated
    def log_files(self, run_id: str, files: Mapping[str, bytes], folder: str | None = None) -> None:
        """Write artifacts, as file name -> content, to a run of ours."""
        with tempfile.TemporaryDirectory() as scratch:
            for name, content in files.items():
                Path(scratch, name).write_bytes(content)
            self.client.log_artifacts(run_id, scratch, folder)

    @translated
    def file(self, run_id: str, path: str) -> bytes:
        """The content of one artifact of a run."""
        with tempfile.TemporaryDirectory() as scratch:
            return Path(self.client.download_artifacts(run_id, path, scratch)).read_bytes()

    @translated
    def latest(self, kind: str) -> Run | None:
        """Our newest finished run of a kind; None if there is none yet."""
        experiment = self.client.get_experiment_by_name(names.PROJECT_EXPERIMENT)
        if experiment is None or experiment.lifecycle_stage != "active":
            return None
        wanted = f"tags.`{names.KIND}` = '{kind}' and attributes.status = 'FINISHED'"
        found = self.client.search_runs(
            [experiment.experiment_id], wanted, max_results=1, order_by=["attributes.end_time DESC"]
        )
        return found[0] if found else None

    def dataset(self, run_id: str | None = None) -> tuple[str, MetaDataset]:
        """The meta-dataset of a harvest, with the harvest's run id; None for the newest.

        Raises:
            NothingToLearn: If nothing was harvested yet.
        """
        if run_id is None:
            newest = self.latest("harvest")
            if newest is None:
                raise NothingToLearn(
                    f"Nothing was harvested from {self.uri} yet. Run `mlflow-meta harvest` first."
                )
            run_id = newest.info.run_id
        return run_id, MetaDataset.from_parquet(self.file(run_id, names.DATASET_FILE))

    # Suggestions

    @translated
    def schedule(
        self,
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
        (experiment,) = self.experiments([experiment_name])
        # MLflow's runs table shows some 20 characters of a name: the number must be among them.
        name = f"suggested {suggestion.rank}: {suggestion.mean:.4g}"
        all_tags = {
            **_origin(),
            **tags,
            names.RANK: str(suggestion.rank),
            names.METRIC: objective.metric,
            "mlflow.note.content": note,
        }
        run = self.client.create_run(experiment.experiment_id, tags=all_tags, run_name=name)
        run_id = str(run.info.run_id)
        predicted = names.PREDICTED + objective.metric
        self.log(
            run_id,
            params=suggestion.config,
            metrics={
                predicted: _rounded(suggestion.mean),
                f"{predicted}_std": _rounded(suggestion.std),
                f"{predicted}_low": _rounded(suggestion.low),
                f"{predicted}_high": _rounded(suggestion.high),
            },
        )
        self.client.update_run(run_id, status="SCHEDULED")
        return run_id

    @translated
    def share_view(
        self, experiment_name: str, objective: Objective, param_names: Sequence[str]
    ) -> str:
        """Save a view of the runs table that shows predictions, results and params as columns.

        MLflow's UI lists it under Views. By default its table shows neither metrics nor params.

        Returns:
            The address of the view, from the server's root; other UIs than 3.17's may ignore it.
        """
        (experiment,) = self.experiments([experiment_name])
        predicted = names.PREDICTED + objective.metric
        metrics = [predicted, f"{predicted}_std", objective.metric]
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
        self.client.set_experiment_tag(
            experiment.experiment_id, f"mlflow.sharedViewState.{key}", json.dumps(view)
        )
        return (
            f"/#/experiments/{experiment.experiment_id}/runs"
            f"?workflowType=machine_learning&viewStateShareKey={key}"
        )

    @translated
    def scheduled(self, experiment_name: str) -> list[Scheduled]:
        """The suggested runs that wait in an experiment, those of the best rank first.

        Of one rank, the oldest comes first.
        """
        (experiment,) = self.experiments([experiment_name])
        runs = self._runs([experiment.experiment_id], "attributes.status = 'SCHEDULED'")
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
    def claim(self, run_id: str, *, tags: Mapping[str, str]) -> bool:
        """Take a SCHEDULED run; True for exactly one of all workers that try, and `tags` are set.

        A param is written once: of several workers that log their own token, one wins. Nothing
        else in MLflow is such a compare-and-set.
        """
        token = uuid.uuid4().hex
        try:
            self.client.log_param(run_id, names.CLAIM, token)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
        run = self.client.get_run(run_id)
        if run.data.params.get(names.CLAIM) != token or run.info.status != "SCHEDULED":
            return False
        self.log(run_id, tags={**tags, names.STARTED_MS: str(int(time.time() * 1000))})
        self.client.update_run(run_id, status="RUNNING")
        return True

    @translated
    def finish(self, run_id: str, *, succeeded: bool) -> None:
        """End a claimed run; one that its own training has ended already stays as it is."""
        status = self.client.get_run(run_id).info.status
        if status in ("RUNNING", "SCHEDULED"):
            self._end(run_id, "FINISHED" if succeeded else "FAILED")
        elif status == "FINISHED" and not succeeded:
            self._end(run_id, "FAILED")

    @translated
    def _end(self, run_id: str, status: str) -> None:
        # The client's own `set_terminated` prints to standard output, which belongs to our caller.
        self.client._tracking_client.store.update_run_info(
            run_id, RunStatus.from_string(status), int(time.time() * 1000), None
        )

    @translated
    def suggested_configs(self, experiment_name: str) -> list[dict[str, str]]:
        """All that was ever suggested for an experiment, as texts; not to be suggested again."""
        (experiment,) = self.experiments([experiment_name])
        runs = self._runs([experiment.experiment_id], f"tags.`{names.RANK}` != ''")
        return [_own_params(run) for run in runs]

    @translated
    def suggested_objectives(self, experiment_name: str) -> list[Objective]:
        """What the suggestions in an experiment were to improve."""
        (experiment,) = self.experiments([experiment_name])
        runs = self._runs([experiment.experiment_id], f"tags.`{names.RANK}` != ''")
        stated = {
            run.data.tags[names.METRIC]: run.data.tags[names.DIRECTION]
            for run in runs
            if names.METRIC in run.data.tags and names.DIRECTION in run.data.tags
        }
        return [Objective(metric=m, direction=Direction(d)) for m, d in sorted(stated.items())]

    @translated
    def suggested(self, experiment_name: str, metric: str) -> pd.DataFrame:
        """What was suggested for an experiment, what was predicted, and what came of it.

        Returns:
            One row for each run suggested for `metric`, the newest suggestion first and each in
            the order of ranks: `run_id`, `name`, `rank`, `status`, `created` (UTC), `version` (of
            the meta-model), `predicted`, `std`, `low`, `high` (80% interval) and `got`; in the
            metric's own units, NaN for what is not known yet. And `params.<name>` as texts.
        """
        (experiment,) = self.experiments([experiment_name])
        runs = self._runs([experiment.experiment_id], "")
        rows = [
            _suggested_row(run, metric)
            for run in runs
            if run.data.tags.get(names.METRIC) == metric
            and run.data.tags.get(names.RANK, "").isdecimal()
        ]
        frame = pd.DataFrame(rows, columns=None if rows else list(_SUGGESTED))
        batches = frame.sort_values(["harvest", "rank"]) if rows else frame
        newest = batches.sort_values("created", ascending=False)["harvest"].drop_duplicates()
        order = {harvest: i for i, harvest in enumerate(newest)}
        batches = batches.assign(_batch=batches["harvest"].map(order)).sort_values(
            ["_batch", "rank"]
        )
        return batches.drop(columns=["_batch", "harvest"]).reset_index(drop=True)

    @translated
    def try_writing(self) -> None:
        """Write a harmless tag to our own experiment, to see whether we may."""
        experiment_id = self._own_experiment()
        self.client.set_experiment_tag(experiment_id, "mlflow_meta.doctor", str(int(time.time())))

    @translated
    def server_version(self) -> str:
        """Version of the MLflow server; of the installed MLflow where the store is a database."""
        if not self.uri.startswith("http"):
            return str(mlflow.__version__)
        from mlflow.utils.rest_utils import http_request

        answer = http_request(
            self.client._tracking_client.store.get_host_creds(), "/version", "GET", timeout=10
        )
        return answer.text.strip() if answer.ok else "unknown"


def _suggested_row(run: Run, metric: str) -> dict[str, object]:
    metrics, tags = run.data.metrics, run.data.tags
    predicted = names.PREDICTED + metric
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "rank": int(tags[names.RANK]),
        "status": run.info.status,
        "created": pd.Timestamp(run.info.start_time, unit="ms", tz="UTC"),
        "version": tags.get(names.MODEL_VERSION, ""),
        "harvest": tags.get(names.HARVEST_RUN, ""),
        "predicted": metrics.get(predicted, np.nan),
        "std": metrics.get(f"{predicted}_std", np.nan),
        "low": metrics.get(f"{predicted}_low", np.nan),
        "high": metrics.get(f"{predicted}_high", np.nan),
        "got": metrics.get(metric, np.nan) if run.info.status == "FINISHED" else np.nan,
        **{f"params.{k}": v for k, v in _own_params(run).items()},
    }


def _rounded(value: float) -> float:
    """To 6 digits: the UI shows every one there is, and a prediction has no more."""
    return float(f"{value:.6g}")


def _own_params(run: Run) -> dict[str, str]:
    """The params of the training, without ours."""
    return {k: v for k, v in run.data.params.items() if not k.startswith(names.PREFIX)}


def _origin() -> dict[str, str]:
    """Tags that say where a run comes from, which MLflow's fluent API would set by itself."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = os.environ.get("LOGNAME", "unknown")
    return {
        "mlflow.user": user,
        "mlflow.source.name": "mlflow-meta",
        "mlflow.source.type": "LOCAL",
    }
