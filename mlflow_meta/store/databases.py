"""Asking the tracking server's database: read-only, and in one transaction.

ADBC hands over SQLite's and Postgres' rows as Arrow columns, `mysql` MySQL's and MariaDB's;
SQLAlchemy does it for the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import sqlalchemy as sa
from adbc_driver_manager import Error as AdbcError
from adbc_driver_manager import dbapi
from adbc_driver_postgresql import dbapi as postgres
from adbc_driver_sqlite import dbapi as sqlite
from sqlalchemy.dialects import postgresql as postgres_dialect
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.engine import Dialect

from mlflow_meta.errors import Unreadable
from mlflow_meta.store import mysql
from mlflow_meta.store.secrets import REDACTED

BATCH_ROWS = 50_000  # rows of one batch; bounds what is in memory beside the columns

Batches = Iterator[pa.RecordBatch]
Select = sa.Select[Any]
Query = Callable[[Select], Batches]


@contextmanager
def asking(uri: str) -> Iterator[Query]:
    """How to ask a database; all answers are of one moment, where the database can do that.

    Args:
        uri: The database, as SQLAlchemy spells it.

    Raises:
        Unreadable: If it can't be opened or asked; in one line, without the password.
    """
    try:
        with _opened(uri) as query:
            yield query
    except (AdbcError, sa.exc.SQLAlchemyError, ImportError, OSError, ValueError) as error:
        raise Unreadable(_one_line(error, uri)) from error


@contextmanager
def _opened(uri: str) -> Iterator[Query]:
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
    elif kind in ("mysql", "mariadb"):
        with mysql.asking(url) as query:
            yield query
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


def _one_line(error: Exception, uri: str) -> str:
    """What went wrong, without the password: drivers repeat addresses that they can't read."""
    text = re.sub(r"(?<=://)\S*@", f"{REDACTED}@", " ".join(str(error).split()))
    password = uri.partition("://")[2].rpartition("@")[0].partition(":")[2]
    for secret in {password, unquote(password)} - {""}:
        text = text.replace(secret, REDACTED)
    return text[:200]
