"""Opening a tracking store, and saying in one line why it can't be used."""

from __future__ import annotations

import functools
import socket
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
from requests.exceptions import HTTPError
from requests.utils import get_environ_proxies
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import SQLAlchemyError

from mlflow_meta.errors import StoreRefused, TryLater, Unreachable, UnsupportedStore
from mlflow_meta.store.patience import (
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
from mlflow_meta.store.tls import answers_at_once

CONNECT_TIMEOUT_S = 5.0
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
        near = f" Did you mean http://{uri}?" if parts.path.split("/")[0].isdigit() else ""
        raise UnsupportedStore(
            f"{uri} is no tracking store that mlflow-meta knows.{near} Pass --tracking-uri with "
            "the address of an MLflow server (http://...) or of its database (sqlite:///..., "
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
        answers = urlsplit(uri).scheme in _PORTS and answers_at_once(uri, client, patience.left_s())
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
