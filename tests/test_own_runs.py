"""Our own runs: each says how it has ended, also where its owner has died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import add_run
from mlflow import MlflowClient

from mlflow_meta import harvest, train
from mlflow_meta.services.update import update
from mlflow_meta.store import MlflowStore, Store, names, own_runs
from mlflow_meta.store.own_runs import LEASE_S, TRAININGS, end_abandoned, own_run
from mlflow_meta.testing import InMemoryStore

HARVEST = {names.KIND: "harvest"}


def begun(store: Store, kind: str = "harvest") -> str:
    """A run whose owner was killed."""
    tags = {names.KIND: kind, names.HEARTBEAT: "token 3"}
    return store.create_run(store.own_experiment_id(), kind, tags)


def status(store: Store, run_id: str) -> str:
    return store.get_run(run_id).status


@pytest.mark.parametrize(
    ("error", "said"), [(None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_run_of_ours_says_how_it_ended(error: type[BaseException] | None, said: str) -> None:
    store = InMemoryStore("sweep")
    with suppress(ValueError, KeyboardInterrupt), own_run(store, "x", HARVEST) as run_id:
        assert status(store, run_id) == "RUNNING"
        if error:
            raise error
    assert status(store, run_id) == said


def test_whose_heartbeat_stands_still_for_a_lease_on_this_machine_is_gone() -> None:
    store = InMemoryStore("sweep")
    run_id, other = begun(store), begun(store, "train")
    assert end_abandoned(store, ["harvest"], now_s=1000.0) == []
    assert end_abandoned(store, ["harvest"], now_s=1000.0 + LEASE_S - 1) == []
    assert end_abandoned(store, ["harvest"], now_s=1000.0 + LEASE_S) == [run_id]
    assert (status(store, run_id), status(store, other)) == ("KILLED", "RUNNING")
    assert end_abandoned(store, ["harvest"], now_s=1e9) == []


def test_a_heartbeat_and_a_new_start_of_the_machine_begin_a_new_lease() -> None:
    store = InMemoryStore("sweep")
    run_id = begun(store)
    end_abandoned(store, ["harvest"], now_s=1000.0)
    store.log_batch(run_id, tags={names.HEARTBEAT: "token 4"})
    assert end_abandoned(store, ["harvest"], now_s=1000.0 + LEASE_S) == []
    assert end_abandoned(store, ["harvest"], now_s=5.0) == []
    assert end_abandoned(store, ["harvest"], now_s=5.0 + LEASE_S) == [run_id]


def test_no_machine_goes_by_what_another_has_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = InMemoryStore("sweep")
    run_id = begun(store)
    end_abandoned(store, ["harvest"], now_s=0.0)
    (tmp_path / "boot_id").write_text("another")
    monkeypatch.setattr(own_runs, "_BOOT_ID", tmp_path / "boot_id")
    assert end_abandoned(store, ["harvest"], now_s=1e6) == []
    assert end_abandoned(store, ["harvest"], now_s=1e6 + LEASE_S) == [run_id]


def test_who_harvests_or_trains_ends_what_was_begun_and_left(
    store: MlflowStore, client: MlflowClient
) -> None:
    left = {kind: begun(store, kind) for kind in ("harvest", *TRAININGS, "suggest")}

    def seen_a_lease_ago() -> None:
        end_abandoned(store, tuple(left), now_s=time.monotonic() - LEASE_S)

    def open_kinds() -> set[str]:
        return {kind for kind, run_id in left.items() if status(store, run_id) == "RUNNING"}

    seen_a_lease_ago()
    harvest(store)
    assert open_kinds() == {*TRAININGS, "suggest"}
    train(store, metric="val_loss", kinds=["linear"])
    assert open_kinds() == {"suggest"}
    left["train"] = begun(store, "train")
    seen_a_lease_ago()
    params = {"model": "mlp", "lr": 0.01, "units": 64, "seed": 0}
    add_run(client, store.experiment_id("sweep-a"), params=params, metrics={"val_loss": 0.3})
    harvest(store)
    assert update(store, "sweep-a", metric="val_loss").version == "2"
    assert open_kinds() == {"suggest"}


def test_an_owner_that_lives_beats_and_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_runs, "BEAT_S", 0.01)
    store = InMemoryStore("sweep")
    with own_run(store, "x", HARVEST) as run_id:
        first = store.get_run(run_id).tags[names.HEARTBEAT]
        deadline = time.monotonic() + 30
        while store.get_run(run_id).tags[names.HEARTBEAT] == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        store.set_status(run_id, "KILLED")  # taken for dead while it was stopped
    assert status(store, run_id) == "FINISHED"


_SLOW = """
import sys, time
from mlflow_meta.cli import main
from mlflow_meta.store import MlflowStore
write = MlflowStore.log_files
def slow(*args, **kwargs):
    print("writing", flush=True)
    time.sleep(120)
MlflowStore.log_files = slow
main(["harvest", "-e", "sweep-a"])
"""


@contextmanager
def writing(uri: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A harvest that is in the middle of writing."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW], text=True, stdout=subprocess.PIPE, cwd=folder,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
    )  # fmt: skip
    try:
        assert process.stdout and process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_harvest_that_is_terminated_or_killed_is_not_running_for_ever(
    store: MlflowStore, client: MlflowClient, filled_uri: str, tmp_path: Path
) -> None:
    with writing(filled_uri, tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    own = [store.own_experiment_id()]
    (ended,) = client.search_runs(own)
    assert ended.info.status == "KILLED" and ended.info.end_time
    with writing(filled_uri, tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    (left,) = client.search_runs(own, "attributes.status = 'RUNNING'")
    assert end_abandoned(store, ["harvest"]) == []
    later = time.monotonic() + LEASE_S
    assert end_abandoned(store, ["harvest"], now_s=later) == [left.info.run_id]
    assert client.get_run(left.info.run_id).info.status == "KILLED"
