"""How every command runs: its store, its words, its errors in one line, and its exit code."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from mlflow_meta import shown
from mlflow_meta.cli.options import given_deadline
from mlflow_meta.cli.terminal import echo, plain
from mlflow_meta.errors import MetaError, TooLittle, TryLater

if TYPE_CHECKING:
    from mlflow_meta.cluster import Cluster
    from mlflow_meta.store import MlflowStore

P = ParamSpec("P")
STDERR = 2  # the number of our standard error, where a training's own output goes
REFUSED = 3  # exit code where runs are too few, or tell nothing
TRY_LATER = 75  # exit code for cron and its like: EX_TEMPFAIL of sysexits.h
INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
TERMINATED = 143  # and after SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler or a container's end sends it: as Ctrl-C, with a code of its own."""


def humane(command: Callable[P, None]) -> Callable[P, None]:
    """Show what went wrong in the world as one line and exit 1; let our own bugs show a trace."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        quiet()
        try:
            with _interruptible():
                command(*args, **kwargs)
        except TryLater as error:
            echo(str(error), err=True)
            sys.exit(TRY_LATER)
        except TooLittle as error:
            echo(f"Error: {error}", err=True)
            sys.exit(REFUSED)
        except MetaError as error:
            raise click.ClickException(shown.lines(str(error))) from error
        except OSError as error:  # a file that can't be written, a disk that is full
            name = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(shown.lines(f"{name}{error.strerror or error}.")) from error
        except Terminated:
            echo("Terminated.", err=True)
            sys.exit(TERMINATED)
        except KeyboardInterrupt:
            echo("Interrupted.", err=True)
            sys.exit(INTERRUPTED)

    return wrapper


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does while the block runs: end what was begun, and leave."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main one gets signals
        return

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def quiet() -> None:
    """Keep MLflow's and Alembic's own chatter off the terminal; warnings still show.

    Not so those that an unchecked certificate brings with each request: it was asked for.
    """
    warnings.filterwarnings("ignore", "Unverified HTTPS request")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def log_events() -> None:
    """Write what our modules log to standard error, one JSON object a line."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Event())
    logger = logging.getLogger("mlflow_meta")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Event(logging.Formatter):
    """A log record with its fields as JSON."""

    _PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

    def format(self, record: logging.LogRecord) -> str:
        fields = {k: v for k, v in vars(record).items() if k not in self._PLAIN}
        head = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        return json.dumps(_plain({**head, **fields}))


def open_store(
    uri: str | None, *, database: str | None = None, endless: bool = False
) -> MlflowStore:
    """The tracking store; its imports take seconds, so they wait until it is needed.

    Args:
        uri: Its address.
        database: The database behind it.
        endless: Whether the command works as long as there is work, so that its `--deadline` is
            about a server that does not answer alone.
    """
    began, deadline = time.monotonic(), given_deadline()
    with working("connecting"):
        from mlflow_meta.store import MlflowStore
        from mlflow_meta.store.patience import PATIENCE_S, Patience

        quiet()  # importing MLflow sets its log levels again
        until = None if deadline is None or endless else began + deadline
        patience = Patience(deadline or PATIENCE_S, until=until)
        return MlflowStore(uri, store_uri=database, patience=patience)


@contextmanager
def on_cluster(address: str | None) -> Iterator[Cluster | None]:
    """The cluster of a `--dask`; None where it was not given."""
    if address is None:
        yield None
        return
    from mlflow_meta.cluster import dask_cluster

    with ExitStack() as stack:
        with working("opening the cluster"):
            cluster = stack.enter_context(dask_cluster(address))
        yield cluster


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Say on stderr what is being done, where a person looks on; yields how to change the words."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(plain(f"{what} ...")) as status:
        yield lambda words: status.update(plain(f"{words} ..."))


def emit(value: dict[str, Any]) -> None:
    """Print one JSON object; what is not a number becomes null."""
    echo(json.dumps(_plain(value), indent=2))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()  # a number of NumPy
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
