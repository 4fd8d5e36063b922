"""The options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mlflow_meta.cli.reading import read_limits
from mlflow_meta.cli.values import Seconds, checked_address, checked_conditions

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_DEADLINE = "mlflow_meta.deadline"


def tracking_uri(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--tracking-uri`, and `--deadline` for `open_store`."""
    return _at_server(
        command,
        "Give up after so long, as 30s or 5m, with exit code 75; by default where a server has not "
        "answered for 10m.",
    )


def tracking_uri_endless(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same of a command that goes on as long as there is work: `open_store(endless=True)`."""
    return _at_server(
        command,
        "Give up where a server has not answered for so long, as 30s or 5m, with exit code 75; 10m "
        "by default.",
    )


def _at_server(command: Callable[..., Any], deadline: str) -> Callable[..., Any]:
    command = click.option(
        "--deadline",
        type=Seconds(),
        metavar="TIME",
        expose_value=False,
        callback=_keep_deadline,
        help=deadline,
    )(command)
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


def experiment(what: str = "Which experiment.") -> Decorator:
    """`-e/--experiment-name`, exactly one."""
    return click.option("-e", "--experiment-name", required=True, metavar="NAME", help=what)


target = experiment("The experiment to improve.")


def metric(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--metric` of what learns from runs."""
    return click.option(
        "--metric",
        metavar="NAME[,NAME...]",
        help="Metric, or its spellings, of which a run's first counts. By default the experiments' "
        "primary metric.",
    )(command)


def predicted_metric(more: str = "") -> Decorator:
    """`--metric` of what asks a meta-model."""
    told = "Metric of the meta-model; needed where there are several."
    return click.option("--metric", metavar="NAME[,NAME...]", help=f"{told} {more}".strip())


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
        help="Which value of a run's curve counts; the best needs `harvest --curves`, which `tune` "
        "and `cycle` do by themselves.",
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


def dask(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--dask`."""
    return click.option(
        "--dask",
        "address",
        envvar="MLFLOW_META_DASK",
        show_envvar=True,
        metavar="ADDRESS",
        callback=checked_address,
        help="Work on a cluster of Dask, with the same result: tcp://HOST:PORT of its scheduler, "
        "or local:4 for four processes here.",
    )(command)


def count(default: int, what: str = "How many configurations.") -> Decorator:
    """`-n`."""
    return click.option(
        "-n",
        "n",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help=what,
    )


def _keep_deadline(context: click.Context, _: click.Parameter, seconds: float | None) -> None:
    context.meta[_DEADLINE] = seconds


def given_deadline() -> float | None:
    """`--deadline` of the command that runs, in seconds; None where it was not given."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_DEADLINE)


def no_lock(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--no-lock`."""
    return click.option(
        "--no-lock",
        is_flag=True,
        help="Start although another one is at work on this machine; nothing is done twice.",
    )(command)


def concurrency(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--concurrency`."""
    return click.option(
        "--concurrency",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="How many runs to train at a time.",
    )(command)


def gpus(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--gpus`."""
    return click.option(
        "--gpus",
        metavar="IDS",
        help="Train one run at a time on each of these GPUs, such as 0,1, or all.",
    )(command)


def lease(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--lease`."""
    return click.option(
        "--lease",
        type=Seconds(),
        metavar="TIME",
        default="5m",
        show_default=True,
        help="A worker that gave no sign for so long is dead, and its run is tried again.",
    )(command)


where = click.option(
    "--where",
    multiple=True,
    metavar="NAME=VALUES",
    callback=checked_conditions,
    help="Search a part only: model=mlp, batch!=32,64, lr=1e-4..1e-2 or lr<0.01 (also <=, >, >=); "
    "repeat for several conditions.",
)


def limits(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--budget`, `--max-duration`, `--per-hour` and `--hardware`, as one argument `limits`."""

    @functools.wraps(command)
    def limited(
        *args: Any,
        budget: float | None,
        max_duration: float | None,
        per_hour: bool,
        hardware: str | None,
        **others: Any,
    ) -> Any:
        read = read_limits(budget, max_duration, hardware, per_hour=per_hour)
        return command(*args, limits=read, **others)

    for option in (
        click.option(
            "--hardware",
            metavar="NAME=VALUE[,...]",
            help="What they would run on, such as gpu=A100,count=1; by default what the task's "
            "best run had.",
        ),
        click.option(
            "--per-hour",
            is_flag=True,
            help="Rank by what each is expected to gain per hour of training.",
        ),
        click.option(
            "--max-duration",
            type=Seconds(),
            metavar="TIME",
            help="None that is predicted to train for longer, as 30m or 2h.",
        ),
        click.option(
            "--budget",
            type=Seconds(),
            metavar="TIME",
            help="What all of them together may take, as 2h; those that gain most for the time.",
        ),
    ):
        limited = option(limited)
    return limited


def store_uri(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--store-uri`."""
    return click.option(
        "--store-uri",
        envvar="MLFLOW_META_STORE_URI",
        show_envvar=True,
        metavar="URI",
        help="The server's database, to read runs from directly: much faster, and read-only.",
    )(command)


def improving(command: Callable[..., Any]) -> Callable[..., Any]:
    """What `tune` and `cycle` have in common: which experiment, by what, from what, and where."""
    learn_from = click.option(
        "--learn-from",
        multiple=True,
        metavar="NAME",
        help="Experiment to learn from beside it; repeat for several. All by default.",
    )
    shared: list[Decorator] = [
        target, metric, direction, at, tasks_by, learn_from, space_file, where, dask,
    ]  # fmt: skip
    for option in reversed(shared):
        command = option(command)
    return command
