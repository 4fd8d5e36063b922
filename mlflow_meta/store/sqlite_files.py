"""Asking an SQLite file, which this process may be writing at the same time.

Two SQLite libraries are in this process: Python's own, by which MLflow writes, and ADBC's, which
reads three times as fast. A process has one set of locks on a file, and the system drops all of
them when any of its handles is closed (sqlite.org/howtocorrupt.html, section 2.2.1). So Python's
library takes the lock, ADBC's reads beneath it and takes none, and its handles stay open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow as pa
from adbc_driver_manager import dbapi
from adbc_driver_sqlite import dbapi as adbc

from mlflow_meta.store.pool import Ask, Pool, asks

AT_ONCE = 2  # handles that read at the same time
WAIT_S = 30.0  # for a writer to finish
MAX_KEPT = 16  # handles that stay open; the file that was read longest ago is closed first

_pool = Pool(MAX_KEPT)


@contextmanager
def asking(path: Path, *, batch_rows: int) -> Iterator[list[Ask]]:
    """Ways to ask a database by SQL, at the same time; all answers are of one moment.

    Args:
        path: The file; it is not written to.
        batch_rows: Rows of one batch.
    """
    guard = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=WAIT_S, isolation_level=None,
        check_same_thread=False,
    )  # fmt: skip
    with closing(guard):
        (mode,) = guard.execute("PRAGMA journal_mode").fetchone()
        guard.execute("BEGIN")
        guard.execute("SELECT count(*) FROM sqlite_master").fetchone()  # begins to read
        if mode == "wal":  # writers do not wait for readers: what this one sees is its own
            yield [_by_python(guard, batch_rows)]
            return
        keys = [_key(path, place) for place in range(AT_ONCE)]
        handles = [_taken(path, key) for key in keys]
        try:
            options = {"adbc.sqlite.query.batch_rows": str(batch_rows)}
            yield [asks(handle, options) for handle in handles]
        finally:
            for key, handle in zip(keys, handles, strict=True):
                _put_back(key, handle)


def _by_python(connection: sqlite3.Connection, batch_rows: int) -> Ask:
    def ask(text: str) -> Iterator[pa.RecordBatch]:
        rows = connection.execute(text)
        names = [str(i) for i in range(len(rows.description))]
        while part := rows.fetchmany(batch_rows):
            columns = [pa.array(column) for column in zip(*part, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, names)

    return ask


def _taken(path: Path, key: tuple[int, int, int]) -> dbapi.Connection:
    """The handle on this very file that is kept, or a new one."""
    return _pool.take(key) or adbc.connect(f"{path.absolute().as_uri()}?mode=ro&nolock=1")


def _put_back(key: tuple[int, int, int], handle: dbapi.Connection) -> None:
    handle.rollback()  # the next transaction looks whether the file has changed
    _pool.put_back(key, handle)


def _key(path: Path, place: int) -> tuple[int, int, int]:
    """A file is told by its number: another one may have taken its place and name."""
    about = path.stat()
    return about.st_dev, about.st_ino, place
