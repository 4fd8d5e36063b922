"""Reading runs straight from the tracking server's database: read-only, and in one transaction.

ADBC hands over SQLite's and Postgres' rows as Arrow columns; SQLAlchemy does it for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from adbc_driver_manager import Error as AdbcError
from adbc_driver_manager import dbapi
from adbc_driver_postgresql import dbapi as postgres
from adbc_driver_sqlite import dbapi as sqlite
from sqlalchemy.dialects import postgresql as postgres_dialect
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.engine import Dialect

from mlflow_meta.errors import Unreadable
from mlflow_meta.store.runs import (
    DATABRICKS_PREFIX,
    INFOS,
    INPUTS,
    KEY,
    METRICS,
    MLFLOW_PREFIX,
    MLFLOW_TAGS,
    OUTPUTS,
    TEXTS,
    Runs,
    relevant,
    shortened,
)

BATCH_ROWS = 100_000  # rows of one batch; bounds what is in memory beside the columns
_REVISIONS = """
2d6e25af4d3e acf3f17fdcc7 867495a8f9d4 5b0e9adcef9c 4465047574b1 f5a4f2784254
0584bdc529eb 400f98739977 6953534de441 bda7b8c39065 cbc13b556ace 770bee3ae1dd
a1b2c3d4e5f6 de4033877273 1a0cddfcaa16 534353b11cbc 71994744cf8e 3da73c924c2f
bf29a5ff90ea 1bd49d398cd23 b7c8d9e0f1a2 5d2d30f0abce c9d4e5f6a7b8 2c33131f4dae
d3e4f5a6b7c8 d0e1f2a3b4c5 c8d9e0f1a2b3 1b5f0d9ad7c1 e1f2a3b4c5d6 76601a5f987d
c3d6457b6d8a a5b4c3d2e1f0 ae8bbe7743c9 7d34483879f0 da6fb0208061 89d3d66ed43f
b7e4c1a90f23 a8b9c0d1e2f3 c1d2e3f4a5b6 c3d9e7f1a2b4 6f8d9c3b2a1e 1971f2d9a75b
17e22815139b b7e2c1a4d9f3 75868b020152 dc11669786a5
"""
KNOWN_SCHEMAS = frozenset(_REVISIONS.split())
"""Revisions of MLflow's schema, 2.9 to 3.17, whose tables of runs are as read here."""

Batches = Iterator[pa.RecordBatch]
Select = sa.Select[Any]
Query = Callable[[Select], Batches]
Keep = Callable[[pa.Table], pa.Table]
CONTEXT_TAG = "mlflow.data.context"

_RUNS = sa.table(
    "runs",
    *map(
        sa.column,
        ("run_uuid", "experiment_id", "status", "start_time", "end_time", "lifecycle_stage"),
    ),
)
_PARAMS = sa.table("params", *map(sa.column, ("run_uuid", "key", "value")))
_TAGS = sa.table("tags", *map(sa.column, ("run_uuid", "key", "value")))
_POINTS = ("run_uuid", "key", "value", "timestamp", "step", "is_nan")
_LATEST = sa.table("latest_metrics", *map(sa.column, _POINTS))
_DATASETS = sa.table(
    "datasets",
    *map(sa.column, ("dataset_uuid", "name", "digest", "dataset_schema", "dataset_profile")),
)
_INPUTS = sa.table(
    "inputs",
    *map(
        sa.column, ("input_uuid", "source_type", "source_id", "destination_type", "destination_id")
    ),
)
_INPUT_TAGS = sa.table("input_tags", *map(sa.column, ("input_uuid", "name", "value")))
_SCHEMA = sa.table("alembic_version", sa.column("version_num"))
_EXPERIMENTS = sa.table("experiments", *map(sa.column, ("experiment_id", "name")))


