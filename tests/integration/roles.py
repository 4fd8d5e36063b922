"""What processes of the tests do; those with a `start` are called as `Racers.race` says."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Param
from world import World, item

from mlflow_meta.attempt import Outcome
from mlflow_meta.errors import MetaError
from mlflow_meta.services.work import Rules, work
from mlflow_meta.store import MlflowStore, plans, queue
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.publish import publish
from mlflow_meta.store.sweep import sweep

NAIVE_KEY = "naive.key"

Start = Callable[[], object]


def elects(start: Start, _: int, uri: str, experiment_id: str) -> str:
    """The ledger of an experiment."""
    store = MlflowStore(uri)
    start()
    return Ledger.of(store, experiment_id).run_id


def publishes(start: Start, _: int, uri: str, experiment_id: str, n: int) -> list[str]:
    """The runs of a plan of `n` suggestions."""
    ledger = Ledger.of(MlflowStore(uri), experiment_id)
    items = [item(i) for i in range(n)]
    start()
    return publish(ledger, plans.decide(ledger, plans.digest(["race"]), items, {}, {}))


def claims(start: Start, _: int, uri: str, run_ids: Sequence[str]) -> list[str | None]:
    """The token that each run was claimed with; None where others were faster."""
    store = MlflowStore(uri)
    tokens = []
    for run_id in run_ids:
        start()
        claim = queue.claim(store, run_id, tags={})
        tokens.append(claim.token if claim else None)
    return tokens


def suggests(start: Start, i: int, uri: str, experiment_id: str, n: int) -> list[str]:
    """A cron's suggestion of a plan, begun a moment after that of the one before."""
    store = MlflowStore(uri)
    start()
    time.sleep(0.1 * i)
    ledger = Ledger.of(store, experiment_id)
    sweep(ledger)
    asked = plans.digest(["crons"])
    plan = plans.standing(ledger, asked)
    if plan is None:
        plan = plans.decide(ledger, asked, [item(k) for k in range(n)], {}, {})
    return publish(ledger, plan)


def suggests_naively(start: Start, i: int, uri: str, experiment_id: str, n: int) -> None:
    """The same without a protocol: look for a tag, create, schedule, log."""
    client = MlflowClient(tracking_uri=uri)
    start()
    time.sleep(0.1 * i)
    for planned in map(item, range(n)):
        key = planned.key
        if client.search_runs([experiment_id], f"tags.`{NAIVE_KEY}` = '{key}'"):
            continue
        run_id = client.create_run(experiment_id, tags={NAIVE_KEY: key}).info.run_id
        client.update_run(run_id, status="SCHEDULED")
        client.log_batch(run_id, params=[Param(k, v) for k, v in planned.params.items()])


def keeps_suggesting(uri: str, folder: Path, began: float, every_s: float) -> None:
    """A cron: publishes the plan of the moment, again and again, until there is `no-more-plans`."""
    while not (folder / "no-more-plans").exists():
        with _told(folder):
            store = MlflowStore(uri)
            World(store).suggests(store, int((time.monotonic() - began) / every_s))
        _weigh(folder, "cron")
        time.sleep(random.uniform(0.0, 1.0))


def keeps_working(uri: str, folder: Path, lease_s: float, training: Sequence[str]) -> None:
    """A worker: trains what waits, again and again, until there is `no-more-work`."""
    while not (folder / "no-more-work").exists():
        with _told(folder):
            for execution in work(
                MlflowStore(uri), World.experiment, training, Rules(lease_s=lease_s)
            ):
                if execution.outcome is Outcome.FINISHED:
                    _append(folder / "told", f"{execution.run_id} FINISHED")
        _weigh(folder, "worker")
        time.sleep(random.uniform(0.0, 1.0))


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except MetaError as error:
        _append(folder / "errors", f"{type(error).__name__} {error}")


def _weigh(folder: Path, kind: str) -> None:
    """Note our resident memory and how many descriptors are open."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    n_bytes, n_open = pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))
    _append(folder / f"weight-{kind}-{os.getpid()}", f"{time.monotonic()} {n_bytes} {n_open}")


def _append(path: Path, line: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{line}\n".encode())
    os.close(file)
