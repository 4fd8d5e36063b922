"""Tests for `watch`: what is told of runs that train, who is stopped, and by whom."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Metric
from schedules import scheduled

import mlflow_meta
from mlflow_meta.attempt import Outcome
from mlflow_meta.cli import main
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.outlook import MIN_CURVES, Standing
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.watch import Action, watch
from mlflow_meta.services.work import Execution, Rules, work
from mlflow_meta.store import MlflowStore, names, stops

N, LENGTH = 34, 30
NOW_MS = int(time.time() * 1000)
HOPELESS = (4.0, 20.0)  # end and pace
TRAINS = """
import time
import mlflow
with mlflow.start_run():
    for epoch in range(15):
        mlflow.log_metric("accuracy", -5.0 + 0.001 * epoch, step=epoch)
    time.sleep(120)
"""


def curve(end: float, pace: float, k: int) -> list[float]:
    """The first k values of a loss that falls from end + 1 to end."""
    return (end + np.exp(-np.arange(k) / pace)).tolist()


def add(client: MlflowClient, name: str, values: list[float], status: str = "RUNNING") -> str:
    """A run of `sweep` whose accuracy is a loss with its sign turned."""
    experiment_id = client.get_experiment_by_name("sweep").experiment_id
    run_id = client.create_run(experiment_id, run_name=name).info.run_id
    points = [Metric("accuracy", -value, NOW_MS + i, i) for i, value in enumerate(values)]
    client.log_batch(run_id, metrics=points)
    client.log_param(run_id, "lr", len(name))
    if status != "RUNNING":
        client.set_terminated(run_id, status)
    return run_id


@pytest.fixture(scope="session")
def sweep_database(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With finished runs, the best of which has the accuracy -0.1; tests copy it."""
    folder = tmp_path_factory.mktemp("sweep")
    shutil.copy(empty_database, folder / "mlflow.db")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment("sweep", artifact_location=(folder / "artifacts").as_uri())
    rng = np.random.default_rng(0)
    for i, end in enumerate([0.1, *rng.uniform(0.11, 0.6, N - 1)]):
        add(client, f"done {i}", curve(end, rng.uniform(2, 6), LENGTH), "FINISHED")
    return folder / "mlflow.db"


@pytest.fixture
def sweep(sweep_database: Path, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch) -> MlflowStore:
    shutil.copy(sweep_database, sqlite_uri.removeprefix("sqlite:///"))
    monkeypatch.setattr(stops, "_answers", {})
    monkeypatch.setattr(stops, "ASK_AGAIN_S", 0.0)
    return MlflowStore(sqlite_uri)


def test_each_run_that_trains_is_told_its_outlook_and_nothing_is_stopped(
    sweep: MlflowStore, client: MlflowClient
) -> None:
    ids = {
        "hopeless": add(client, "hopeless", curve(*HOPELESS, 20)),
        "leading": add(client, "leading", curve(0.02, 1.0, 20)),
        "begun": add(client, "begun", curve(0.2, 3.0, 1)),
        "broken": add(client, "broken", [1.0, float("nan"), float("inf"), 0.9]),
    }
    silent = add(client, "silent", [])
    seen = watch(sweep, "sweep", metric="accuracy")
    told = {one.name: one for one in seen.runs}
    assert {name: one.run_id for name, one in told.items()} == ids
    assert told["hopeless"].outlook.standing is Standing.WILL_NOT
    assert told["leading"].outlook.standing is Standing.BEATS
    assert told["begun"].outlook.standing is Standing.UNKNOWN
    assert all(one.incumbent == pytest.approx(-0.1, abs=0.01) for one in seen.runs)
    saved = client.get_run(ids["hopeless"]).data
    assert saved.tags[names.OUTLOOK].startswith("will not beat -0.1")
    assert saved.metrics["mlflow_meta.chance"] <= 0.05
    assert saved.metrics["mlflow_meta.expected_accuracy"] == pytest.approx(-4.0, abs=1.0)
    for run_id in (*ids.values(), silent):
        run = client.get_run(run_id)
        assert (run.info.status, names.STOP in run.data.tags) == ("RUNNING", False)
    assert names.OUTLOOK not in client.get_run(silent).data.tags
    # Twice the same adds nothing, and what we have written is no result of the run.
    again = watch(sweep, "sweep", metric="accuracy", before=seen.reading)
    assert again.runs == seen.runs
    history = client.get_metric_history(ids["hopeless"], "mlflow_meta.chance")
    assert len(history) == 1
    client.set_terminated(ids["hopeless"], "FINISHED")
    found = harvest(sweep, dry_run=True, curves=["*"]).dataset
    assert not [name for name in found.frame if "mlflow_meta" in name]