def read_sql(
    uri: str,
    experiments: dict[str, str],
    progress: Callable[[int], None] = lambda _: None,
) -> Runs:
    """The active runs of some experiments.

    Args:
        uri: The database, as SQLAlchemy spells it.
        experiments: Id -> name, as the tracking server has them.
        progress: Called with how many runs there are.

    Raises:
        Unreadable: If it can't be read, is of a schema that is not known here, or is not the
            tracking server's. Nothing was changed; read over REST instead.
    """
    try:
        with _open(uri) as query:
            _check(query, experiments)
            return _read(query, list(experiments), progress)
    except (AdbcError, sa.exc.SQLAlchemyError, ImportError, OSError) as error:
        raise Unreadable(" ".join(str(error).split())[:200]) from error


def _check(query: Query, experiments: dict[str, str]) -> None:
    found = {text for row in query(sa.select(_SCHEMA.c.version_num)) for text in _texts(row, 0)}
    if not found <= KNOWN_SCHEMAS:
        raise Unreadable(f"its schema {', '.join(sorted(found))} is none of MLflow 2.9 to 3.17")
    wanted = sa.select(_text(_EXPERIMENTS.c.experiment_id), _EXPERIMENTS.c.name)
    there = {
        experiment: name
        for row in query(wanted)
        for experiment, name in zip(_texts(row, 0), _texts(row, 1), strict=True)
    }
    for experiment, name in experiments.items():
        if there.get(experiment) != name:
            raise Unreadable(
                f"it is not the tracking server's: experiment {experiment} is {name!r} on the "
                f"server, and {there.get(experiment)!r} in the database"
            )


def _read(query: Query, experiments: list[str], progress: Callable[[int], None]) -> Runs:
    r = _RUNS.c
    wanted = sa.and_(
        r.lifecycle_stage == "active", r.experiment_id.in_([int(e) for e in experiments])
    )
    columns = (r.run_uuid, _text(r.experiment_id), r.status, r.start_time, r.end_time)
    infos = pa.concat_tables(
        [
            INFOS.empty_table(),
            *(
                pa.table(batch.columns, names=INFOS.names).cast(INFOS)
                for batch in query(sa.select(*columns).where(wanted))
            ),
        ]
    )
    progress(infos.num_rows)
    total = sum(
        count
        for row in query(sa.select(sa.func.count().label("n")).select_from(_RUNS))
        for count in row.column(0).to_pylist()
    )
    # All of a table is read faster than a part of it that is looked up run by run.
    part = wanted if 2 * infos.num_rows < total else None
    ids = infos["run_id"].combine_chunks()
    t, d, i = _TAGS.c, _DATASETS.c, _INPUTS.c
    ours = sa.or_(
        sa.func.substr(t.key, 1, len(MLFLOW_PREFIX)) != MLFLOW_PREFIX,
        t.key.in_(MLFLOW_TAGS),
        sa.func.substr(t.key, 1, len(DATABRICKS_PREFIX)) == DATABRICKS_PREFIX,
    )
    inputs = (
        sa.select(
            i.destination_id,
            d.name,
            d.digest,
            *(sa.func.coalesce(column, "") for column in (d.dataset_schema, d.dataset_profile)),
            sa.func.coalesce(_INPUT_TAGS.c.value, ""),
        )
        .join(_DATASETS, d.dataset_uuid == i.source_id)
        .outerjoin(
            _INPUT_TAGS,
            sa.and_(_INPUT_TAGS.c.input_uuid == i.input_uuid, _INPUT_TAGS.c.name == CONTEXT_TAG),
        )
        .where(i.source_type == "DATASET", i.destination_type == "RUN")
    )

    outputs = (
        sa.select(i.source_id, sa.func.max(i.destination_id).label("model_id"))
        .where(i.source_type == "RUN_OUTPUT", i.destination_type == "MODEL_OUTPUT")
        .group_by(i.source_id)
    )

    def items(
        schema: pa.Schema, select: Select, run: sa.ColumnElement[str], *, keep: Keep = _as_read
    ) -> pa.Table:
        if part is not None:
            select = select.join(_RUNS, r.run_uuid == run).where(part)
        return _items(schema, query(select), ids, keep)

    return Runs(
        infos=infos,
        params=items(TEXTS, _texts_of(_PARAMS), _PARAMS.c.run_uuid, keep=shortened),
        tags=items(TEXTS, _texts_of(_TAGS).where(ours), t.run_uuid, keep=relevant),
        metrics=items(METRICS, _points_of(_LATEST), _LATEST.c.run_uuid, keep=_without_nan),
        inputs=items(INPUTS, inputs, i.destination_id),
        outputs=items(OUTPUTS, outputs, i.source_id),
    ).in_order()


