"""What several commands share: options, progress, and errors in one line."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from mlflow_meta.errors import MetaError, TooLittle, TryLater

if TYPE_CHECKING:
    import numpy as np

    from mlflow_meta.space import SearchSpace
    from mlflow_meta.store import MlflowStore
    from mlflow_meta.trials import Direction

P = ParamSpec("P")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

STDERR = 2  # the number of our standard error, where a training's own output goes
REFUSED = 3  # exit code where runs are too few, or tell nothing
TRY_LATER = 75  # exit code for cron and its like: EX_TEMPFAIL of sysexits.h
INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it


def tracking_uri(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--tracking-uri`."""
    return click.option(
        "--tracking-uri",
        envvar="MLFLOW_TRACKING_URI",
        show_envvar=True,
        metavar="URI",
        help="Server (http://...) or database (sqlite:///...); ./mlflow.db if there is none.",
    )(command)


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def dry_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--dry-run`."""
    return click.option(
        "--dry-run", is_flag=True, help="Show what would be written; write nothing."
    )(command)


def sources(command: Callable[..., Any]) -> Callable[..., Any]:
    """`-e/--experiment-name`, any number of them."""
    return click.option(
        "-e",
        "--experiment-name",
        "experiment_names",
        multiple=True,
        metavar="NAME",
        help="Experiment to read; repeat for several. All of them by default.",
    )(command)


def target(command: Callable[..., Any]) -> Callable[..., Any]:
    """`-e/--experiment-name`, exactly one."""
    return click.option(
        "-e", "--experiment-name", required=True, metavar="NAME", help="The experiment to improve."
    )(command)


def metric(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--metric`."""
    return click.option(
        "--metric",
        metavar="NAME[,NAME...]",
        help="Metric, or its spellings, of which a run's first counts. By default the experiments' "
        "primary metric.",
    )(command)


def direction(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--direction`."""
    return click.option(
        "--direction",
        type=click.Choice(["minimize", "maximize"]),
        help="Which values are better; by default what the experiment or the name says.",
    )(command)


def at(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--at`."""
    return click.option(
        "--at",
        type=click.Choice(["last", "best"]),
        default="last",
        show_default=True,
        help="Which value of a run's curve counts; for the best, harvest with --curves.",
    )(command)


def tasks_by(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--tasks-by`."""
    return click.option(
        "--tasks-by",
        metavar="KEY",
        default="default",
        show_default=True,
        help="What makes runs comparable: experiment, dataset, or a param or tag.",
    )(command)


def space_file(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--space`."""
    return click.option(
        "--space",
        "space_path",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Search-space file, as `mlflow-meta space` writes it. Inferred by default.",
    )(command)


def count(default: int) -> Decorator:
    """`-n`."""
    return click.option(
        "-n",
        "n",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help="How many configurations.",
    )


def humane(command: Callable[P, None]) -> Callable[P, None]:
    """Show what went wrong in the world as one line and exit 1; let our own bugs show a trace."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        quiet()
        try:
            command(*args, **kwargs)
        except TryLater as error:
            click.echo(str(error), err=True)
            sys.exit(TRY_LATER)
        except TooLittle as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(REFUSED)
        except MetaError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:  # a file that can't be written, a disk that is full
            name = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{name}{error.strerror or error}.") from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            sys.exit(INTERRUPTED)

    return wrapper


def quiet() -> None:
    """Keep MLflow's and Alembic's own chatter off the terminal; warnings still show."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def store_uri(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--store-uri`."""
    return click.option(
        "--store-uri",
        envvar="MLFLOW_META_STORE_URI",
        show_envvar=True,
        metavar="URI",
        help="The server's database, to read runs from directly: much faster, and read-only.",
    )(command)


class Seconds(click.ParamType[float]):
    """A time such as 90, 90s, 10m or 2h, in seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The seconds; fails with a usage error."""
        text = str(value).strip().lower()
        factor = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
        try:
            seconds = float(text[:-1]) * factor if factor else float(text)
        except ValueError:
            seconds = -1
        if not 0 < seconds < float("inf"):
            self.fail(f"{value!r} is no time: write 90, 90s, 10m or 2h.", param, ctx)
        return seconds


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


def open_store(uri: str | None, *, database: str | None = None) -> MlflowStore:
    """The tracking store; its imports take seconds, so they wait until it is needed."""
    with working("connecting"):
        from mlflow_meta.store import MlflowStore

        quiet()  # importing MLflow sets its log levels again
        return MlflowStore(uri, store_uri=database)


def read_space(path: Path | None) -> SearchSpace | None:
    """The search space in a file; None for no file."""
    if path is None:
        return None
    from mlflow_meta.errors import BadSpace
    from mlflow_meta.space import read_yaml

    try:
        return read_yaml(path.read_text(encoding="utf-8"))
    except BadSpace as error:
        raise BadSpace(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise BadSpace(f"{path} is not a text file in UTF-8.") from error


def read_direction(text: str | None) -> Direction | None:
    """A `--direction` as the library has it; None where it was not given."""
    if text is None:
        return None
    from mlflow_meta.trials import Direction

    return Direction(text)


def generator(seed: int | None) -> np.random.Generator:
    """The generator of a `--seed`; a fresh one where it was not given."""
    import numpy as np

    return np.random.default_rng(seed)


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Say on stderr what is being done, where a person looks on; yields how to change the words."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} ...") as status:
        yield lambda words: status.update(f"{words} ...")


def emit(value: dict[str, Any]) -> None:
    """Print one JSON object; what is not a number becomes null."""
    click.echo(json.dumps(_plain(value), indent=2))


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
