"""Fixtures: real tracking stores, on each database, and behind an `mlflow server`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import mlflow.data
import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from mlflow import MlflowClient
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import fluent
from servers import mariadb, mariadb_programs, postgres, postgres_programs
from trainer import loss

from mlflow_meta.store import MlflowStore

# A busy machine is no failure, and what one run of CI has found every other finds too.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

OUTSIDE = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
)
SHARED = Path(__file__).parent.parent.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="run what takes minutes to set up, too")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--nightly"):
        os.environ["MLFLOW_META_NIGHTLY"] = "1"  # what sizes of tests go by, once they are imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("MLFLOW_META_NIGHTLY"):
        return
    for item in items:
        if "nightly" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="of the night: make nightly"))


def need(there: object, reason: str) -> None:
    """Skip the test where something is not there; fail it where nothing may be skipped (CI)."""
    if not there:
        if os.environ.get("MLFLOW_META_REQUIRE_ALL"):
            pytest.fail(f"{reason}, and MLFLOW_META_REQUIRE_ALL is set")
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _no_tracking_uri_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees MLflow's addresses of outside, nor those that another test has set."""
    for name in OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    yield
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    fluent._active_experiment_id = None
    for name in OUTSIDE:  # which MLflow sets too; what was there before comes back
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs. Making its schema takes seconds, so tests copy it."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def sqlite_uri(empty_database: Path, tmp_path: Path) -> str:
    """A fresh SQLite tracking store."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def client(sqlite_uri: str) -> MlflowClient:
    """MLflow's own client on `sqlite_uri`, to look from outside."""
    return MlflowClient(tracking_uri=sqlite_uri, registry_uri=sqlite_uri)


@pytest.fixture
def filled_uri(client: MlflowClient, sqlite_uri: str, tmp_path: Path) -> str:
    """`sqlite_uri` with the runs of `fill`."""
    fill(client, tmp_path)
    return sqlite_uri


@pytest.fixture
def store(filled_uri: str) -> MlflowStore:
    return MlflowStore(filled_uri)


@pytest.fixture(scope="session")
def postgres_uri() -> Iterator[str]:
    """A Postgres of our own, for the whole session."""
    programs = postgres_programs()
    need(programs, "no Postgres is installed (apt-get install postgresql)")
    with postgres(programs) as uri:
        yield uri


@pytest.fixture(scope="session")
def mysql_uri() -> Iterator[str]:
    """A MariaDB of our own, for the whole session."""
    programs = mariadb_programs()
    need(programs, "no MariaDB is installed (apt-get install mariadb-{server,client}-core)")
    with mariadb(programs) as uri:
        yield uri


def fill(client: MlflowClient, folder: Path | None, n: int = 24) -> dict[str, str]:
    """Two experiments of finished runs, as a team would have logged them; name -> id.

    `sweep-a` is what tests improve; `sweep-b` is a second task on another scale. Beside the runs
    that count there are one that failed, one that still runs and one whose metric is NaN. Without
    a folder, artifacts go where the server keeps them.
    """
    rng = np.random.default_rng(0)
    ids = {}
    for name, scale in (("sweep-a", 1.0), ("sweep-b", 50.0)):
        location = (folder / "artifacts" / name).as_uri() if folder else None
        ids[name] = client.create_experiment(name, artifact_location=location)
        for i in range(n):
            model = ("tree", "mlp")[i % 2]
            lr = float(f"{10 ** rng.uniform(-4, 0):.3g}")
            depth = int(rng.integers(2, 12)) if model == "tree" else None
            units = int(2 ** rng.integers(3, 9)) if model == "mlp" else None
            value = scale * (loss(model, lr, depth, units) + rng.normal(0, 0.005))
            params = {"model": model, "lr": lr, "depth": depth, "units": units, "seed": i}
            params["data"] = "s3://bucket/data.parquet"
            add_run(
                client,
                ids[name],
                params={key: value for key, value in params.items() if value is not None},
                metrics={"val_loss": value, "accuracy": 1 - value / scale / 4},
                tags={"team": "red", "gpu": ("A100", "T4")[i % 3 == 0]},
            )
        add_run(client, ids[name], params={"lr": 0.1}, metrics={}, status="FAILED")
        add_run(client, ids[name], params={"lr": 0.1}, metrics={"val_loss": float("nan")})
        add_run(client, ids[name], params={"lr": 0.1}, metrics={}, status="RUNNING")
    return ids


def add_run(
    client: MlflowClient,
    experiment_id: str,
    *,
    params: dict[str, object],
    metrics: dict[str, float],
    tags: dict[str, str] | None = None,
    status: str = "FINISHED",
    frame: pd.DataFrame | None = None,
) -> str:
    """One run, as MLflow's client logs it; its id."""
    run_id = client.create_run(experiment_id).info.run_id
    now_ms = int(time.time() * 1000)
    client.log_batch(
        run_id,
        params=[Param(key, str(value)) for key, value in params.items()],
        metrics=[Metric(key, value, now_ms, 0) for key, value in metrics.items()],
        tags=[RunTag(key, value) for key, value in (tags or {}).items()],
    )
    if frame is not None:
        dataset = mlflow.data.from_pandas(frame, source="https://example.org/x.csv", name="people")
        entity = DatasetInput(
            dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", "training")]
        )
        client.log_inputs(run_id, [entity])
    if status != "RUNNING":
        client.set_terminated(run_id, status)
    return str(run_id)
