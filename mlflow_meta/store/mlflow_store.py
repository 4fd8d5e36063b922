"""The tracking store: the one place that reads and writes MLflow.

Ownership. Here we write to runs of our own experiment only; suggested runs are the business of
`queue`, models of `registry`. Nothing is ever deleted, and no run of others is changed.

What may be retried. Reading, always. A run of ours says FINISHED last, so that what died half-way
is never taken for whole: it stays RUNNING, or is marked FAILED.
"""

from __future__ import annotations

import getpass
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunStatus, RunTag, ViewType
from sqlalchemy import make_url

from mlflow_meta.dataset import MetaDataset
from mlflow_meta.errors import NothingToLearn, StoreRefused, Unreadable
from mlflow_meta.store import names
from mlflow_meta.store.connection import connect, is_database, translated
from mlflow_meta.store.parse import to_dataset
from mlflow_meta.store.rest import over, read_changed, read_rest
from mlflow_meta.store.runs import Runs, joined, without_secrets
from mlflow_meta.store.signatures import Signatures, ask_models
from mlflow_meta.store.signatures import over as models_over
from mlflow_meta.store.sql import read_sql

log = logging.getLogger(__name__)

PAGE = 1000  # runs asked for at once
BATCH = 100  # params, or tags, that MLflow takes in one request


class MlflowStore:
    """A tracking server, or the database of one."""

    def __init__(self, tracking_uri: str | None = None, *, store_uri: str | None = None) -> None:
        """Open the store; None takes MLFLOW_TRACKING_URI, else ./mlflow.db. See `connect`.

        Args:
            tracking_uri: The server, or its database.
            store_uri: The server's database, where runs may be read faster than from the server.
        """
        self.uri, self.client = connect(tracking_uri)
        self.database = store_uri or (self.uri if is_database(self.uri) else None)

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

    @property
    def shown_uri(self) -> str:
        """The store's address for people: without a password."""
        return make_url(self.uri).render_as_string() if is_database(self.uri) else self.uri

    # Reading

    @translated
    def experiments(self, wanted: Sequence[str] = ()) -> list[Experiment]:
        """The active experiments of these names; all but our own where none is named.

        Raises:
            NothingToLearn: If one does not exist; names the ones that are most alike.
        """
        named = [self.client.get_experiment_by_name(name) for name in dict.fromkeys(wanted)]
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

    def read(
        self,
        wanted: Sequence[str] = (),
        *,
        tags: Sequence[str] = ("*",),
        progress: Callable[[int], None] = lambda _: None,
    ) -> MetaDataset:
        """Every run of the experiments that teaches something; all experiments if none is named.

        Args:
            wanted: Names of experiments.
            tags: Patterns of the users' tags that become columns.
            progress: Called with how many runs have been read so far.
        """
        experiments = self.experiments(wanted)
        return self.dataset_of(self.read_all(experiments, progress), experiments, tags=tags)

    @translated
    def read_all(
        self, experiments: Sequence[Experiment], progress: Callable[[int], None] = lambda _: None
    ) -> Runs:
        """Every active run of some experiments: from the database where it can be read.

        Args:
            experiments: Which.
            progress: Called with how many runs have been read so far; what it raises ends it.
        """
        if self.database is not None:
            try:
                named = {e.experiment_id: e.name for e in experiments}
                return without_secrets(read_sql(self.database, named, progress))
            except Unreadable as error:
                log.warning(
                    "The database can't be read directly (%s): reading over REST.",
                    error,
                    extra={"action": "fall_back_to_rest"},
                )
                self.database = None
        ids = [e.experiment_id for e in experiments]
        return without_secrets(read_rest(over(self.client), ids, progress))

    @translated
    def read_since(
        self,
        experiments: Sequence[Experiment],
        before: Runs,
        since_ms: int,
        progress: Callable[[int], None] = lambda _: None,
    ) -> tuple[Runs, int]:
        """The active runs, of which those that have not changed are taken from `before`.

        Args:
            experiments: Which.
            before: What was read last time.
            since_ms: When that began, less what clocks may differ by.
            progress: Called with how many runs have been read so far; what it raises ends it.

        Returns:
            The runs, and how many of them were read anew. Edited tags, deletions and restorations
            of runs that ended earlier are not seen.
        """
        ids = [e.experiment_id for e in experiments]
        open_ids = before.open_ids()
        fresh = read_changed(
            over(self.client), ids, since_ms=since_ms, open_ids=open_ids, check=progress
        )
        kept = before.without(open_ids).ended_before(since_ms)
        return without_secrets(joined([kept, fresh])), len(fresh)

    def signatures(
        self,
        runs: Runs,
        before: Signatures,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Signatures:
        """What models say of the data of runs that tell nothing of it; see `ask_models`."""
        return ask_models(models_over(self.client), runs, before, progress)

    def dataset_of(
        self, runs: Runs, experiments: Sequence[Experiment], *, tags: Sequence[str] = ("*",)
    ) -> MetaDataset:
        """The meta-dataset of what was read."""
        return to_dataset(runs, experiments, now_ms=int(time.time() * 1000), tags=tags)

    def runs(
        self,
        experiment_ids: list[str],
        filter_string: str,
        progress: Callable[[int], None] = lambda _: None,
    ) -> list[Run]:
        """The active runs of some experiments that pass a filter, each once."""
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
            self.end(run_id, "FAILED")
            raise
        self.end(run_id, "FINISHED")

    @translated
    def _create_own_run(self, name: str, tags: Mapping[str, str]) -> str:
        run = self.client.create_run(
            self._own_experiment(), tags={**origin(), **tags}, run_name=name
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
    def latest(self, kind: str, tags: Mapping[str, str] | None = None) -> Run | None:
        """Our newest finished run of a kind, with these tags; None if there is none yet."""
        experiment = self.client.get_experiment_by_name(names.PROJECT_EXPERIMENT)
        if experiment is None or experiment.lifecycle_stage != "active":
            return None
        wanted = " and ".join(
            [
                "attributes.status = 'FINISHED'",
                *(
                    f"tags.`{key}` = '{text}'"
                    for key, text in {names.KIND: kind, **(tags or {})}.items()
                ),
            ]
        )
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

    @translated
    def end(self, run_id: str, status: str) -> None:
        """End a run of ours, or one that a worker of ours has claimed."""
        # The client's own `set_terminated` prints to standard output, which belongs to our caller.
        self.client._tracking_client.store.update_run_info(
            run_id, RunStatus.from_string(status), int(time.time() * 1000), None
        )

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


def origin() -> dict[str, str]:
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
