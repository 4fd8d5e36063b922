"""The contract of a store, of ours in memory, on databases and behind servers."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from servers import mlflow_server

from mlflow_meta.store import MlflowStore
from mlflow_meta.testing import InMemoryStore, check_store


def test_a_store_in_memory_keeps_the_contract() -> None:
    store = InMemoryStore("sweep")
    check_store(lambda: store, "sweep")


def test_an_sqlite_database_keeps_the_contract(sqlite_uri: str, client: MlflowClient) -> None:
    client.create_experiment("sweep")
    check_store(lambda: MlflowStore(sqlite_uri), "sweep")


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend",
    [
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.postgres),
        pytest.param("mysql", marks=pytest.mark.mysql),
    ],
)
def test_a_server_keeps_the_contract(
    request: pytest.FixtureRequest, backend: str, empty_database: Path, tmp_path: Path
) -> None:
    uri = (
        f"sqlite:///{shutil.copy(empty_database, tmp_path / 'server.db')}"
        if backend == "sqlite"
        else request.getfixturevalue(f"{backend}_uri")
    )
    with mlflow_server(uri, tmp_path / "artifacts", workers=2) as url:
        name = f"sweep-{tmp_path.name}"
        MlflowClient(tracking_uri=url).create_experiment(name)
        check_store(lambda: MlflowStore(url), name)
