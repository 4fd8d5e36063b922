"""What others have put on their servers: real stores, and a tool that logs odd things."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from conftest import SHARED, need
from measured import GB, mlflow_meta
from servers import mlflow_server

from mlflow_meta.dataset import MetaDataset
from mlflow_meta.errors import StoreRefused
from mlflow_meta.services.harvest import harvest
from mlflow_meta.store import MlflowStore

STRANGERS, N_ACTIVE = 643, 591  # runs in shared/stores, as its README has them; not deleted
ACTIVE = (
    "select run_uuid from runs join experiments using (experiment_id) "
    "where runs.lifecycle_stage = 'active' and experiments.lifecycle_stage = 'active' "
    "and experiments.name <> 'mlflow-meta'"
)
ODD = SHARED / "tools" / "bad_inputs.py"
# Cases of that tool whose end is not simply RUNNING, and what is to be said of them.
ENDED = {
    "s.end_before_start": "no metric",
    "s.failed_with_metric": "failed",
    "s.killed": "killed",
    "s.scheduled": "scheduled: not begun",
    "s.finished_no_end": "no metric",
}
# What each case with a metric has sent last that the server could keep: the label.
ONE = (
    "step_neg", "step_i64max", "step_over", "ts_zero", "ts_far", "ts_seconds", "ts_ns",
    "steps_backwards", "dup_exact", "bool", "float_step", "num_then_nan",
)  # fmt: skip
LABELS = {
    **{f"m.{case}": {"m": 1.0} for case in ONE},
    "m.subnormal": {"m": 5e-324},
    "m.negzero": {"m": 0.0},
    "m.2p53": {"m": 2.0**53},
    "m.alternating_inf": {"m": 0.5},
    "m.same_step_two_values": {"m": 2.0},
    "m.time_backwards": {"m": 2.0},
    "m.str_value": {"m": 1.5},
    "m.unicode_name": {"точность": 1.0},
    "m.spaced_name": {"val loss/épöch": 1.0},
    "m.case_names": {"Loss": 1.0, "loss": 2.0},
    "b.nonatomic_probe": {"m": 1.0},
    "h.20000_points": {"m": 999.0},
}
MANY = {f"m{i}": float(i) for i in range(1000)}  # of the case m.many_1000
# Cases of which nothing is left that is a number: NaN and infinity bare or as text, junk, refused.
NO_LABEL = (
    "nan", "inf", "ninf", "max", "1e308x2", "nan_then_num", "ts_neg", "str_nan", "str_Infinity",
    "str_junk", "null", "hugeint", "system_metric", "len251_name", "over_1001",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A stranger's store.

    Attributes:
        n_runs: With those that were deleted.
        active: Ids of the others.
        by_http: The ids that a harvest of a server on it has accounted for.
        by_http_bytes: The meta-dataset of that.
        by_sql_bytes: The one of a harvest of the database.
    """

    n_runs: int
    active: list[str]
    by_http: list[str]
    by_http_bytes: bytes
    by_sql_bytes: bytes


def accounted(dataset: MetaDataset) -> list[str]:
    """The ids of the runs that are trials or have a reason why not."""
    return sorted([*dataset.frame["run_id"], *dataset.quarantine["run_id"]])


def account(archive: Path, folder: Path) -> Account:
    path = folder / archive.stem
    with gzip.open(archive) as packed, path.open("wb") as file:
        shutil.copyfileobj(packed, file)
    uri = f"sqlite:///{path}"
    with pytest.raises(StoreRefused, match="mlflow db upgrade"):
        MlflowStore(uri)
    upgrade = [sys.executable, "-m", "mlflow", "db", "upgrade", uri]
    subprocess.run(upgrade, check=True, capture_output=True)
    with closing(sqlite3.connect(path)) as tables:
        (n_runs,) = tables.execute("select count(*) from runs").fetchone()
        active = sorted(row[0] for row in tables.execute(ACTIVE))
    with mlflow_server(uri, folder) as url:
        store = MlflowStore(url)
        assert store.database is None
        by_http = harvest(store, dry_run=True).dataset
    return Account(
        n_runs=n_runs,
        active=active,
        by_http=accounted(by_http),
        by_http_bytes=by_http.to_parquet(),
        by_sql_bytes=harvest(MlflowStore(uri), dry_run=True).dataset.to_parquet(),
    )


@pytest.mark.slow
def test_every_run_of_every_stranger_is_accounted_for_over_http(tmp_path: Path) -> None:
    archives = sorted((SHARED / "stores").glob("*.db.gz"))
    need(archives, "the strangers' tracking stores (shared/stores) are not here")
    with ThreadPoolExecutor(2) as pool:
        accounts = list(pool.map(lambda archive: account(archive, tmp_path), archives))
    for archive, of in zip(archives, accounts, strict=True):
        assert of.by_http == of.active, archive.name
        assert of.by_http_bytes == of.by_sql_bytes, archive.name
    assert sum(of.n_runs for of in accounts) == STRANGERS
    assert sum(len(of.active) for of in accounts) == N_ACTIVE  # by SQL


