"""Our own experiment: the runs in which harvests, trainings and suggestions are kept.

Ownership. A run is written to by the process that has created it. It says FINISHED last, so that
what died half-way is never taken for whole: it stays RUNNING, or is marked FAILED.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mlflow_meta.store.contract import Store


@contextmanager
def own_run(store: Store, name: str, tags: Mapping[str, str]) -> Iterator[str]:
    """A new run of ours: FINISHED when the block ends, FAILED when it raises."""
    run_id = store.create_run(store.own_experiment_id(), name, {**origin(), **tags})
    try:
        yield run_id
    except BaseException:
        store.set_status(run_id, "FAILED")
        raise
    store.set_status(run_id, "FINISHED")


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
