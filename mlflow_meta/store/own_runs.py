"""Our own experiment: the runs in which harvests, trainings and suggestions are kept.

Ownership. A run is written to by the process that has created it. It says FINISHED last, so that
what died half-way is never taken for whole: it stays RUNNING, or is marked FAILED or KILLED.

Heartbeat. While the process lives, it changes a tag of the run every `BEAT_S`. Who comes later and
finds the tag unchanged for a whole lease ends the run as KILLED. The lease is measured on the clock
of one machine that never goes back: when it saw the tag first is kept as a tag, too, and no clocks
of two machines are compared. An owner that was only stopped says at its end what has become of it.
"""

from __future__ import annotations

import getpass
import hashlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from mlflow_meta.errors import MetaError
from mlflow_meta.store import names
from mlflow_meta.store.contract import Record, Store

BEAT_S = 30.0  # between two heartbeats
LEASE_S = 300.0  # without a heartbeat, after which the owner is taken for dead
TRAININGS = ("train", "candidate", "update")
"""The kinds of runs that who trains begins, and the next who does ends where they were left."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # of Linux, and the same in its containers

log = logging.getLogger(__name__)


@contextmanager
def own_run(store: Store, name: str, tags: Mapping[str, str]) -> Iterator[str]:
    """A new run of ours: FINISHED when the block ends, FAILED when it raises, KILLED by Ctrl-C."""
    token = uuid.uuid4().hex
    first = {names.HEARTBEAT: f"{token} 0"}
    run_id = store.create_run(store.own_experiment_id(), name, {**origin(), **tags, **first})
    try:
        with _beating(store, run_id, token):
            yield run_id
    except BaseException as error:
        store.set_status(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    store.set_status(run_id, "FINISHED")


def end_abandoned(
    store: Store, kinds: Collection[str], *, now_s: float | None = None, lease_s: float = LEASE_S
) -> list[str]:
    """End our runs of some kinds whose owners have died; the ids of these.

    Args:
        store: Where they are.
        kinds: Of which kinds, such as `harvest`.
        now_s: Seconds on a clock of this machine that never goes back, whichever process reads it;
            None for now.
        lease_s: How long a heartbeat must have stood still, as this machine has seen it.
    """
    now_s = time.monotonic() if now_s is None else now_s
    own = store.search_runs(store.own_experiment_id(), status="RUNNING", kind=None)
    dead = []
    for record in (record for record in own if record.tags[names.KIND] in kinds):
        since_s = _seen_since(record)
        if since_s is None or since_s > now_s:  # the machine was started anew
            seen = f"{now_s:.3f} {record.tags.get(names.HEARTBEAT, '')}"
            store.log_batch(record.run_id, tags={_seen_key(): seen})
        elif now_s - since_s >= lease_s:
            log.warning(
                "Who began %s is gone: it is ended as KILLED.",
                record.run_id,
                extra={"action": "end_abandoned", "run_id": record.run_id},
            )
            store.set_status(record.run_id, "KILLED")
            dead.append(record.run_id)
    return dead


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


@contextmanager
def _beating(store: Store, run_id: str, token: str) -> Iterator[None]:
    """Say that we are alive while the block runs."""
    ended = Event()

    def beat() -> None:
        n = 0
        while not ended.wait(BEAT_S):
            n += 1
            with suppress(MetaError):  # the next one may come through
                store.log_batch(run_id, tags={names.HEARTBEAT: f"{token} {n}"})

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _seen_since(record: Record) -> float | None:
    """When this machine saw the heartbeat first that a run still has, in seconds on its clock."""
    since, _, mark = record.tags.get(_seen_key(), "").partition(" ")
    if not since or mark != record.tags.get(names.HEARTBEAT, ""):
        return None
    with suppress(ValueError):
        return float(since)
    return None


def _seen_key() -> str:
    """The tag of what this machine has seen."""
    machine = _BOOT_ID.read_text() if _BOOT_ID.is_file() else socket.gethostname()
    return f"{names.PREFIX}seen.{hashlib.sha256(machine.encode()).hexdigest()[:8]}"
