"""Opening a tracking store, and saying in one line why it can't be used."""

from __future__ import annotations

import functools
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _get_latest_schema_revision, _get_schema_version
from mlflow.utils.rest_utils import http_request
from requests.exceptions import HTTPError
from requests.utils import get_environ_proxies
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import SQLAlchemyError
from urllib3.exceptions import SSLError as TlsError

from mlflow_meta.errors import StoreRefused, TryLater, Unreachable, UnsupportedStore
from mlflow_meta.store.patience import (
    REQUEST_S,
    SHORTEST_S,
    Patience,
    Silence,
    Unsure,
    be_impatient,
    be_patient,
    cause,
)
from mlflow_meta.store.permissions import refusal
from mlflow_meta.store.quick_answers import hasten

CONNECT_TIMEOUT_S = 5.0
TLS_ATTEMPTS = 3  # after which no connection is a setting that is wrong, rather than chance
_PORTS = {"http": 80, "https": 443}
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_MAX_MESSAGE = 300  # characters of a server's own words that fit into one line of ours

P = ParamSpec("P")
R = TypeVar("R")


def connect(tracking_uri: str | None, patience: Patience) -> tuple[str, MlflowClient]:
    """Open the tracking store at `tracking_uri`.

    Args:
        tracking_uri: None for MLflow's own choice: MLFLOW_TRACKING_URI, else ./mlflow.db.
        patience: How long a server is waited for, from now on, by all of this process.

    Returns:
        The URI that is used, and a client for it.

    Raises:
        Unreachable: If no server listens there, or the database file does not exist.
        TryLater: If nobody answers at all.
        UnsupportedStore: If it is a file store, or of a kind that we don't know.
    """
    uri = tracking_uri or mlflow.get_tracking_uri()
    parts = urlsplit(uri)
    kind = parts.scheme.split("+")[0]
    if kind in ("", "file"):
        raise UnsupportedStore(
            f"{uri} is a file store, which can't be written to safely by several programs. Move it "
            f"into a database with `mlflow migrate-filestore --source {_shown_path(uri)} --target "
            "sqlite:///mlflow.db`, then pass --tracking-uri sqlite:///mlflow.db."
        )
    if kind == "sqlite":
        _check_sqlite(uri)
    if kind in _PORTS:
        try:
            port = parts.port or _PORTS[kind]
        except ValueError as error:
            raise UnsupportedStore(f"{uri} is no address: {error}.") from error
        _check_listening(uri, parts.hostname or "", port, patience)
    if kind in _DATABASES:
        _check_schema(uri)
    elif kind not in _PORTS and not kind.startswith("databricks"):
        raise UnsupportedStore(
            f"{uri} is no tracking store that mlflow-meta knows. Pass --tracking-uri with the "
            "address of an MLflow server (http://...) or of its database (sqlite:///..., "
            "postgresql://..., mysql://...)."
        )
    return uri, _client(uri, patience)


def is_database(uri: str) -> bool:
    """Whether a tracking URI is that of a database, rather than of a server."""
    return urlsplit(uri).scheme.split("+")[0] in _DATABASES


def translated(method: Callable[P, R]) -> Callable[P, R]:
    """Turn what MLflow and the network raise into our errors, in one line each."""

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except MlflowException as error:
            raise _refusal(error) from error
        except Silence as error:
            raise _silent(error) from error
        except ImportError as error:
            raise StoreRefused(
                f"This database needs a driver that is not installed ({error}). For Postgres, "
                "`pip install psycopg2-binary` and write postgresql+psycopg2://..., for MySQL, "
                "`pip install pymysql` and write mysql+pymysql://..."
            ) from error
        except SQLAlchemyError as error:
            raise StoreRefused(
                f"The tracking database can't be used: {_one_line(error)}."
            ) from error
        except OSError as error:
            if isinstance(error, HTTPError) and (refused := refusal(error)):
                raise refused from error
            raise StoreRefused(f"Artifacts can't be reached: {_one_line(error)}.") from error

    return wrapper


@translated
def _client(uri: str, patience: Patience) -> MlflowClient:
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    if not is_database(uri):
        hasten()
        be_impatient(uri)  # with whatever patience it was opened before
        sent = patience.clock.monotonic()
        answers = urlsplit(uri).scheme in _PORTS and _answers(uri, client, patience.left_s())
        be_patient(uri, patience)
        if answers:
            return client
        patience.silent(sent)
    client.search_experiments(max_results=1)  # opens databases, and asks servers who we are
    return client


def _silent(error: BaseException) -> TryLater:
    return TryLater(
        f"The tracking server did not answer in the time it was given: {_one_line(error)}. Run the "
        "same command again later: what was begun is finished then, and nothing is done twice. "
        "--deadline says how long to wait."
    )