def _texts_of(table: sa.TableClause) -> Select:
    return sa.select(table.c.run_uuid, table.c.key, sa.func.coalesce(table.c.value, ""))


def _points_of(table: sa.TableClause) -> Select:
    c = table.c
    return sa.select(c.run_uuid, c.key, c.value, c.timestamp, c.step, c.is_nan)


def _items(schema: pa.Schema, batches: Batches, ids: pa.Array, keep: Keep) -> pa.Table:
    """The items of the runs in `ids`, in the columns of `schema`."""
    tables = [schema.empty_table()]
    for batch in batches:
        run = pc.index_in(batch.column(0), value_set=ids)
        columns = [run, *batch.columns[1:]]
        named = pa.table(columns, names=[*schema.names, "is_nan"][: len(columns)])
        if run.null_count:
            named = named.filter(pc.is_valid(run))
        for position, field in enumerate(schema):
            if field.type == KEY:
                coded = pc.dictionary_encode(named.column(position).cast(pa.string()))
                named = named.set_column(position, field.name, coded)
        tables.append(keep(named).select(schema.names).cast(schema))
    return pa.concat_tables(tables)


def _as_read(table: pa.Table) -> pa.Table:
    return table


def _without_nan(table: pa.Table) -> pa.Table:
    """MLflow keeps a NaN as 0 with a mark."""
    value = pc.if_else(table["is_nan"].cast(pa.bool_()), np.nan, table["value"].cast(pa.float64()))
    return table.set_column(table.column_names.index("value"), "value", value)


def _texts(batch: pa.RecordBatch, column: int) -> list[str]:
    return [str(value) for value in batch.column(column).to_pylist()]


@contextmanager
def _open(uri: str) -> Iterator[Query]:
    """How to ask the database; all answers are of one moment, where the database can do that."""
    url = sa.make_url(uri)
    kind = url.get_backend_name()
    if kind == "sqlite" and url.database:
        with sqlite.connect(f"{Path(url.database).absolute().as_uri()}?mode=ro") as connection:
            options = {"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)}
            yield _asks(connection, sqlite_dialect.dialect(), options)
    elif kind == "postgresql":
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with postgres.connect(plain) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            dialect = postgres_dialect.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
            yield _asks(connection, dialect, {})
    else:
        with _asks_sqlalchemy(uri) as query:
            yield query


def _asks(connection: dbapi.Connection, dialect: Dialect, options: dict[str, str]) -> Query:
    def query(select: Select) -> Batches:
        text = str(select.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
        with connection.cursor() as cursor:
            if options:
                cursor.adbc_statement.set_options(**options)
            cursor.execute(text)
            yield from cursor.fetch_record_batch()

    return query


@contextmanager
def _asks_sqlalchemy(uri: str) -> Iterator[Query]:
    engine = sa.create_engine(uri)

    def query(select: Select) -> Batches:
        rows = connection.execution_options(stream_results=True).execute(select)
        for part in rows.partitions(BATCH_ROWS):
            columns = [pa.array(column) for column in zip(*part, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, [str(i) for i in range(len(columns))])

    try:
        with engine.connect() as connection:
            yield query
    finally:
        engine.dispose()


def _text(column: sa.ColumnClause[object]) -> sa.ColumnElement[str]:
    return sa.cast(column, sa.String(32))
