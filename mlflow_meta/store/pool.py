"""Connections by ADBC: asking them, and keeping them open from one reading to the next."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from threading import Lock

import pyarrow as pa
from adbc_driver_manager import Error as AdbcError
from adbc_driver_manager import dbapi

Ask = Callable[[str], Iterator[pa.RecordBatch]]


class Pool:
    """Idle connections: at most one of a key, and of all keys those that were used last."""

    def __init__(self, most: int) -> None:
        """Keep at most `most` connections."""
        self._most = most
        self._idle: dict[Hashable, dbapi.Connection] = {}
        self._lock = Lock()
        atexit.register(self._close_all)
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def take(self, key: Hashable) -> dbapi.Connection | None:
        """The idle connection of a key, which is the caller's now; None if there is none."""
        with self._lock:
            return self._idle.pop(key, None)

    def put_back(self, key: Hashable, connection: dbapi.Connection) -> None:
        """Keep a connection in which nothing is going on, or close it."""
        with self._lock:
            over = [self._idle.pop(next(iter(self._idle)))] if len(self._idle) >= self._most else []
            over += [other] if (other := self._idle.pop(key, None)) else []
            self._idle[key] = connection
        for old in over:
            close(old)

    def _close_all(self) -> None:
        while self._idle:
            close(self._idle.popitem()[1])

    def _leave_to_parent(self) -> None:
        """In a forked process: to close its copies would end the parent's connections."""
        self._lock = Lock()
        _left.extend(self._idle.values())
        self._idle = {}


_left: list[dbapi.Connection] = []
"""Held for good, since a connection that is let go is closed."""


def asks(connection: dbapi.Connection, options: Mapping[str, str]) -> Ask:
    """How to ask a connection by SQL, with these options of its driver's statements."""

    def ask(text: str) -> Iterator[pa.RecordBatch]:
        with connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**options)
            cursor.execute(text)
            yield from cursor.fetch_record_batch()

    return ask


def close(connection: dbapi.Connection) -> None:
    """Close a connection, which may be broken."""
    with suppress(AdbcError):
        connection.close()
