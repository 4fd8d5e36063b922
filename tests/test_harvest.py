"""The harvest, from real stores: what becomes of each run."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, add_run, need
from mlflow import MlflowClient

from mlflow_meta.dataset import MetaDataset
from mlflow_meta.errors import NothingToLearn, StoreRefused
from mlflow_meta.services.harvest import harvest
from mlflow_meta.store import MlflowStore
from mlflow_meta.trials import Direction, Objective


def test_every_active_run_is_a_trial_or_quarantined_with_a_reason(store: MlflowStore) -> None:
    found = harvest(store)
    assert found.n_trials == 48
    assert dict(found.dataset.quarantined) == {
        "failed": 2,
        "still running": 2,
        "no finite metric": 2,
    }


def test_params_are_typed_and_tags_and_hardware_have_columns(store: MlflowStore) -> None:
    frame = harvest(store, ["sweep-a"]).dataset.frame
    kinds = {name: str(frame[name].dtype) for name in frame}
    assert kinds["params.lr"] == "float64"
    assert kinds["params.depth"] == "Int64"
    assert kinds["params.model"] == "string"
    assert set(frame["hardware.gpu_model"]) == {"A100", "T4"}
    assert set(frame["tags.team"]) == {"red"}
    assert list(frame["task"].unique()) == ["sweep-a"]
    assert not [column for column in frame if column.startswith("tags.mlflow")]


def test_a_copy_of_the_meta_dataset_is_the_artifact_of_the_harvest_run(
    store: MlflowStore, client: MlflowClient, tmp_path: Path
) -> None:
    found = harvest(store)
    path = client.download_artifacts(found.run_id, "meta_dataset.parquet", str(tmp_path))
    pd.testing.assert_frame_equal(
        MetaDataset.from_parquet(Path(path).read_bytes()).frame, found.dataset.frame
    )
    assert client.get_run(found.run_id).info.status == "FINISHED"


def test_our_own_runs_are_not_harvested(store: MlflowStore) -> None:
    assert harvest(store).n_trials == harvest(store).n_trials == 48


def test_a_harvest_is_downloaded_once_however_often_it_is_asked_for(
    store: MlflowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_ids = [harvest(store).run_id for _ in range(4)]
    read: list[str] = []
    file = store.file

    def counted(run_id: str, path: str) -> bytes:
        read.append(run_id)
        return file(run_id, path)

    monkeypatch.setattr(store, "file", counted)
    first = store.dataset()[1]
    assert store.dataset()[0] == run_ids[-1]
    pd.testing.assert_frame_equal(store.dataset(run_ids[-1])[1].frame, first.frame)
    assert read == run_ids[-1:]
    for run_id in (run_ids[0], run_ids[1], run_ids[2], run_ids[0]):
        store.dataset(run_id)
    assert read == [run_ids[-1], *run_ids[:3]]
    store.dataset(run_ids[-1])  # three are kept
    assert read == [run_ids[-1], *run_ids[:3], run_ids[-1]]


def test_dataset_inputs_give_rows_digest_and_features(
    client: MlflowClient, sqlite_uri: str
) -> None:
    experiment = client.create_experiment("people")
    frame = pd.DataFrame({"age": np.arange(30.0), "income": np.arange(30.0)})
    for wide in (True, False):
        used = frame if wide else frame[["age"]]
        add_run(client, experiment, params={"x": 1}, metrics={"loss": 1.0}, frame=used)
    rows = harvest(MlflowStore(sqlite_uri)).dataset.frame.sort_values("dataset.columns")
    assert list(rows["dataset.name"]) == ["people", "people"]
    assert list(rows["dataset.rows"]) == [30.0, 30.0]
    assert list(rows["dataset.columns"]) == [1, 2]
    assert list(rows["dataset.feature.income"]) == [False, True]
    assert rows["dataset.digest"].nunique() == 2


def test_features_come_from_the_model_signature_where_no_data_set_was_logged(
    client: MlflowClient, sqlite_uri: str
) -> None:
    inputs = json.dumps([{"name": "age", "type": "double"}, {"name": "sex", "type": "string"}])
    history = json.dumps([{"run_id": "r", "signature": {"inputs": inputs, "outputs": None}}])
    add_run(
        client,
        client.create_experiment("signed"),
        params={"x": 1},
        metrics={"loss": 1.0},
        tags={"mlflow.log-model.history": history},
    )
    frame = harvest(MlflowStore(sqlite_uri)).dataset.frame
    assert frame["dataset.columns"].item() == 2
    assert frame["dataset.feature.sex"].item()


def test_one_experiment_with_two_data_sets_is_two_tasks(
    client: MlflowClient, sqlite_uri: str
) -> None:
    experiment = client.create_experiment("mixed")
    frame = pd.DataFrame({"age": np.arange(30.0)})
    add_run(client, experiment, params={"x": 1}, metrics={"loss": 1.0}, frame=frame)
    run = add_run(client, experiment, params={"x": 1}, metrics={"loss": 1.0}, frame=frame)
    tables = sqlite3.connect(sqlite_uri.removeprefix("sqlite:///"))
    with tables:  # the client names every data set of the fixture `people`; a second one is needed
        tables.execute(
            "insert into datasets select 'd2', experiment_id, 'pets', digest, dataset_source_type, "
            "dataset_source, dataset_schema, dataset_profile from datasets"
        )
        tables.execute("update inputs set source_id = 'd2' where destination_id = ?", (run,))
    tables.close()
    tasks = harvest(MlflowStore(sqlite_uri)).dataset.tasks
    assert set(tasks) == {"mixed / people", "mixed / pets"}


def test_children_of_a_search_are_trials_and_their_parent_is_not(
    client: MlflowClient, sqlite_uri: str
) -> None:
    experiment = client.create_experiment("nested")
    parent = add_run(client, experiment, params={}, metrics={"loss": 0.5})
    for x in (1, 2):
        tags = {"mlflow.parentRunId": parent}
        add_run(client, experiment, params={"x": x}, metrics={"loss": float(x)}, tags=tags)
    found = harvest(MlflowStore(sqlite_uri))
    assert found.n_trials == 2
    assert dict(found.dataset.quarantined) == {"parent of nested runs": 1}


def test_the_duration_of_a_suggested_run_has_no_time_in_the_queue(
    client: MlflowClient, sqlite_uri: str
) -> None:
    experiment = client.create_experiment("queued")
    run = client.create_run(experiment, start_time=0)
    client.log_metric(run.info.run_id, "loss", 1.0)
    client.set_tag(run.info.run_id, "mlflow_meta.started_ms", "50000")
    client.set_terminated(run.info.run_id, "FINISHED", end_time=57_500)
    assert harvest(MlflowStore(sqlite_uri)).dataset.frame["duration_s"].item() == 7.5


def test_the_primary_metric_of_an_experiment_is_its_objective(
    store: MlflowStore, client: MlflowClient
) -> None:
    experiment = client.get_experiment_by_name("sweep-a").experiment_id
    client.set_experiment_tag(experiment, "mlflow.experiment.primaryMetric.name", "accuracy")
    client.set_experiment_tag(experiment, "mlflow.experiment.primaryMetric.greaterIsBetter", "true")
    objective = harvest(store).dataset.objective(None)
    assert objective == Objective(metric="accuracy", direction=Direction.MAXIMIZE)


def test_an_experiment_that_does_not_exist_is_told_with_those_that_are_alike(
    store: MlflowStore,
) -> None:
    with pytest.raises(NothingToLearn, match=r"no experiment 'sweep-c'.*'sweep-"):
        harvest(store, ["sweep-c"])


@pytest.mark.slow
def test_each_of_the_strangers_runs_is_accounted_for(tmp_path: Path) -> None:
    need(SHARED.is_dir(), "the strangers' tracking stores (shared/stores) are not here")
    archive = SHARED / "stores" / "taxi-h.db.gz"
    database = tmp_path / "taxi.db"
    with database.open("wb") as file:
        subprocess.run(["gunzip", "-c", str(archive)], stdout=file, check=True)
    uri = f"sqlite:///{database}"
    with pytest.raises(StoreRefused, match="mlflow db upgrade"):
        MlflowStore(uri)
    subprocess.run(
        [sys.executable, "-m", "mlflow", "db", "upgrade", uri], check=True, capture_output=True
    )
    found = harvest(MlflowStore(uri))
    assert found.n_trials + found.n_quarantined == 61
    assert found.n_trials == 32


def test_a_dry_run_writes_nothing(store: MlflowStore, client: MlflowClient) -> None:
    assert harvest(store, dry_run=True).n_trials == 48
    assert client.get_experiment_by_name("mlflow-meta") is None
