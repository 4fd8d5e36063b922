"""A tracking store in memory that behaves as MLflow's does on a server."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from mlflow_meta.errors import NothingToLearn, StoreRefused
from mlflow_meta.store import names
from mlflow_meta.store.contract import Record, RunStatus

F = TypeVar("F", bound=Callable[..., Any])


def _one_step(method: F) -> F:
    """What others see of it is all of it or nothing."""

    @functools.wraps(method)
    def wrapper(self: InMemoryStore, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return cast(F, wrapper)


class InMemoryStore:
    """A `Store` for tests.

    Example:
        >>> store = InMemoryStore("sweep")
        >>> run_id = store.create_run(store.experiment_id("sweep"), "first", {})
        >>> store.log_once(run_id, "owner", "ann"), store.log_once(run_id, "owner", "bob")
        ('ann', 'ann')
    """

    def __init__(self, *experiment_names: str) -> None:
        """A store with these experiments, beside our own."""
        self.uri = "memory://"
        self._lock = threading.RLock()
        self._experiments: dict[str, tuple[str, dict[str, str]]] = {}
        self._runs: dict[str, Record] = {}
        self._files: dict[tuple[str, str], bytes] = {}
        self._ids = itertools.count(1)
        for name in (names.PROJECT_EXPERIMENT, *experiment_names):
            self._experiments[name] = (str(next(self._ids)), {})

    @_one_step
    def experiment_id(self, name: str) -> str:
        """See `Store`."""
        if name not in self._experiments:
            raise NothingToLearn(f"There is no experiment {name!r} in memory.")
        return self._experiments[name][0]

    def check_may_edit(self, experiment_name: str) -> None:
        """See `Store`: everybody may."""
        self.experiment_id(experiment_name)

    @_one_step
    def own_experiment_id(self) -> str:
        """See `Store`."""
        return self._experiments[names.PROJECT_EXPERIMENT][0]

    @_one_step
    def experiment_once(self, name: str, tags: Mapping[str, str]) -> Mapping[str, str]:
        """See `Store`."""
        if name not in self._experiments and tags:
            self._experiments[name] = (str(next(self._ids)), dict(tags))
        return dict(self._experiments.get(name, ("", {}))[1])

    @_one_step
    def create_run(
        self, experiment_id: str, name: str, tags: Mapping[str, str], *, start_ms: int | None = None
    ) -> str:
        """See `Store`."""
        run_id = f"{next(self._ids):032x}"
        self._runs[run_id] = Record(
            run_id=run_id,
            experiment_id=experiment_id,
            name=name,
            status="RUNNING",
            start_ms=int(time.time() * 1000) if start_ms is None else start_ms,
            tags=dict(tags),
        )
        return run_id

    @_one_step
    def log_once(self, run_id: str, key: str, value: str) -> str:
        """See `Store`."""
        record = self._run(run_id)
        params = {key: value, **record.params}
        self._runs[run_id] = replace(record, params=params)
        return params[key]

    @_one_step
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
        record = self._run(run_id)
        texts = {key: str(value) for key, value in (params or {}).items()}
        for key in texts.keys() & record.params.keys():
            if texts[key] != record.params[key]:
                raise StoreRefused(f"The param {key!r} of {run_id} has another value already.")
        self._runs[run_id] = replace(
            record,
            params={**record.params, **texts},
            metrics={**record.metrics, **(metrics or {})},
            tags={**record.tags, **(tags or {})},
        )

    @_one_step
    def set_status(self, run_id: str, status: RunStatus) -> None:
        """See `Store`."""
        self._runs[run_id] = replace(self._run(run_id), status=status)

    @_one_step
    def get_run(self, run_id: str) -> Record:
        """See `Store`."""
        return self._run(run_id)

    @_one_step
    def search_runs(
        self, experiment_id: str, *, status: RunStatus | None = None, **tags: str | None
    ) -> list[Record]:
        """See `Store`."""
        found = [
            record
            for record in self._runs.values()
            if record.experiment_id == experiment_id
            and status in (None, record.status)
            and all(_has(record, names.PREFIX + name, value) for name, value in tags.items())
        ]
        return sorted(found, key=lambda record: (record.start_ms, record.run_id))

    @_one_step
    def log_files(self, run_id: str, files: Mapping[str, bytes], folder: str | None = None) -> None:
        """See `Store`."""
        self._run(run_id)
        for name, content in files.items():
            self._files[run_id, f"{folder}/{name}" if folder else name] = content

    @_one_step
    def file(self, run_id: str, path: str) -> bytes:
        """See `Store`."""
        if (run_id, path) not in self._files:
            raise StoreRefused(f"The run {run_id} has no artifact {path!r}.")
        return self._files[run_id, path]

    def _run(self, run_id: str) -> Record:
        if run_id not in self._runs:
            raise StoreRefused(f"There is no run {run_id!r} in memory.")
        return self._runs[run_id]


def _has(record: Record, key: str, value: str | None) -> bool:
    return bool(record.tags.get(key)) if value is None else record.tags.get(key) == value
