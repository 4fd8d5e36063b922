"""Big MLflow stores: the schema by MLflow itself, the rows in bulk.

The rows are those that MLflow's client would have written, in the order in which it would have, so
that neither reader meets a layout that no real store has. The same arguments give the same rows.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import psycopg2
import pymysql
from mlflow import MlflowClient

N_EXPERIMENTS = 5
OPEN_SHARE = 0.005  # runs that are RUNNING, beside the finished ones
UNTIL_MS = 1_767_225_600_000  # 2026-01-01, the end of the last run unless told otherwise
PERIOD_MS = 6 * 7 * 24 * 3600 * 1000  # the runs start within six weeks
CHUNK = 5_000  # runs made at once: bounds the memory

FLOATS = ("lr", "weight_decay", "dropout", "alpha", "min_delta")
INTS = ("depth", "units", "batch_size", "epochs", "seed")
CATEGORIES = {
    "model": ("tree", "mlp", "forest", "linear"),
    "optimizer": ("adam", "sgd", "rmsprop"),
    "activation": ("relu", "gelu", "tanh"),
    "scheduler": ("cosine", "step", "none"),
    "loss_fn": ("mse", "huber"),
}
BOOLEANS = ("augment", "early_stopping", "bias", "nesterov", "amp")
USER_TAGS = {
    "team": ("red", "green", "blue"),
    "gpu": ("A100", "T4", "V100"),
    "stage": ("dev", "staging"),
    "git_branch": ("main", "sweep", "feature/loss"),
    "dataset_version": ("v1", "v2", "v3"),
    "region": ("eu-west-1", "us-east-1"),
    "priority": ("low", "high"),
    "owner": ("ann", "ben", "eve", "joe"),
    "release": ("1.0.3", "1.1.0", "1.2.0-rc1"),
    "note": ("baseline", "after the fix", "wider search"),
}
METRICS = (
    "val_loss", "val_accuracy", "val_f1", "val_auc", "train_loss", "train_accuracy", "rmse", "mae",
    "latency_ms", "size_mb",
)  # fmt: skip
COLUMNS = {
    "runs": (
        "run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id", "status",
        "start_time", "end_time", "source_version", "lifecycle_stage", "artifact_uri",
        "experiment_id",
    ),
    "params": ("key", "value", "run_uuid"),
    "tags": ("key", "value", "run_uuid"),
    "metrics": ("key", "value", "timestamp", "run_uuid", "step", "is_nan"),
    "latest_metrics": ("key", "value", "timestamp", "run_uuid", "step", "is_nan"),
    "datasets": (
        "dataset_uuid", "experiment_id", "name", "digest", "dataset_source_type", "dataset_source",
        "dataset_schema", "dataset_profile",
    ),
    "inputs": ("input_uuid", "source_type", "source_id", "destination_type", "destination_id"),
    "input_tags": ("input_uuid", "name", "value"),
}  # fmt: skip

Rows = dict[str, list[tuple[Any, ...]]]  # table -> rows, in the order of COLUMNS


SHIFT = "UPDATE runs SET start_time = start_time + {by_ms}, end_time = end_time + {by_ms}"


class Database(Protocol):
    """What all databases can do; what is written is there for others when the block ends."""

    def insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None: ...

    def end_run(self, run_uuid: str, end_ms: int) -> None: ...

    def shift_times(self, by_ms: int) -> None: ...

    def select(self, query: str) -> list[tuple[Any, ...]]: ...

    def without_indexes(self) -> AbstractContextManager[None]:
        """For a block that inserts so much that to build them afterwards is faster."""


def fill_sqlite(
    path: Path, n_runs: int, *, seed: int = 0, until_ms: int = UNTIL_MS
) -> dict[str, str]:
    """Make a store in a new SQLite file. Arguments and result as of `fill_postgres`."""
    return _fill(f"sqlite:///{path}", n_runs, seed, until_ms)


def fill_postgres(
    uri: str, n_runs: int, *, seed: int = 0, until_ms: int = UNTIL_MS
) -> dict[str, str]:
    """Make a store in an empty Postgres database.

    Args:
        uri: As MLflow takes it; the user must be a superuser.
        n_runs: Finished runs; `OPEN_SHARE` as many are RUNNING, beside them.
        seed: Of all that is random.
        until_ms: When the last run ended; epoch milliseconds.

    Returns:
        Experiment name -> id.
    """
    return _fill(uri, n_runs, seed, until_ms)


def fill_mysql(uri: str, n_runs: int, *, seed: int = 0, until_ms: int = UNTIL_MS) -> dict[str, str]:
    """Make a store in an empty MySQL or MariaDB database. Arguments and result as above."""
    return _fill(uri, n_runs, seed, until_ms)


def change(uri: str, share: float, *, now_ms: int, seed: int = 1) -> int:
    """Let a store of `fill_*` age a little, as MLflow would write it.

    Of `share` of the runs half are new and have finished, a quarter were open and have finished
    since, and a quarter are new and open. New ones begin in the last two seconds before `now_ms`;
    all that end do so in the last one.

    Returns:
        How many runs are finished that were not.
    """
    rng = np.random.default_rng([seed, now_ms])
    with _opened(uri) as database:
        datasets = {
            int(experiment): str(uuid)
            for experiment, uuid in database.select(
                "SELECT experiment_id, dataset_uuid FROM datasets ORDER BY experiment_id"
            )
        }
        ours = ", ".join(map(str, datasets))
        runs = database.select(
            "SELECT run_uuid, status FROM runs "
            f"WHERE experiment_id IN ({ours}) ORDER BY start_time, run_uuid"
        )
        n_changed = max(4, round(share * sum(status == "FINISHED" for _, status in runs)))
        still_open = [str(run_uuid) for run_uuid, status in runs if status == "RUNNING"]
        closing_now = still_open[: n_changed // 4]
        ends_ms = now_ms - rng.integers(0, 1000, len(closing_now))
        for run_uuid, end_ms in zip(closing_now, ends_ms.tolist(), strict=True):
            _insert(database, _results(run_uuid, rng.uniform(0, 1, len(METRICS)), end_ms))
            database.end_run(run_uuid, end_ms)
        n_new = n_changed // 2
        n_open = n_changed - n_new - len(closing_now)
        starts_ms = np.sort(now_ms - 1000 - rng.integers(0, 1000, n_new + n_open))
        ends = now_ms - rng.integers(0, 1000, n_new + n_open)
        is_open = np.arange(n_new + n_open) >= n_new
        _insert(database, _runs(datasets, starts_ms, ends, is_open, rng))
    return n_new + len(closing_now)


def age(uri: str, by_s: float) -> None:
    """Make all runs older: what has changed so far did so long before the next harvest."""
    with _opened(uri) as database:
        database.shift_times(-round(by_s * 1000))


def _fill(uri: str, n_runs: int, seed: int, until_ms: int) -> dict[str, str]:
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)  # makes the schema
    ids = {}
    for i in range(N_EXPERIMENTS):
        name = f"sweep-{i}"
        ids[name] = client.create_experiment(name, artifact_location=f"mlflow-artifacts:/{i + 1}")
    rng = np.random.default_rng(seed)
    n_all = n_runs + max(2, round(OPEN_SHARE * n_runs))
    is_open = np.zeros(n_all, dtype=bool)
    is_open[rng.choice(n_all, n_all - n_runs, replace=False)] = True
    duration_ms = rng.integers(5_000, 3_600_000, n_all)
    starts_ms = np.sort(until_ms - 3_600_000 - rng.integers(0, PERIOD_MS, n_all))
    starts_ms[1::50] = starts_ms[: len(starts_ms[1::50]) * 50 : 50]  # some start together
    with _opened(uri) as database, database.without_indexes():
        datasets = _datasets(ids)
        _insert(database, {"datasets": datasets})
        uuids = {int(row[1]): row[0] for row in datasets}
        for i in range(0, n_all, CHUNK):
            part = slice(i, i + CHUNK)
            ends_ms = starts_ms[part] + duration_ms[part]
            _insert(database, _runs(uuids, starts_ms[part], ends_ms, is_open[part], rng))
    return ids


def _datasets(experiments: dict[str, str]) -> list[tuple[Any, ...]]:
    """One data set an experiment, with a schema and a profile as `mlflow.data` writes them."""
    rows = []
    for i, (name, experiment_id) in enumerate(experiments.items()):
        features = [f"feature_{j}" for j in range(8 + i)] + ["target"]
        specs = [{"type": "double", "name": feature, "required": True} for feature in features]
        profile = {"num_rows": 1000 * (i + 1), "num_elements": 1000 * (i + 1) * len(features)}
        source = {"url": f"https://example.org/{name}.csv"}
        rows.append(
            (
                f"{i:032x}",
                int(experiment_id),
                f"{name}-data",
                f"{i:08x}",
                "http",
                json.dumps(source),
                json.dumps({"mlflow_colspec": specs}),
                json.dumps(profile),
            )
        )
    return rows


def _runs(
    datasets: dict[int, str],
    starts_ms: np.ndarray,
    ends_ms: np.ndarray,
    is_open: np.ndarray,
    rng: np.random.Generator,
) -> Rows:
    """The rows of `n` runs, those of one run after those of the run before.

    Args:
        datasets: Experiment id -> uuid of its data set.
        starts_ms: `(n,)`, epoch milliseconds.
        ends_ms: `(n,)`, epoch milliseconds; not looked at where a run is open.
        is_open: `(n,)`; whether a run is RUNNING, and has no metrics yet.
        rng: What is drawn, is drawn for the open runs as well.
    """
    n = len(starts_ms)
    of_experiment = rng.choice(list(datasets), n).tolist()
    run_uuids = [rng.bytes(16).hex() for _ in range(n)]
    params, tags = _params(n, rng), _drawn(USER_TAGS, n, rng)
    results = rng.uniform(0, 1, (n, len(METRICS)))
    away = np.abs(np.log10(np.array(params["lr"], dtype=float)) + 3) / 3  # of 0 to 1
    results[:, 0] = 0.7 * away + 0.3 * results[:, 0]
    rows: Rows = {table: [] for table in COLUMNS}
    for i, (run_uuid, experiment_id) in enumerate(zip(run_uuids, of_experiment, strict=True)):
        start_ms, end_ms = int(starts_ms[i]), int(ends_ms[i])
        name = f"run-{run_uuid[:6]}"
        told = ("UNKNOWN", "", "", "ann", "RUNNING" if is_open[i] else "FINISHED", start_ms)
        uri = f"mlflow-artifacts:/{experiment_id}/{run_uuid}/artifacts"
        end = None if is_open[i] else end_ms
        rows["runs"].append((run_uuid, name, *told, end, "", "active", uri, experiment_id))
        rows["params"] += [(key, values[i], run_uuid) for key, values in params.items()]
        rows["tags"] += [
            ("mlflow.user", "ann", run_uuid),
            ("mlflow.source.name", "train.py", run_uuid),
            ("mlflow.source.type", "LOCAL", run_uuid),
            ("mlflow.runName", name, run_uuid),
            *((key, values[i], run_uuid) for key, values in tags.items()),
        ]
        if not is_open[i]:
            for table, found in _results(run_uuid, results[i], end_ms).items():
                rows[table] += found
        uuid = run_uuid[::-1]
        rows["inputs"].append((uuid, "DATASET", datasets[experiment_id], "RUN", run_uuid))
        rows["input_tags"].append((uuid, "mlflow.data.context", "training"))
    return rows


def _params(n: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """Name -> `n` texts, as MLflow stores them."""
    found = {key: [f"{x:.6g}" for x in 10 ** rng.uniform(-6, 0, n)] for key in FLOATS}
    found |= {key: list(map(str, rng.integers(1, 512, n).tolist())) for key in INTS}
    found |= _drawn(CATEGORIES, n, rng)
    return found | _drawn(dict.fromkeys(BOOLEANS, ("True", "False")), n, rng)


def _drawn(
    choices: dict[str, tuple[str, ...]], n: int, rng: np.random.Generator
) -> dict[str, list[str]]:
    return {key: rng.choice(texts, n).tolist() for key, texts in choices.items()}


def _results(run_uuid: str, values: np.ndarray, end_ms: int) -> Rows:
    """Each metric logged once, just before the end."""
    pairs = zip(METRICS, values.tolist(), strict=True)
    rows = [(key, value, end_ms - 10, run_uuid, 0, 0) for key, value in pairs]
    return {"metrics": rows, "latest_metrics": rows}


def _insert(database: Database, rows: Rows) -> None:
    for table in COLUMNS:
        if rows.get(table):
            database.insert(table, rows[table])


@contextmanager
def _opened(uri: str) -> Iterator[Database]:
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
            # Without the cache, inserting at random places of the primary keys' trees reads files.
            connection.executescript("PRAGMA cache_size=-1000000; PRAGMA synchronous=OFF;")
            with connection:
                yield _Sqlite(connection)
        return
    if parts.scheme.startswith("mysql"):
        host, port, user = parts.hostname or "", parts.port or 3306, parts.username
        database = parts.path.lstrip("/")
        with (
            pymysql.connect(host=host, port=port, user=user, database=database) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SET foreign_key_checks = 0, unique_checks = 0")  # we know
            yield _MySQL(cursor)
            connection.commit()
            cursor.execute(f"ANALYZE TABLE {', '.join(COLUMNS)}")
        return
    with closing(psycopg2.connect(uri.replace("+psycopg2", ""))) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")  # foreign keys: we know
            yield _Postgres(cursor)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")  # autovacuum would, some minutes later


class _Sqlite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        columns, marks = ", ".join(COLUMNS[table]), ", ".join("?" * len(COLUMNS[table]))
        self.connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)

    def end_run(self, run_uuid: str, end_ms: int) -> None:
        self.connection.execute(
            "UPDATE runs SET status = 'FINISHED', end_time = ? WHERE run_uuid = ?",
            (end_ms, run_uuid),
        )

    def shift_times(self, by_ms: int) -> None:
        self.connection.execute(SHIFT.format(by_ms=by_ms))

    def select(self, query: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(query).fetchall()

    def without_indexes(self) -> AbstractContextManager[None]:
        return nullcontext()  # it can't drop primary keys, and these are most of the work


class _MySQL:
    def __init__(self, cursor: pymysql.cursors.Cursor) -> None:
        self.cursor = cursor

    def insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        columns = ", ".join(f"`{column}`" for column in COLUMNS[table])
        marks = ", ".join(["%s"] * len(COLUMNS[table]))  # PyMySQL makes one INSERT of many rows
        self.cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)

    def end_run(self, run_uuid: str, end_ms: int) -> None:
        self.cursor.execute(
            "UPDATE runs SET status = 'FINISHED', end_time = %s WHERE run_uuid = %s",
            (end_ms, run_uuid),
        )

    def shift_times(self, by_ms: int) -> None:
        self.cursor.execute(SHIFT.format(by_ms=by_ms))

    def select(self, query: str) -> list[tuple[Any, ...]]:
        self.cursor.execute(query)
        return list(self.cursor.fetchall())

    def without_indexes(self) -> AbstractContextManager[None]:
        return nullcontext()  # tables are their primary keys' trees


class _Postgres:
    def __init__(self, cursor: Any) -> None:
        self.cursor = cursor

    def insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        lines = ("\t".join(r"\N" if x is None else str(x) for x in row) for row in rows)
        text = io.StringIO("\n".join(lines))  # COPY's text: nothing of ours needs escaping
        self.cursor.copy_from(text, table, columns=COLUMNS[table])

    def end_run(self, run_uuid: str, end_ms: int) -> None:
        self.cursor.execute(
            "UPDATE runs SET status = 'FINISHED', end_time = %s WHERE run_uuid = %s",
            (end_ms, run_uuid),
        )

    def shift_times(self, by_ms: int) -> None:
        self.cursor.execute(SHIFT.format(by_ms=by_ms))

    def select(self, query: str) -> list[tuple[Any, ...]]:
        self.cursor.execute(query)
        return list(self.cursor.fetchall())

    @contextmanager
    def without_indexes(self) -> Iterator[None]:
        tables = ("params", "tags", "metrics", "latest_metrics")  # no other refers to their keys
        keys = self.select(
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) "
            f"FROM pg_constraint WHERE contype = 'p' AND conrelid::regclass::text IN {tables}"
        )
        for table, name, _ in keys:
            self.cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        indexes = self.select(
            f"SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN {tables}"
        )
        for name, _ in indexes:
            self.cursor.execute(f"DROP INDEX {name}")
        yield
        for table, name, definition in keys:
            self.cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
        for _, definition in indexes:
            self.cursor.execute(definition)
