"""Asking the tracking server's database: read-only, and in one transaction.

ADBC hands over SQLite's and Postgres' rows as Arrow columns, `mysql` MySQL's and MariaDB's;
SQLAlchemy does it for the others.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import sqlalchemy as sa
from adbc_driver_manager import Error as AdbcError
from sqlalchemy.dialects import postgresql as postgres_dialect
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.engine import Dialect

from mlflow_meta.errors import Unreadable
from mlflow_meta.store import mysql, postgres, sqlite_files
from mlflow_meta.store.secrets import REDACTED

BATCH_ROWS = 50_000  # rows of one batch; bounds what is in memory beside the columns

_SQLITE = sqlite_dialect.dialect()
_POSTGRES = postgres_dialect.dialect(paramstyle="named")  # type: ignore[no-untyped-call]

_FAILURES = (
    AdbcError, sqlite3.Error, sa.exc.SQLAlchemyError, ImportError, OSError, ValueError
)  # fmt: skip
Batches = Iterator[pa.RecordBatch]
Select = sa.Select[Any]
Query = Callable[[Select], Batches]


@contextmanager
def asking(uri: str) -> Iterator[Sequence[Query]]:
    """Ways to ask a database at the same time, at least one.

    All answers are of one moment, where the database can do that.

    Args:
        uri: The database, as SQLAlchemy spells it.

    Raises:
        Unreadable: If it can't be opened or asked; in one line, without the password.
    """
    try:
        url = sa.make_url(uri)
        kind = url.get_backend_name()
        with ExitStack() as stack:
            if kind == "sqlite" and url.database:
                file = sqlite_files.asking(Path(url.database), batch_rows=BATCH_ROWS)
                yield [_asks(ask, _SQLITE) for ask in stack.enter_context(file)]
            elif kind == "postgresql":
                plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
                server = postgres.asking(plain)
                yield [_asks(ask, _POSTGRES) for ask in stack.enter_context(server)]
            elif kind in ("mysql", "mariadb"):
                yield [stack.enter_context(mysql.asking(url))]
            else:
                yield [stack.enter_context(_asks_sqlalchemy(uri))]
    except _FAILURES as error:
        raise Unreadable(_one_line(error, uri)) from error


def _asks(ask: Callable[[str], Batches], dialect: Dialect) -> Query:
    def query(select: Select) -> Batches:
        return ask(str(select.compile(dialect=dialect, compile_kwargs={"literal_binds": True})))

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