@pytest.mark.slow
def test_the_odd_inputs_of_the_shared_tool_are_accounted_for(
    sqlite_uri: str, tmp_path: Path
) -> None:
    need(ODD.is_file(), "the tool that logs odd inputs (shared/tools) is not here")
    with mlflow_server(sqlite_uri, tmp_path) as url:
        cases = log_odd_inputs(url, tmp_path / "cases.json")
        with closing(sqlite3.connect(sqlite_uri.removeprefix("sqlite:///"))) as tables:
            active = sorted(row[0] for row in tables.execute(ACTIVE))
        check_odd_inputs(url, cases, active, tmp_path)


@pytest.mark.slow
@pytest.mark.postgres
def test_the_odd_inputs_of_the_shared_tool_on_postgres_too(
    postgres_uri: str, tmp_path: Path
) -> None:
    need(ODD.is_file(), "the tool that logs odd inputs (shared/tools) is not here")
    plain = postgres_uri.replace("postgresql+psycopg2", "postgresql")
    with closing(psycopg2.connect(plain)) as admin:
        admin.autocommit = True
        with admin.cursor() as cursor:
            cursor.execute("CREATE DATABASE odd_inputs")
    with mlflow_server(postgres_uri.rsplit("/", 1)[0] + "/odd_inputs", tmp_path) as url:
        cases = log_odd_inputs(url, tmp_path / "cases.json")
        with (
            closing(psycopg2.connect(plain.rsplit("/", 1)[0] + "/odd_inputs")) as database,
            database.cursor() as cursor,
        ):
            cursor.execute(ACTIVE)
            active = sorted(row[0] for row in cursor.fetchall())
        check_odd_inputs(url, cases, active, tmp_path)


def log_odd_inputs(url: str, out: Path) -> list[dict[str, Any]]:
    """Run the tool; its cases, each with the run's id and how the server has answered."""
    argv = [sys.executable, str(ODD), "--uri", url, "--out", str(out), "--heavy"]
    subprocess.run(argv, check=True, capture_output=True)
    rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"]
    assert len(rows) > 266
    return rows


def check_odd_inputs(
    url: str, cases: list[dict[str, Any]], active: list[str], folder: Path
) -> None:
    """The tool's runs lack an end, save a few: first as they are, then all of them finished."""
    first, dataset = harvested(url, folder)
    assert first["n_trials"] + first["n_quarantined"] == len(active)
    assert accounted(dataset) == active
    said = dict(zip(dataset.quarantine["run_id"], dataset.quarantine["reason"], strict=True))
    for case in cases:
        if case["run_id"] in said:
            expected = ENDED.get(case["case"], "running")
            assert expected in said[case["run_id"]], case["case"]
    store = MlflowStore(url)
    for run_id, reason in said.items():
        if "running" in reason:
            store.set_status(run_id, "FINISHED")
    second, dataset = harvested(url, folder)
    assert second["n_trials"] + second["n_quarantined"] == len(active)
    assert accounted(dataset) == active
    check_labels(dataset, {case["run_id"]: case["case"] for case in cases if case["run_id"]})


def harvested(url: str, folder: Path) -> tuple[dict[str, Any], MetaDataset]:
    out = folder / "harvest.parquet"
    options = ("--all-experiments", "--full", "--json", "--out", str(out))
    done = mlflow_meta("harvest", *options, tracking_uri=url)
    assert done.code == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.peak_bytes < 2 * GB, done.peak
    return json.loads(done.stdout), MetaDataset.from_parquet(out.read_bytes())


def check_labels(dataset: MetaDataset, case_of: dict[str, str]) -> None:
    """Each metric that is learned from is the one that the tool has sent, or was never junk."""
    wrong = []
    frame = dataset.frame
    for _, row in frame[frame["run_id"].isin(case_of)].iterrows():
        case = case_of[row["run_id"]]
        learned = {
            column.removeprefix("metrics."): row[column]
            for column in frame
            if column.startswith("metrics.") and row[column] == row[column]
        }
        sent = MANY if case == "m.many_1000" else LABELS.get(case, {})
        kept = {name: sent[name] for name in sent if f"metrics.{name}" in frame}
        if learned != kept or not sent:  # `kept`: of more than MAX_METRICS names some are cut
            wrong.append((case, learned))
    assert not wrong
    quarantined = {case_of.get(run_id) for run_id in dataset.quarantine["run_id"]}
    assert not quarantined & set(LABELS)
    assert {f"m.{case}" for case in NO_LABEL} <= quarantined
