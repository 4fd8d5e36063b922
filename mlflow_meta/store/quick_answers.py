"""No waiting for acknowledgements: answers of `mlflow server` arrive 40 ms earlier.

Its workers send an answer in two parts, and the second waits until the first is acknowledged, which
the system puts off for 40 ms on a connection that was used before. It does not where it is told to
acknowledge at once (TCP_QUICKACK, Linux), which has to be said before each answer.
"""

from __future__ import annotations

import socket
from typing import Any

from mlflow import environment_variables as settings
from mlflow.utils import request_utils
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse

OURS = (0, False)  # as `rest.over` asks: retries, and whether a bad status is raised


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
    """Let MLflow's own sessions of this process, and nobody else's, ask by such connections."""
    if not hasattr(socket, "TCP_QUICKACK"):
        return
    for retries, raises in ((settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(), True), OURS):
        session: Any = request_utils._get_request_session(
            retries,
            settings.MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.get(),
            settings.MLFLOW_HTTP_REQUEST_BACKOFF_JITTER.get(),
            request_utils._TRANSIENT_FAILURE_RESPONSE_CODES,
            raises,
            settings.MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER.get(),
        )
        manager = session.get_adapter("http://").poolmanager
        if manager.pool_classes_by_scheme.get("http") is not _Pool:
            manager.pool_classes_by_scheme = {"http": _Pool, "https": _PoolTls}
            manager.clear()


def _acknowledge_at_once(connection: object) -> None:
    if isinstance(connection, socket.socket):  # TLS within a proxy's TLS is none
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