def test_a_server_that_is_asked_for_changes_tells_the_same_as_its_database(
    sweep: MlflowStore, client: MlflowClient
) -> None:
    run_id = add(client, "hopeless", curve(*HOPELESS, 6))
    asked = MlflowStore(sweep.uri)
    asked.database = None  # as where it is a server's
    first = watch(asked, "sweep", metric="accuracy", action=Action.LOOK)
    assert first.runs == watch(sweep, "sweep", metric="accuracy", action=Action.LOOK).runs
    for step, value in enumerate(curve(*HOPELESS, 20)[6:], start=6):
        client.log_metric(run_id, "accuracy", -value, step=step)
    second = watch(asked, "sweep", metric="accuracy", action=Action.LOOK, before=first.reading)
    assert second.runs == watch(sweep, "sweep", metric="accuracy", action=Action.LOOK).runs
    assert second.runs[0].outlook.step > first.runs[0].outlook.step


def test_a_run_that_is_asked_to_stop_may_ask_and_is_not_learned_from(
    sweep: MlflowStore, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sweep.uri)
    mlflow.set_tracking_uri(None)
    hopeless = add(client, "hopeless", curve(*HOPELESS, 20))
    kept = add(client, "kept", curve(*HOPELESS, 20))
    client.set_tag(kept, "mlflow_meta.keep", "true")
    watch(sweep, "sweep", metric="accuracy", action=Action.LOOK)
    assert names.OUTLOOK not in client.get_run(hopeless).data.tags
    watch(sweep, "sweep", metric="accuracy")
    assert not mlflow_meta.should_stop(hopeless)
    watch(sweep, "sweep", metric="accuracy", action=Action.STOP)
    assert (mlflow_meta.should_stop(hopeless), mlflow_meta.should_stop(kept)) == (True, False)
    with pytest.raises(ValueError, match="needs a run"):
        mlflow_meta.should_stop()
    assert not mlflow_meta.should_stop("0" * 32)  # a server that can't be asked stops nothing
    client.set_terminated(hopeless, "FINISHED")
    quarantine = harvest(sweep, dry_run=True).dataset.quarantine.set_index("run_id")
    assert quarantine.loc[hopeless, "reason"] == "stopped early, as it was asked to"


def test_a_request_is_withdrawn_where_a_run_may_beat_the_best_after_all(
    sweep: MlflowStore, client: MlflowClient
) -> None:
    run_id = add(client, "late", curve(*HOPELESS, 20))
    watch(sweep, "sweep", metric="accuracy", action=Action.STOP)
    assert client.get_run(run_id).data.tags[names.STOP].startswith("will not beat")
    client.log_metric(run_id, "accuracy", -0.05, step=21)
    (seen,) = watch(sweep, "sweep", metric="accuracy", action=Action.STOP).runs
    assert (seen.outlook.standing, seen.is_asked_to_stop) == (Standing.BEATS, False)
    assert client.get_run(run_id).data.tags[names.STOP] == ""
    client.set_tag(run_id, names.STOP, "no")  # in a person's words, what workers read it as
    (seen,) = watch(sweep, "sweep", metric="accuracy", action=Action.LOOK).runs
    assert not seen.is_asked_to_stop


