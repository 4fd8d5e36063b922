"""Reading MySQL: the same as over REST, to the byte. The server is a MariaDB of our own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hostile
import numpy as np
import pymysql
import pytest
from conftest import add_run
from mlflow import MlflowClient
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag
from servers import mlflow_server
from sqlalchemy import make_url
from test_readers import check_hostile, meta, read_both

from mlflow_meta.errors import Unreadable
from mlflow_meta.store import MlflowStore, mysql
from mlflow_meta.store.runs import by_key
from mlflow_meta.store.sql import read_sql

pytestmark = pytest.mark.mysql

PASSWORD = "hunter%2/@:"
TEXTS = (
    "a,b",
    '"',
    '""',
    "a\nb\r\n",
    "\\",
    "\\n",
    "'",
    "",
    " ",
    "x ",
    "NULL",
    "\ufeff",
    "😀",
    "\0",
)
KEYS = ("MLflow.x", "Mlflow.databricks.x", "mlflöw.y", "mlflow", "mlflow.note.content", "é", "a b")
FLOATS = (0.1, 1 / 3, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 2.0**53 + 1)


@contextmanager
def connected(uri: str) -> Iterator[pymysql.cursors.Cursor]:
    """As the server's root."""
    url = make_url(uri)
    with pymysql.connect(
        host=url.host, port=url.port, user=url.username, database=url.database, autocommit=True
    ) as connection:
        yield connection.cursor()


def experiments(store: MlflowStore) -> dict[str, str]:
    return {e.experiment_id: e.name for e in store.experiments()}


@pytest.fixture(scope="module")
def filled(mysql_uri: str) -> str:
    """Texts and numbers that are easily lost on the way."""
    client = MlflowClient(mysql_uri)
    experiment = client.create_experiment("exact")
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 2**63, 1000, dtype=np.uint64).view(np.float64)
    floats = (*FLOATS, *drawn[np.isfinite(drawn)].tolist(), float("nan"))
    run_id = add_run(
        client,
        experiment,
        params={f"p{i}": text for i, text in enumerate(TEXTS)},
        metrics={f"m{i:04d}": value for i, value in enumerate(floats[:900])},
        tags=dict.fromkeys(KEYS, "1") | {f"t{i}": text for i, text in enumerate(TEXTS)},
    )
    for context in ("mlflow.data.context", "MLflow.Data.Context"):
        dataset = MetaDataset(HTTPDatasetSource("https://example.org/x"), name=f"of {context}")
        tags = [InputTag(context, "training")]
        client.log_inputs(run_id, [DatasetInput(dataset._to_mlflow_entity(), tags)])
    add_run(client, experiment, params={}, metrics={}, status="RUNNING")
    return mysql_uri


@pytest.mark.parametrize("batch_chars", [mysql.BATCH_CHARS, 100])
def test_both_readers_give_the_same_bytes_on_mysql(
    filled: str, batch_chars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "BATCH_CHARS", batch_chars)
    by_sql, by_pages = read_both(MlflowStore(filled))
    assert by_sql.to_bytes() == by_pages.to_bytes()
    tags = {key for key, _, _ in by_key(by_sql.tags)}
    assert tags >= set(KEYS) - {"mlflow.note.content"}
    assert "mlflow.note.content" not in tags
    assert set(by_sql.inputs["context"].to_pylist()) == {"", "training"}


def test_numbers_and_texts_are_those_that_were_logged(filled: str) -> None:
    known = experiments(MlflowStore(filled))  # other tests have runs in this database too
    read = read_sql(filled, {id: name for id, name in known.items() if name == "exact"})
    metrics = {key: values[0].as_py() for key, _, values in by_key(read.metrics)}
    for i, value in enumerate(FLOATS):
        assert metrics[f"m{i:04d}"].hex() == value.hex()
    params = {key: values[0].as_py() for key, _, values in by_key(read.params)}
    assert tuple(params[f"p{i}"] for i in range(len(TEXTS))) == TEXTS


def test_what_is_written_while_we_read_is_not_seen(filled: str) -> None:
    known = experiments(MlflowStore(filled))
    before = read_sql(filled, known).to_bytes()

    def write(_: int) -> None:
        with connected(filled) as cursor:
            cursor.execute("UPDATE params SET value = 'late' WHERE `key` = 'p0'")

    assert read_sql(filled, known, write).to_bytes() == before
    assert read_sql(filled, known).to_bytes() != before


def test_what_the_server_cuts_is_not_taken_for_whole(
    filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MlflowStore(filled)
    whole = meta(store)
    monkeypatch.setattr(mysql, "MAX_RUN_BYTES", 1000)
    with pytest.raises(Unreadable, match="may not be whole"):
        read_sql(filled, experiments(store))
    assert meta(store) == whole


def test_a_user_needs_to_select_from_the_tables_of_runs_and_no_more(filled: str) -> None:
    known = experiments(MlflowStore(filled))
    user = make_url(filled).set(username="reader", password=PASSWORD)
    uri = user.render_as_string(hide_password=False)
    tables = ("alembic_version", "experiments", "runs", "params", "latest_metrics", "datasets")
    with connected(filled) as cursor:
        cursor.execute("CREATE USER reader IDENTIFIED BY %s", (PASSWORD,))
        for table in (*tables, "inputs", "input_tags"):
            cursor.execute(f"GRANT SELECT ON mlflow.{table} TO reader")
        with pytest.raises(Unreadable, match=r"denied.*tags") as caught:
            read_sql(uri, known)
        assert PASSWORD not in str(caught.value)
        cursor.execute("GRANT SELECT ON mlflow.tags TO reader")
    assert read_sql(uri, known).to_bytes() == read_sql(filled, known).to_bytes()


def test_a_wrong_password_is_no_error_and_is_not_shown(
    filled: str, store: MlflowStore, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = make_url(filled).set(username="nobody", password=PASSWORD)
    other = MlflowStore(store.uri, store_uri=wrong.render_as_string(hide_password=False))
    with caplog.at_level(logging.WARNING, logger="mlflow_meta"):
        assert meta(other) == meta(store)
    (record,) = caplog.records
    assert "Access denied" in record.getMessage()
    assert "over REST" in record.getMessage()
    assert "hunter" not in record.getMessage()


@pytest.mark.slow
def test_each_hostile_run_on_mysql_too(mysql_uri: str, tmp_path: Path) -> None:
    with mlflow_server(mysql_uri, tmp_path) as url:
        cases = hostile.fill(url, "hostile")
        check_hostile(MlflowStore(url), MlflowStore(mysql_uri), cases)


@pytest.mark.parametrize("lines", [['"a",'], ['"a",', '"b","1"'], ['"b","1"', '"a",'], ['"a",""']])
def test_a_cell_that_is_not_set_is_none_wherever_it_stands(lines: list[str]) -> None:
    (batch,) = mysql._parsed(lines, 2)
    cells = dict(zip(*(column.to_pylist() for column in batch.columns), strict=True))
    assert cells["a"] == ("" if lines == ['"a",""'] else None)
