"""The tracking store: where runs are read, many at once, and written, one by one."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.utils.rest_utils import http_request

from mlflow_meta.dataset import MetaDataset
from mlflow_meta.errors import NothingToLearn, StoreError, Unreadable
from mlflow_meta.store import names
from mlflow_meta.store.connection import translated
from mlflow_meta.store.contract import Record
from mlflow_meta.store.histories import read_curves, source
from mlflow_meta.store.mlflow_runs import OURS_IN_WORDS, MlflowRuns, record_of
from mlflow_meta.store.parse import to_dataset
from mlflow_meta.store.parts import read_in_parts
from mlflow_meta.store.permissions import needing
from mlflow_meta.store.rest import over, read_changed, read_rest
from mlflow_meta.store.runs import Runs, joined
from mlflow_meta.store.signatures import Signatures, ask_models
from mlflow_meta.store.signatures import over as models_over
from mlflow_meta.store.sql import read_sql
from mlflow_meta.store.texts import without_secrets

log = logging.getLogger(__name__)

DATASETS_KEPT = 3  # harvests, as bytes: the newest, the champion's and the challenger's


class MlflowStore(MlflowRuns):
    """A tracking server, or the database of one; reading may always be repeated."""

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
        executor: Executor | None = None,
    ) -> Runs:
        """Every active run of some experiments: from the database where it can be read.

        Args:
            experiments: Which.
            progress: Called with how many runs have been read so far; what it raises ends it.
            curves: Patterns of the metrics whose curves are read too, see `curves.wanted`.
            executor: Where parts of the experiments are read side by side; None for here. Workers
                open the store for themselves, and so need its addresses, drivers and passwords.
                What is read of a database is then of one moment within a part only.
        """
        if self.database is not None:
            try:
                return self._read(experiments, progress, curves, executor)
            except Unreadable as error:
                log.warning(
                    "The database can't be read directly (%s): reading over REST.",
                    error,
                    extra={"action": "fall_back_to_rest"},
                )
                self.database = None
        return self._read(experiments, progress, curves, executor)

    def _read(
        self,
        experiments: Sequence[Experiment],
        progress: Callable[[int], None],
        curves: Sequence[str],
        executor: Executor | None,
    ) -> Runs:
        """From the database where there is one, and else over REST."""
        if executor is not None and len(experiments) > 1:
            read = partial(_read_part, self.uri, self.database, curves)
            return read_in_parts(executor, read, experiments, progress)
        if self.database is not None:
            named = {e.experiment_id: e.name for e in experiments}
            return read_sql(self.database, named, progress, patterns=curves)
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

    @translated
    def latest(self, kind: str, **tags: str) -> Record | None:
        """Our newest finished run of a kind, with these tags of ours; None if there is none."""
        terms = ["attributes.status = 'FINISHED'"]
        for name, value in {"kind": kind, **tags}.items():
            terms.append(f"tags.`{names.PREFIX}{name}` = '{value}'")
        experiment = self._experiment(names.PROJECT_EXPERIMENT)
        if experiment is None or experiment.lifecycle_stage != "active":
            return None
        found = self._ask(
            lambda: self.client.search_runs(
                [experiment.experiment_id],
                " and ".join(terms),
                max_results=1,
                order_by=["attributes.end_time DESC"],
            )
        )
        return record_of(found[0]) if found else None

    @translated
    def try_writing(self) -> None:
        """Write a harmless tag to our own experiment, to see whether we may."""
        experiment_id = self.own_experiment_id()
        with needing("EDIT", OURS_IN_WORDS):
            self.client.set_experiment_tag(
                experiment_id, "mlflow_meta.doctor", str(int(time.time()))
            )

    @translated
    def server_version(self) -> str:
        """Version of the MLflow server; of the installed MLflow where the store is a database."""
        if not self.uri.startswith("http"):
            return str(mlflow.__version__)
        answer = http_request(
            self.client._tracking_client.store.get_host_creds(), "/version", "GET", timeout=10
        )
        return answer.text.strip() if answer.ok else "unknown"

    def dataset(self, run_id: str | None = None) -> tuple[str, MetaDataset]:
        """The meta-dataset of a harvest, with the harvest's run id; None for the newest.

        Raises:
            NothingToLearn: If nothing was harvested yet.
        """
        if run_id is None:
            newest = self.latest("harvest")
            if newest is None:
                raise NothingToLearn(
                    f"Nothing was harvested from {self.shown_uri} yet. Run `mlflow-meta harvest` "
                    "first."
                )
            return newest.run_id, self._dataset(newest.run_id)
        return run_id, self._dataset(run_id)

    def _dataset(self, run_id: str) -> MetaDataset:
        # A harvest never changes, and a cycle asks for the same one in each of its steps.
        if run_id not in self._datasets:
            content = self.file(run_id, names.DATASET_FILE)
            kept = list(self._datasets.items())[1 - DATASETS_KEPT :]
            self._datasets = {**dict(kept), run_id: content}
        return MetaDataset.from_parquet(self._datasets[run_id])


def _read_part(
    uri: str, database: str | None, curves: Sequence[str], experiments: Sequence[Experiment]
) -> Runs:
    """The runs of some experiments, read by a worker, which opens the store for itself."""
    try:
        store = MlflowStore(uri)
        store.database = database
        return store._read(experiments, lambda _: None, curves, None)
    except StoreError as error:
        raise type(error)(f"On the worker {socket.gethostname()}: {error}") from error
