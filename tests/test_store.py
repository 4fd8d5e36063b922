"""The door to MLflow: what is refused, what is written, and who gets a run."""

import socket
import sqlite3
from pathlib import Path

import pytest
from conftest import add_run
from mlflow import MlflowClient
from servers import free_port, mlflow_server

from mlflow_meta.errors import NoModel, StoreRefused, Unreachable, UnsupportedStore
from mlflow_meta.store import MlflowStore, plans, queue, quick_answers, registry
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.publish import publish
from mlflow_meta.store.suggested import item
from mlflow_meta.trials import Direction, Objective, Suggestion

OBJECTIVE = Objective(metric="val_loss", direction=Direction.MINIMIZE)


def suggestion(rank: int) -> Suggestion:
    config = {"lr": 1e-05 * rank, "layers": 3, "bias": True, "optimizer": "adam"}
    return Suggestion(rank=rank, config=config, mean=0.1 * rank, std=0.01, low=0.0, high=1.0)


def schedule(store: MlflowStore, *ranks: int, name: str = "sweep-a") -> list[str]:
    tags = {"mlflow_meta.harvest_run": "h1", "mlflow_meta.direction": "minimize"}
    ledger = Ledger.of(store, store.experiment_id(name))
    items = [item(suggestion(r), OBJECTIVE, name, note="**why**", tags=tags) for r in ranks]
    plan = plans.decide(ledger, plans.digest(list(ranks)), items, {}, {})
    return publish(ledger, plan)


def waiting(store: MlflowStore, name: str = "sweep-a") -> list[queue.Scheduled]:
    return queue.waiting(Ledger.of(store, store.experiment_id(name)))


def test_a_file_store_is_refused_with_the_way_out(tmp_path: Path) -> None:
    for uri in (str(tmp_path), tmp_path.as_uri()):
        with pytest.raises(UnsupportedStore, match=r"mlflow migrate-filestore --source /"):
            MlflowStore(uri)


def test_a_server_that_does_not_listen_is_told_at_once() -> None:
    with pytest.raises(Unreachable, match="No MLflow server answers at http://127"):
        MlflowStore(f"http://127.0.0.1:{free_port()}")


def test_a_database_file_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no MLflow store at"):
        MlflowStore(f"sqlite:///{tmp_path / 'typo.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    path.touch()
    with pytest.raises(Unreachable, match="holds no MLflow store"):
        MlflowStore(f"sqlite:///{path}")
    assert path.stat().st_size == 0


def test_a_database_that_is_none_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "letter.db"
    path.write_text("Dear all, this is no database. " * 100)
    with pytest.raises(StoreRefused, match="not a database") as error:
        MlflowStore(f"sqlite:///{path}")
    assert "\n" not in str(error.value)


def test_an_address_of_another_kind_is_told() -> None:
    with pytest.raises(UnsupportedStore, match="no tracking store that mlflow-meta knows"):
        MlflowStore("ftp://example.org")
    for uri in ("localhost:5000", "mlflow.example.org:5000/base"):
        with pytest.raises(UnsupportedStore, match=f"Did you mean http://{uri}?"):
            MlflowStore(uri)


def test_a_suggested_run_is_scheduled_with_params_as_history_spells_them(
    store: MlflowStore, client: MlflowClient
) -> None:
    (run_id,) = schedule(store, 1)
    run = client.get_run(run_id)
    assert run.info.status == "SCHEDULED"
    assert run.info.run_name == "suggested 1: 0.1"
    expected = {"lr": "1e-05", "layers": "3", "bias": "True", "optimizer": "adam"}
    assert run.data.params == expected
    assert run.data.tags["mlflow_meta.rank"] == "1"
    assert run.data.tags["mlflow.note.content"] == "**why**"
    assert "mlflow.parentRunId" not in run.data.tags
    assert run.data.metrics["predicted_val_loss"] == 0.1
    assert run.data.metrics["std_predicted_val_loss"] == 0.01
    assert run.data.metrics["mlflow_meta.rank"] == 1.0


def test_what_waits_comes_in_the_order_of_ranks(store: MlflowStore) -> None:
    schedule(store, 3, 1, 10, 2)
    assert [run.rank for run in waiting(store)] == [1, 2, 3, 10]
    assert waiting(store, "sweep-b") == []


def test_a_scheduled_run_of_others_is_not_ours(store: MlflowStore, client: MlflowClient) -> None:
    experiment = client.get_experiment_by_name("sweep-a").experiment_id
    run_id = add_run(client, experiment, params={"lr": 1}, metrics={}, status="RUNNING")
    client.update_run(run_id, status="SCHEDULED")
    assert waiting(store) == []


def test_a_claimed_run_is_running_and_waits_no_more(
    store: MlflowStore, client: MlflowClient
) -> None:
    (run_id,) = schedule(store, 1)
    assert queue.claim(store, run_id, tags={"mlflow_meta.hardware.cpu_cores": "2"})
    run = client.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert run.data.tags["mlflow_meta.hardware.cpu_cores"] == "2"
    assert int(run.data.tags["mlflow_meta.started_ms"]) >= run.info.start_time
    assert waiting(store) == []
    assert queue.claim(store, run_id, tags={}) is None


def test_nothing_is_learned_from_our_own_experiments(store: MlflowStore) -> None:
    Ledger.of(store, store.experiment_id("sweep-a"))
    assert sorted(experiment.name for experiment in store.experiments()) == [
        "Default", "sweep-a", "sweep-b",
    ]  # fmt: skip


def test_finish_leaves_what_the_training_has_ended_itself(
    store: MlflowStore, client: MlflowClient
) -> None:
    done, killed, broken = claims = [
        queue.claim(store, run_id, tags={}) for run_id in schedule(store, 1, 2, 3)
    ]
    assert done and killed and broken
    assert queue.finish(store, done, "FINISHED")
    client.set_terminated(killed.run_id, "KILLED")
    assert queue.finish(store, killed, "FINISHED")
    client.set_terminated(broken.run_id, "FINISHED")
    assert queue.finish(store, broken, "FAILED")
    statuses = [client.get_run(run_id).info.status for run_id in [c.run_id for c in claims if c]]
    assert statuses == ["FINISHED", "KILLED", "FAILED"]


def test_a_registry_that_fails_has_not_said_that_there_is_no_model(store: MlflowStore) -> None:
    with pytest.raises(NoModel, match="Run `mlflow-meta train --metric rmse`"):
        registry.champion(store, metric="rmse")
    database = sqlite3.connect(store.uri.removeprefix("sqlite:///"))
    with database:
        database.execute("alter table registered_models rename to gone")
    database.close()
    with pytest.raises(StoreRefused, match="registered_models"):
        registry.champion(store, metric="rmse")


@pytest.mark.slow
def test_each_answer_of_a_server_is_acknowledged_at_once(
    filled_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of several workers sends the rest of an answer 40 ms later otherwise."""
    calls: list[object] = []
    monkeypatch.setattr(quick_answers, "_acknowledge_at_once", calls.append)
    with mlflow_server(filled_uri) as url:
        store = MlflowStore(url)
        assert len(calls) == 1  # who we are
        experiments = store.experiments(["sweep-a"])
        assert len(calls) == 2
        assert len(store.read_all(experiments)) > 0
        assert len(calls) > 2
        assert store.server_version().startswith("3.")
    assert all(isinstance(connection, socket.socket) for connection in calls)
    if hasattr(socket, "TCP_QUICKACK"):
        with socket.socket() as connection:
            monkeypatch.undo()
            quick_answers._acknowledge_at_once(connection)
            option = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)
            assert option == 1
