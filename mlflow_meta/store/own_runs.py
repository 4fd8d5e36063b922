"""Our own experiment: the runs in which harvests and trainings of meta-models are kept.

Ownership. A run is written to by the process that has created it. It says FINISHED last, so that
what died half-way is never taken for whole: it stays RUNNING, or is marked FAILED.
"""

from __future__ import annotations

import getpass
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunStatus, RunTag
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlflow_meta.errors import StoreRefused
from mlflow_meta.store import names
from mlflow_meta.store.connection import translated

BATCH = 100  # params, or tags, that MLflow takes in one request


class OwnRuns:
    """The runs of our own experiment, of one store."""

    def __init__(self, client: MlflowClient) -> None:
        """Nothing is asked or made before it is needed."""
        self._client = client
        self._known: Experiment | None = None
        self._created: dict[str, Run] = {}  # spares asking for what we have just been told

    @contextmanager
    def run(self, name: str, tags: Mapping[str, str]) -> Iterator[str]:
        """A new run: FINISHED when the block ends, FAILED when it raises."""
        run_id = self._create(name, tags)
        try:
            yield run_id
        except BaseException:
            self.end(run_id, "FAILED")
            raise
        self.end(run_id, "FINISHED")

    @translated
    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(
            self.experiment_id(), tags={**origin(), **tags}, run_name=name
        )
        self._created[run.info.run_id] = run
        return str(run.info.run_id)

    @translated
    def experiment_id(self) -> str:
        """The experiment's id; makes it where there is none.

        Raises:
            StoreRefused: If it was deleted; says how to restore it.
        """
        experiment = self._experiment()
        if experiment is None:
            return str(self._client.create_experiment(names.PROJECT_EXPERIMENT))
        if experiment.lifecycle_stage != "active":
            raise StoreRefused(
                f"The experiment {names.PROJECT_EXPERIMENT!r}, where mlflow-meta keeps harvests "
                "and models, was deleted. Restore it with `mlflow experiments restore "
                f"--experiment-id {experiment.experiment_id}`."
            )
        return str(experiment.experiment_id)

    def _experiment(self) -> Experiment | None:
        if self._known is None or self._known.lifecycle_stage != "active":
            self._known = self._client.get_experiment_by_name(names.PROJECT_EXPERIMENT)
        return self._known

    @translated
    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write params, metrics and tags to a run of ours, or one that a worker has claimed."""
        now_ms = int(time.time() * 1000)
        pairs = [Param(key, str(value)) for key, value in (params or {}).items()]
        self._client.log_batch(
            run_id,
            params=pairs[:BATCH],
            metrics=[Metric(key, value, now_ms, 0) for key, value in (metrics or {}).items()],
            tags=[RunTag(key, value) for key, value in (tags or {}).items()],
        )
        for start in range(BATCH, len(pairs), BATCH):
            self._client.log_batch(run_id, params=pairs[start : start + BATCH])

    @translated
    def log_files(self, run_id: str, files: Mapping[str, bytes], folder: str | None = None) -> None:
        """Write artifacts, as file name -> content, to a run of ours."""
        run = self._created.get(run_id) or self._client.get_run(run_id)
        with tempfile.TemporaryDirectory() as scratch:
            for name, content in files.items():
                Path(scratch, name).write_bytes(content)
            self._artifacts(run).log_artifacts(scratch, folder)

    @translated
    def file(self, run: Run | str, path: str) -> bytes:
        """The content of one artifact of a run, or of the run of an id."""
        if isinstance(run, str):
            run = self._client.get_run(run)
        with tempfile.TemporaryDirectory() as scratch:
            return Path(self._artifacts(run).download_artifacts(path, scratch)).read_bytes()

    def _artifacts(self, run: Run) -> ArtifactRepository:
        return get_artifact_repository(
            run.info.artifact_uri, tracking_uri=self._client.tracking_uri
        )

    @translated
    def latest(self, kind: str, tags: Mapping[str, str] | None = None) -> Run | None:
        """Our newest finished run of a kind, with these tags; None if there is none yet."""
        experiment = self._experiment()
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
        found = self._client.search_runs(
            [experiment.experiment_id], wanted, max_results=1, order_by=["attributes.end_time DESC"]
        )
        return found[0] if found else None

    @translated
    def end(self, run_id: str, status: str) -> None:
        """End a run of ours, or one that a worker of ours has claimed."""
        self._created.pop(run_id, None)
        # The client's own `set_terminated` prints to standard output, which belongs to our caller.
        self._client._tracking_client.store.update_run_info(
            run_id, RunStatus.from_string(status), int(time.time() * 1000), None
        )

    @translated
    def try_writing(self) -> None:
        """Write a harmless tag to our own experiment, to see whether we may."""
        self._client.set_experiment_tag(
            self.experiment_id(), "mlflow_meta.doctor", str(int(time.time()))
        )


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