def _answers(uri: str, client: MlflowClient, limit_s: float) -> bool:
    """Whether a server takes a first question at once. Where not, it is to be asked patiently.

    Args:
        uri: Its address.
        client: Of it.
        limit_s: After so many seconds it has not.

    Raises:
        Unreachable: If there is no TLS connection, which MLflow's client would try for minutes.
    """
    reason = ""
    for _ in range(TLS_ATTEMPTS if urlsplit(uri).scheme == "https" else 1):
        try:
            answer = http_request(
                client._tracking_client.store.get_host_creds(),
                "/api/2.0/mlflow/experiments/search",
                "POST",
                max_retries=0,
                raise_on_status=False,
                timeout=max(SHORTEST_S, min(limit_s, REQUEST_S)),
                json={"max_results": 1},
            )
        except MlflowException as error:
            reason, is_final = _tls_failure(error)
            if is_final:
                break
        else:
            return bool(answer.status_code == 200 and answer.content.lstrip()[:1] == b"{")
    if reason:
        raise Unreachable(_without_tls(uri, reason))
    return False


def _tls_failure(error: BaseException) -> tuple[str, bool]:
    """Why there is no TLS connection, and whether that is sure; empty where it is something else.

    A server that wants a certificate of its client, and gets none, may just hang up.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TlsError) and seen.args and isinstance(seen.args[0], Exception):
            seen = seen.args[0]  # urllib3 hands over what it wraps without naming it as the cause
        text = " ".join(str(seen).split())
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"certificate verify failed: {seen.verify_message}", True
        if isinstance(seen, ssl.SSLError):
            return text.rpartition("] ")[2].partition(" (_ssl.c")[0], "alert" in text
        if isinstance(seen, ConnectionResetError):
            return "the server hangs up", False
        if text.startswith("Could not find"):  # a file that `requests` was to read
            return text, True
        seen = seen.__cause__ or seen.__context__
    return "", False


def _without_tls(uri: str, reason: str) -> str:
    if "verify failed" in reason:
        return (
            f"The certificate of {uri} is not trusted here ({reason}). Set "
            "MLFLOW_TRACKING_SERVER_CERT_PATH to the file of the authority that has issued it; "
            "MLFLOW_TRACKING_INSECURE_TLS=true leaves it unchecked."
        )
    return (
        f"There is no TLS connection to {uri} ({reason}). Is it https? Is the file right that "
        "MLFLOW_TRACKING_SERVER_CERT_PATH names? If the server wants a certificate of yours, set "
        "MLFLOW_TRACKING_CLIENT_CERT_PATH to the file of that and its key."
    )


def _refusal(error: MlflowException) -> StoreRefused | Unreachable | TryLater:
    if silence := cause(error, Silence):
        return _silent(silence)
    if (unsure := cause(error, Unsure)) and unsure.is_for_now:
        return _silent(unsure)
    if refused := refusal(error):
        return refused
    text = _one_line(error)
    if "Max retries exceeded" in text or "Connection" in text:
        return Unreachable(f"The tracking server stopped answering: {text}.")
    if "workspace" in text.lower():
        text += ". The workspace is what MLFLOW_WORKSPACE says; the server must have it"
    return StoreRefused(f"The tracking server says: {text}.")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + " ..."


def _check_sqlite(uri: str) -> None:
    # MLflow would make an empty store of any path, so a typing error would look like no runs.
    path = Path(uri.split(":///", 1)[-1].split("?")[0])
    if path.is_file():
        return
    raise Unreachable(
        f"There is no MLflow store at {path}. Pass --tracking-uri, or set MLFLOW_TRACKING_URI, "
        "with the address of your server or database; `mlflow-meta demo` makes a store to try."
    )


@translated
def _check_schema(uri: str) -> None:
    # MLflow would upgrade an older database in passing, which its server might then refuse.
    engine = create_engine(uri)
    try:
        tables = inspect(engine).get_table_names()
        found = _get_schema_version(engine) if "alembic_version" in tables else None
    finally:
        engine.dispose()
    if found is None:
        raise Unreachable(
            f"The database {engine.url!r} holds no MLflow store. Is it the one that your server "
            "has as --backend-store-uri?"
        )
    if found != _get_latest_schema_revision():
        raise StoreRefused(
            f"The database {engine.url!r} was made by another version of MLflow than the "
            f"{mlflow.__version__} that is installed here. Pass --tracking-uri with the address of "
            f"its server instead, or take a backup and run `mlflow db upgrade {engine.url!r}`."
        )


def _check_listening(uri: str, host: str, port: int, patience: Patience) -> None:
    # MLflow's own client would try again for minutes.
    if get_environ_proxies(uri):
        return  # only the proxy knows whether the server is there
    limit_s = max(SHORTEST_S, min(CONNECT_TIMEOUT_S, patience.left_s()))
    came: SimpleQueue[OSError | None] = SimpleQueue()

    def call() -> None:
        try:
            socket.create_connection((host, port), timeout=limit_s).close()
        except OSError as error:
            came.put(error)
        else:
            came.put(None)

    # In a thread of its own, since names are looked up for as long as it takes.
    threading.Thread(target=call, daemon=True).start()
    try:
        error = came.get(timeout=limit_s)
    except Empty:
        error = TimeoutError("timed out")
    if isinstance(error, TimeoutError) or (error and error.errno == socket.EAI_AGAIN):
        raise TryLater(
            f"Nobody answers at {uri} in {limit_s:.2g} s ({error}). Run the same command again "
            "later; if that does not help, is the address right?"
        ) from error
    if error is not None:
        raise Unreachable(
            f"No MLflow server answers at {uri} ({error}). Is it running, and is the address right?"
        ) from error


def _shown_path(uri: str) -> str:
    return urlsplit(uri).path if uri.startswith("file:") else uri