def test_a_request_stays_where_nothing_is_known_any_more(
    sweep: MlflowStore, client: MlflowClient
) -> None:
    run_id = add(client, "on and on", curve(*HOPELESS, 20))
    watch(sweep, "sweep", metric="accuracy", action=Action.STOP)
    asked = client.get_run(run_id).data.tags[names.STOP]
    client.log_metric(run_id, "accuracy", -4.5, step=LENGTH + 5)  # longer than all that finished
    (seen,) = watch(sweep, "sweep", metric="accuracy", action=Action.STOP).runs
    assert (seen.outlook.standing, seen.is_asked_to_stop) == (Standing.UNKNOWN, True)
    assert client.get_run(run_id).data.tags[names.STOP] == asked != ""


def test_the_command_tells_and_kills_only_what_it_is_told_to(
    sweep: MlflowStore, client: MlflowClient
) -> None:
    hopeless = add(client, "hopeless", curve(*HOPELESS, 20))
    kept = add(client, "kept", curve(*HOPELESS, 20))
    client.set_tag(kept, "mlflow_meta.decision", "keep")
    asked = ["watch", "-e", "sweep", "--metric", "accuracy", "--once", "--tracking-uri", sweep.uri]
    told = CliRunner().invoke(main, asked)
    assert told.exit_code == 0, told.output
    assert f"{hopeless}  hopeless: will not beat -0.1" in told.stdout
    assert CliRunner().invoke(main, [*asked, "--kill"]).exit_code == 2
    done = CliRunner().invoke(main, [*asked, "--stop", "--kill", "--json"])
    runs = {run["run_id"]: run for run in json.loads(done.stdout)["runs"]}
    assert [runs[r]["asked_to_stop"] for r in (hopeless, kept)] == [True, False]
    assert runs[hopeless]["standing"] == "will_not"
    assert [client.get_run(r).info.status for r in (hopeless, kept)] == ["KILLED", "RUNNING"]
    nothing = CliRunner().invoke(main, [*asked, "--metric", "nonsense"])
    assert (nothing.exit_code, "'nonsense'" in nothing.output) == (1, True)


def test_nothing_is_said_where_too_few_have_finished(client: MlflowClient, sqlite_uri: str) -> None:
    client.create_experiment("sweep")
    store = MlflowStore(sqlite_uri)
    with pytest.raises(NothingToLearn):
        watch(store, "sweep", metric="accuracy")
    run_id = add(client, "first", curve(*HOPELESS, 20))
    seen = watch(store, "sweep", metric="accuracy", action=Action.STOP)
    assert seen.runs[0].outlook.standing is Standing.UNKNOWN
    assert f"{MIN_CURVES} are needed" in seen.remarks[0]
    assert client.get_run(run_id).data.tags[names.OUTLOOK].startswith("too little is known")


@pytest.mark.slow
def test_a_training_of_our_worker_is_ended_when_it_will_not_beat_the_best(
    sweep: MlflowStore, client: MlflowClient
) -> None:
    (run_id,) = scheduled(sweep, {"lr": "1"})
    done: list[Execution] = []

    def train() -> None:
        store = MlflowStore(sweep.uri)
        done.extend(work(store, "sweep", [sys.executable, "-c", TRAINS], Rules(lease_s=20.0)))

    worker = threading.Thread(target=train)
    worker.start()
    before = None
    while worker.is_alive():
        try:
            seen = watch(sweep, "sweep", metric="accuracy", action=Action.KILL, before=before)
            before = seen.reading
        finally:
            worker.join(1.0)
    assert [execution.outcome for execution in done] == [Outcome.STOPPED]
    record = sweep.get_run(run_id)
    assert (record.status, record.params[names.ENDED].split()[0]) == ("KILLED", "KILLED")
    assert record.metrics["accuracy"] < -4.9
