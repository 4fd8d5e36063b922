"""No waiting for acknowledgements: answers of `mlflow server` arrive 40 ms earlier.

Its workers send an answer in two parts, and the second waits until the first is acknowledged, which
the system puts off for 40 ms on a connection that was used before. It does not where it is told to
acknowledge at once (TCP_QUICKACK, Linux), which has to be said before each answer.
"""

from __future__ import annotations

import functools
import socket
import threading
from collections.abc import Callable
from typing import Any

from mlflow.utils import request_utils
from requests import Session
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse

from mlflow_meta.store.patience import PatientAdapter

_mounting = threading.Lock()


class _Quick(HTTPConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # as urllib3's own is
        _acknowledge_at_once(self.sock)
        return super().getresponse()


class _QuickTls(HTTPSConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # as urllib3's own is
        _acknowledge_at_once(self.sock)
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Quick


class _PoolTls(HTTPSConnectionPool):
    ConnectionCls = _QuickTls


def hasten() -> None:
    """Let all sessions of MLflow's own in this process ask patiently, and by such connections."""
    if not hasattr(request_utils._get_request_session, "__wrapped__"):
        request_utils._get_request_session = _patient(request_utils._get_request_session)


def _patient(theirs: Callable[..., Session]) -> Callable[..., Session]:
    """MLflow's sessions, of which it keeps one for each way to try again and for each process."""

    @functools.wraps(theirs)
    def session(*args: Any, **kwargs: Any) -> Session:
        found = theirs(*args, **kwargs)
        with _mounting:
            adapter = found.get_adapter("http://")
            if isinstance(adapter, HTTPAdapter):
                _quicken(adapter)
                for scheme in ("http://", "https://"):
                    found.mount(scheme, PatientAdapter(adapter))
        return found

    return session


def _quicken(adapter: HTTPAdapter) -> None:
    if hasattr(socket, "TCP_QUICKACK"):
        manager: Any = adapter.poolmanager
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _PoolTls}
        manager.clear()


def _acknowledge_at_once(connection: object) -> None:
    if isinstance(connection, socket.socket):  # TLS within a proxy's TLS is none
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
