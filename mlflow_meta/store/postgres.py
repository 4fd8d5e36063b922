"""Asking Postgres over several connections at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from adbc_driver_manager import Error as AdbcError
from adbc_driver_manager import dbapi
from adbc_driver_postgresql import dbapi as adbc

from mlflow_meta.store.pool import Ask, Pool, asks, close

AT_ONCE = 3  # connections that read at the same time
MAX_KEPT = 6  # connections that stay open: to open one takes as long as to read 2,000 runs

_OPTIONS = {"adbc.postgresql.batch_size_hint_bytes": "2000000"}  # bounds what is in memory
_BEGIN = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"

_pool = Pool(MAX_KEPT)


@contextmanager
def asking(uri: str) -> Iterator[list[Ask]]:
    """Ways to ask a database by SQL, at the same time; all answers are of one moment.

    Args:
        uri: The database, as libpq spells it. Where its user is allowed fewer connections, there
            are fewer ways.
    """
    with ThreadPoolExecutor(AT_ONCE) as threads:  # each new one asks for all types that there are
        opening = [threads.submit(_begun, uri, place) for place in range(AT_ONCE)]
    begun: dict[int, dbapi.Connection] = {}
    refusals: list[Exception] = []
    for place, one in enumerate(opening):
        try:
            begun[place] = one.result()
        except AdbcError as error:
            refusals.append(error)
    if not begun:
        raise refusals[0]
    try:
        yield [asks(connection, _OPTIONS) for connection in _at_one_moment(list(begun.values()))]
    finally:
        for place, connection in begun.items():
            _put_back((uri, place), connection)


def _begun(uri: str, place: int) -> dbapi.Connection:
    """A connection in a new transaction: the one that was kept, unless it was lost meanwhile."""
    kept = _pool.take((uri, place))
    if kept is not None:
        try:
            return _begin(kept)
        except AdbcError:
            close(kept)
    fresh = adbc.connect(uri, autocommit=True)
    try:
        return _begin(fresh)
    except AdbcError:
        close(fresh)
        raise


def _begin(connection: dbapi.Connection) -> dbapi.Connection:
    connection.adbc_connection.set_autocommit(False)
    _do(connection, _BEGIN)
    return connection


def _at_one_moment(connections: list[dbapi.Connection]) -> list[dbapi.Connection]:
    """The first, and those of the others that can see what it sees."""
    first, *others = connections
    seeing = [first]
    if others:
        (moment,) = _rows(first, "SELECT pg_export_snapshot()")[0]
        for other in others:
            with suppress(AdbcError):  # behind a proxy it may be of another server
                _do(other, f"SET TRANSACTION SNAPSHOT '{moment}'")
                seeing.append(other)
    return seeing


def _put_back(key: tuple[str, int], connection: dbapi.Connection) -> None:
    try:
        connection.rollback()
        connection.adbc_connection.set_autocommit(True)  # else it idles within a transaction
    except AdbcError:
        close(connection)
    else:
        _pool.put_back(key, connection)


def _rows(connection: dbapi.Connection, text: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(text)
        return [tuple(row) for row in cursor.fetchall()]


def _do(connection: dbapi.Connection, text: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(text)
