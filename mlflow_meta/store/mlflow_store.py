"""The tracking store: where runs are read.

Ownership. Here nothing is written: runs of our own experiment are the business of `own_runs`,
suggested runs of `queue`, models of `registry`. Nothing is ever deleted, and no run of others is
changed. Reading may always be repeated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from sqlalchemy import make_url

from mlflow_meta.dataset import MetaDataset
from mlflow_meta.errors import NothingToLearn, Unreadable
from mlflow_meta.store import names
from mlflow_meta.store.connection import connect, is_database, translated
from mlflow_meta.store.histories import read_curves, source
from mlflow_meta.store.own_runs import OwnRuns
from mlflow_meta.store.parse import to_dataset
from mlflow_meta.store.rest import over, read_changed, read_rest
from mlflow_meta.store.runs import Runs, joined
from mlflow_meta.store.signatures import Signatures, ask_models
from mlflow_meta.store.signatures import over as models_over
from mlflow_meta.store.sql import read_sql
from mlflow_meta.store.texts import without_secrets

log = logging.getLogger(__name__)

PAGE = 1000  # runs asked for at once


class MlflowStore:
    """A tracking server, or the database of one."""

    def __init__(self, tracking_uri: str | None = None, *, store_uri: str | None = None) -> None:
        """Open the store; None takes MLFLOW_TRACKING_URI, else ./mlflow.db. See `connect`.

        Args:
            tracking_uri: The server, or its database.
            store_uri: The server's database, where runs may be read faster than from the server.
        """
        self.uri, self.client = connect(tracking_uri)
        self.own = OwnRuns(self.client)
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
                    f"There is no experiment {name!r} on {self.shown_uri}. Did you mean "
                    f"{', '.join(repr(n) for n in near)}?"
                )
        return [by_name[name] for name in dict.fromkeys(wanted)]

    def read(
        self,
        wanted: Sequence[str] = (),
        *,
        tags: Sequence[str] = ("*",),
        curves: Sequence[str] = (),
        progress: Callable[[int], None] = lambda _: None,
    ) -> MetaDataset:
        """Every run of the experiments that teaches something; all experiments if none is named.

        Args:
            wanted: Names of experiments.
            tags: Patterns of the users' tags that become columns.
            curves: Patterns of the metrics whose curves are read too.
            progress: Called with how many runs have been read so far.
        """
        experiments = self.experiments(wanted)
        runs = self.read_all(experiments, progress, curves=curves)
        return self.dataset_of(runs, experiments, tags=tags)

    @translated
    def read_all(
        self,
        experiments: Sequence[Experiment],
        progress: Callable[[int], None] = lambda _: None,
        *,
        curves: Sequence[str] = (),
    ) -> Runs:
        """Every active run of some experiments: from the database where it can be read.

        Args:
            experiments: Which.
            progress: Called with how many runs have been read so far; what it raises ends it.
            curves: Patterns of the metrics whose curves are read too, see `curves.wanted`.
        """
        if self.database is not None:
            try:
                named = {e.experiment_id: e.name for e in experiments}
                return read_sql(self.database, named, progress, patterns=curves)
            except Unreadable as error:
                log.warning(
                    "The database can't be read directly (%s): reading over REST.",
                    error,
                    extra={"action": "fall_back_to_rest"},
                )
                self.database = None
        ids = [e.experiment_id for e in experiments]
        runs = read_rest(over(self.client), ids, progress)
        return self._with_curves(runs, curves, progress)

    def _with_curves(
        self, runs: Runs, patterns: Sequence[str], progress: Callable[[int], None]
    ) -> Runs:
        if not patterns:
            return runs
        found = read_curves(source(self.client), runs, patterns, progress)
        return replace(runs, curves=found)

    @translated
    def read_since(
        self,
        experiments: Sequence[Experiment],
        before: Runs,
        since_ms: int,
        progress: Callable[[int], None] = lambda _: None,
        *,
        curves: Sequence[str] = (),
    ) -> tuple[Runs, int]:
        """The active runs, of which those that have not changed are taken from `before`.

        Args:
            experiments: Which.
            before: What was read last time.
            since_ms: When that began, less what clocks may differ by.
            progress: Called with how many runs have been read so far; what it raises ends it.
            curves: Patterns of the metrics whose curves are read too: the same as last time.

        Returns:
            The runs, and how many of them were read anew. Edited tags, deletions and restorations
            of runs that ended earlier are not seen.
        """
        ids = [e.experiment_id for e in experiments]
        open_ids = before.open_ids()
        fresh = read_changed(
            over(self.client), ids, since_ms=since_ms, open_ids=open_ids, check=progress
        )
        fresh = self._with_curves(fresh, curves, progress)
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

    def dataset(self, run_id: str | None = None) -> tuple[str, MetaDataset]:
        """The meta-dataset of a harvest, with the harvest's run id; None for the newest.

        Raises:
            NothingToLearn: If nothing was harvested yet.
        """
        if run_id is None:
            newest = self.own.latest("harvest")
            if newest is None:
                raise NothingToLearn(
                    f"Nothing was harvested from {self.shown_uri} yet. Run `mlflow-meta harvest` "
                    "first."
                )
            return newest.info.run_id, self._dataset(newest)
        return run_id, self._dataset(run_id)

    def _dataset(self, run: Run | str) -> MetaDataset:
        return MetaDataset.from_parquet(self.own.file(run, names.DATASET_FILE))

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
