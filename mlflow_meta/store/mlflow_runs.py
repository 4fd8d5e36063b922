"""MLflow's server, or its database, as the `Store` of the protocol.

Everything that is written goes through the methods of `Store`, but for models, which are the
business of `registry`.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from mlflow.entities import Experiment, Metric, Param, Run, RunTag, ViewType
from mlflow.entities import RunStatus as MlflowStatus
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.utils.rest_utils import http_request
from sqlalchemy import make_url

from mlflow_meta.errors import NothingToLearn, StoreRefused
from mlflow_meta.store import names
from mlflow_meta.store.connection import connect, is_database, translated
from mlflow_meta.store.contract import ENDED, Record, RunStatus
from mlflow_meta.store.descriptions import NOTE, OWN_EXPERIMENT
from mlflow_meta.store.patience import (
    ATTEMPTS,
    Patience,
    Silence,
    Unsure,
    cause,
    is_puzzling,
    patiently,
    waits,
)
from mlflow_meta.store.permissions import check_may_edit, needing
from mlflow_meta.store.rest import content_of

OURS_IN_WORDS = f"the experiment {names.PROJECT_EXPERIMENT!r}, where harvests and models are kept"
PAGE = 1000  # runs asked for at once
BATCH = 100  # params, or tags, that MLflow takes in one request
MAX_POINTS = 900  # of metrics; it takes 1,000

T = TypeVar("T")


class Point(NamedTuple):
    """A point of the history of a metric."""

    key: str
    value: float
    at_ms: int
    step: int


class MlflowRuns:
    """The runs of a tracking server, or of the database of one."""

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        store_uri: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Open the store; None takes MLFLOW_TRACKING_URI, else ./mlflow.db. See `connect`.

        Args:
            tracking_uri: The server, or its database.
            store_uri: The server's database, where runs may be read faster than from the server.
            patience: How long a server is waited for that does not answer; 10 minutes by default.
        """
        self.patience = patience or Patience()
        self.uri, self.client = connect(tracking_uri, self.patience)
        self._ids: dict[str, str] = {}
        self._artifacts: dict[str, ArtifactRepository] = {}
        self._datasets: dict[str, bytes] = {}
        self.database = store_uri or (self.uri if is_database(self.uri) else None)

    @property
    def shown_uri(self) -> str:
        """The store's address for people: without a password, and with the workspace if any."""
        plain = make_url(self.uri).render_as_string() if is_database(self.uri) else self.uri
        return f"{plain}, workspace {self.workspace}" if self.workspace else plain

    @property
    def workspace(self) -> str:
        """The workspace that MLflow's client asks for, by MLFLOW_WORKSPACE; empty for none."""
        return os.environ.get("MLFLOW_WORKSPACE", "").strip()

    # What `contract.Store` promises

    def experiment_id(self, name: str) -> str:
        """See `Store`."""
        if name not in self._ids:
            (experiment,) = self.experiments([name])
            self._ids[name] = str(experiment.experiment_id)
        return self._ids[name]

    @translated
    def check_may_edit(self, experiment_name: str) -> None:
        """See `Store`."""
        if experiment_name == names.PROJECT_EXPERIMENT:
            found = self._experiment(experiment_name, "EDIT", OURS_IN_WORDS)
        else:
            (found,) = self.experiments([experiment_name], needed="EDIT")
        if found is not None:
            check_may_edit(self.client, found)

    @translated
    def own_experiment_id(self) -> str:
        """See `Store`.

        Raises:
            StoreRefused: If it was deleted; says how to restore it.
        """
        name = names.PROJECT_EXPERIMENT
        if name not in self._ids:
            found = self._experiment(name, "EDIT", OURS_IN_WORDS)
            if found is None:
                note = "There is none yet, and this user may make none."
                with needing("EDIT", OURS_IN_WORDS, note=note):
                    self._make_experiment(name, {NOTE: OWN_EXPERIMENT})
                found = self._experiment(name)
            assert found is not None, "an experiment that was made is there"
            if found.lifecycle_stage != "active":
                raise StoreRefused(
                    f"The experiment {name!r}, where mlflow-meta keeps harvests and models, was "
                    "deleted. Restore it with `mlflow experiments restore --experiment-id "
                    f"{found.experiment_id}`."
                )
            self._ids[name] = str(found.experiment_id)
        return self._ids[name]

    @translated
    def experiment_once(self, name: str, tags: Mapping[str, str]) -> Mapping[str, str]:
        """See `Store`."""
        if tags:
            self._make_experiment(name, tags)
        found = self._experiment(name)
        return {} if found is None else dict(found.tags)

    def _experiment(
        self, name: str, needed: str = "READ", what: str | None = None
    ) -> Experiment | None:
        with needing(needed, what or f"the experiment {name!r}"):
            return self._ask(lambda: self.client.get_experiment_by_name(name))

    def _make_experiment(self, name: str, tags: Mapping[str, str]) -> None:
        try:
            self._ask(lambda: self.client.create_experiment(name, tags=dict(tags)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    @translated
    def create_run(
        self, experiment_id: str, name: str, tags: Mapping[str, str], *, start_ms: int | None = None
    ) -> str:
        """See `Store`. What has failed is looked for by a tag before it is done again."""
        nonce = uuid.uuid4().hex
        tags = {**tags, names.NONCE: nonce}
        began = self.patience.clock.monotonic()
        for attempt, wait in enumerate(waits(), start=1):
            try:
                run = self.client.create_run(experiment_id, start_ms, tags, name)
                return str(run.info.run_id)
            except MlflowException as error:
                unsure = cause(error, Unsure)
                is_busy = unsure and unsure.is_for_now
                if not is_busy and (attempt >= ATTEMPTS or not (unsure or is_puzzling(error))):
                    raise
                if made := self.search_runs(experiment_id, nonce=nonce):
                    return min(record.run_id for record in made)
                if self.patience.left_s(began) <= wait:
                    raise Silence(str(error)) from error
            self.patience.clock.sleep(wait)
        raise AssertionError("`waits` has no end")

    @translated
    def log_once(self, run_id: str, key: str, value: str) -> str:
        """See `Store`. What was refused is decided by reading what stands."""
        try:
            self._ask(lambda: self._backend.log_param(run_id, Param(key, value)))
            return value
        except MlflowException as error:
            stands = self.get_run(run_id).params.get(key)
            if stands is None:
                raise
            if stands != value and error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            return stands

    @translated
    def log_batch(
        self,
        run_id: str,
        *,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        at_ms: int | None = None,
    ) -> None:
        """See `Store`."""
        at_ms = int(time.time() * 1000) if at_ms is None else at_ms
        points = [Metric(key, value, at_ms, 0) for key, value in (metrics or {}).items()]
        pairs = [Param(key, str(value)) for key, value in (params or {}).items()]
        texts = [RunTag(key, value) for key, value in (tags or {}).items()]
        for start in range(0, max(len(pairs), len(texts), 1), BATCH):
            part = slice(start, start + BATCH)
            batch = (run_id, [] if start else points, pairs[part], texts[part])
            self._ask(partial(self._backend.log_batch, *batch))

    @translated
    def log_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Add to the histories of a run's metrics; a point that is there already stays one."""
        for start in range(0, len(points), MAX_POINTS):
            part = [Metric(*point) for point in points[start : start + MAX_POINTS]]
            self._ask(partial(self._backend.log_batch, run_id, part, [], []))

    @translated
    def set_status(self, run_id: str, status: RunStatus) -> None:
        """See `Store`."""
        end_ms = int(time.time() * 1000) if status in ENDED else None
        # The client's own `set_terminated` prints to standard output, which belongs to our caller.
        number = MlflowStatus.from_string(status)
        self._ask(lambda: self._backend.update_run_info(run_id, number, end_ms, None))

    @translated
    def get_run(self, run_id: str) -> Record:
        """See `Store`."""
        return record_of(self._ask(lambda: self.client.get_run(run_id)))

    @translated
    def search_runs(
        self, experiment_id: str, *, status: RunStatus | None = None, **tags: str | None
    ) -> list[Record]:
        """See `Store`."""
        terms = [] if status is None else [f"attributes.status = '{status}'"]
        for name, value in tags.items():
            key = names.PREFIX + name
            terms.append(f"tags.`{key}` != ''" if value is None else f"tags.`{key}` = '{value}'")
        runs = self.runs([experiment_id], " and ".join(terms))
        return sorted(map(record_of, runs), key=lambda record: (record.start_ms, record.run_id))

    @translated
    def log_files(self, run_id: str, files: Mapping[str, bytes], folder: str | None = None) -> None:
        """See `Store`."""
        with tempfile.TemporaryDirectory() as scratch:
            for name, content in files.items():
                Path(scratch, name).write_bytes(content)
            self._ask(lambda: self._artifacts_of(run_id).log_artifacts(scratch, folder))

    @translated
    def file(self, run_id: str, path: str) -> bytes:
        """See `Store`."""

        def read() -> bytes:
            artifacts = self._artifacts_of(run_id)
            if isinstance(artifacts, HttpArtifactRepository):
                # Its own way writes what is streamed into a file, where half of it stays half.
                host = artifacts._host_creds
                return content_of(
                    http_request(host, f"/{path}", "GET", max_retries=0, raise_on_status=False)
                )
            with tempfile.TemporaryDirectory() as scratch:
                return Path(artifacts.download_artifacts(path, scratch)).read_bytes()

        return self._ask(read)

    @translated
    def files(self, run_id: str, folder: str) -> dict[str, bytes]:
        """The artifacts of a folder, as file name -> content; those of its folders left out."""
        found = self._ask(lambda: self._artifacts_of(run_id).list_artifacts(folder))
        return {
            PurePosixPath(file.path).name: self.file(run_id, file.path)
            for file in found
            if not file.is_dir
        }

    @translated
    def paths(self, run_id: str, folder: str) -> list[str]:
        """The artifacts of a folder and of all its folders, as paths from the run's root."""
        found = self._ask(lambda: self._artifacts_of(run_id).list_artifacts(folder))
        parts = [self.paths(run_id, f.path) if f.is_dir else [str(f.path)] for f in found]
        return [path for part in parts for path in part]

    def artifact_uri(self, run_id: str) -> str:
        """Where a run's artifacts are."""
        return str(self.client.get_run(run_id).info.artifact_uri)

    def _artifacts_of(self, run_id: str) -> ArtifactRepository:
        if run_id not in self._artifacts:
            uri = self.artifact_uri(run_id)
            self._artifacts[run_id] = get_artifact_repository(uri, tracking_uri=self.uri)
        return self._artifacts[run_id]

    def _ask(self, request: Callable[[], T]) -> T:
        """The answer to what may be repeated; over HTTP it was already, by `PatientAdapter`."""
        return patiently(request) if is_database(self.uri) else request()

    @property
    def _backend(self) -> Any:
        return self.client._tracking_client.store

    # Reading

    def runs(
        self,
        experiment_ids: list[str],
        filter_string: str,
        progress: Callable[[int], None] = lambda _: None,
    ) -> list[Run]:
        """The active runs of some experiments that pass a filter, each once."""
        found: dict[str, Run] = {}  # paging is by offset: a run added meanwhile shows twice
        token: str | None = None
        while experiment_ids:
            asked = (experiment_ids, filter_string, ViewType.ACTIVE_ONLY, PAGE)
            page = self._ask(partial(self.client.search_runs, *asked, page_token=token))
            found.update((run.info.run_id, run) for run in page)
            progress(len(found))
            token = page.token
            if not token:
                break
        return list(found.values())

    @translated
    def experiments(self, wanted: Sequence[str] = (), *, needed: str = "READ") -> list[Experiment]:
        """The active experiments of these names; all but our own where none is named.

        Args:
            wanted: Names of experiments.
            needed: The permission that is asked for where the server hides one.

        Raises:
            NothingToLearn: If one does not exist; names the ones that are most alike.
            NoPermission: If the user may not read one that is named.
        """
        named = [self._experiment(name, needed) for name in dict.fromkeys(wanted)]
        active = [e for e in named if e is not None and e.lifecycle_stage == "active"]
        if wanted and len(active) == len(named):
            return active
        everything: list[Experiment] = []
        token = None
        while True:
            page = self.client.search_experiments(max_results=PAGE, page_token=token)
            everything += page
            token = page.token
            if not token:
                break
        if not wanted:
            return [e for e in everything if e.name not in names.OURS]
        by_name = {experiment.name: experiment for experiment in everything}
        for name in wanted:
            if name not in by_name:
                near = get_close_matches(name, by_name, n=3, cutoff=0.5)
                some = [n for n in sorted(by_name) if n not in names.OURS][:5]
                hint = (
                    f"Did you mean {', '.join(repr(n) for n in near)}?"
                    if near
                    else f"There are, for example: {', '.join(repr(n) for n in some)}."
                )
                raise NothingToLearn(f"There is no experiment {name!r} on {self.shown_uri}. {hint}")
        return [by_name[name] for name in dict.fromkeys(wanted)]


def record_of(run: Run) -> Record:
    """What MLflow's client has read, as the contract has it."""
    info, data = run.info, run.data
    return Record(
        run_id=str(info.run_id),
        experiment_id=str(info.experiment_id),
        name=str(info.run_name or info.run_id),
        status=str(info.status),
        start_ms=int(info.start_time or 0),
        params=dict(data.params),
        metrics=dict(data.metrics),
        tags=dict(data.tags),
    )
