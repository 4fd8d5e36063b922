"""The command `watch`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from mlflow_meta.cli import options
from mlflow_meta.cli.reading import read_direction
from mlflow_meta.cli.running import emit, humane, open_store, working
from mlflow_meta.cli.terminal import echo
from mlflow_meta.cli.values import Seconds

if TYPE_CHECKING:
    from mlflow_meta.services.watch import Watch
    from mlflow_meta.trials import At


@click.command()
@options.experiment()
@options.metric
@options.direction
@options.at
@options.tasks_by
@click.option("--stop", is_flag=True,
              help="Ask runs that will not beat the best to stop, by the tag mlflow_meta.stop: our "
              "workers honour it, other programs ask mlflow_meta.should_stop().")  # fmt: skip
@click.option("--kill", is_flag=True,
              help="With --stop: runs of other programs also get the status KILLED.")  # fmt: skip
@click.option(
    "--poll",
    type=Seconds(),
    metavar="TIME",
    default="60s",
    show_default=True,
    help="Look again after so long, until stopped.",
)
@click.option("--once", is_flag=True, help="Look once, and leave.")
@options.dry_run
@options.store_uri
@options.tracking_uri
@options.as_json
@humane
def watch(  # noqa: PLR0913 - one argument an option
    experiment_name: str,
    metric: str | None,
    direction: str | None,
    at: At,
    tasks_by: str,
    stop: bool,
    kill: bool,
    poll: float,
    once: bool,
    dry_run: bool,
    store_uri: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Tag runs that train with where they will end, and whether they can still become the best.

    The curves of finished runs predict the ends of running ones; before 30 have finished, nothing
    is said. Nothing is stopped without --stop. The tag mlflow_meta.keep = true exempts a run.

    \b
    Example:
        mlflow-meta watch -e sweep-7 --metric val_loss --once
        mlflow-meta watch -e sweep-7 --metric val_loss --stop
    Next:
        mlflow-meta report -e sweep-7
    """
    if kill and not stop:
        raise click.UsageError("--kill goes with --stop.")
    store = open_store(tracking_uri, database=store_uri, endless=not once)
    from mlflow_meta.services.watch import Action
    from mlflow_meta.services.watch import watch as run

    action = Action.KILL if kill else Action.STOP if stop else Action.TAG
    before = None
    while True:
        with working("reading curves"):
            seen = run(
                store,
                experiment_name,
                metric=metric,
                direction=read_direction(direction),
                at=at,
                tasks_by=tasks_by,
                action=Action.LOOK if dry_run else action,
                before=before,
            )
        if as_json:
            emit(_data(seen))
        else:
            _tell(seen)
        if once:
            return
        before = seen.reading
        time.sleep(poll)


def _tell(seen: Watch) -> None:
    for remark in seen.remarks:
        echo(remark, err=True)
    if not seen.runs:
        echo(f"No run that trains has logged {seen.reading.objective.metric} yet.", err=True)
    for one in seen.runs:
        stopping = ""
        if one.is_asked_to_stop:
            stopping = "; asked to stop, but kept" if one.is_kept else "; asked to stop"
        echo(f"{one.run_id}  {one.name}: {one.words}{stopping}")


def _data(seen: Watch) -> dict[str, Any]:
    objective = seen.reading.objective
    sign = objective.direction.sign
    return {
        "metric": objective.metric,
        "direction": objective.direction.value,
        "runs": [
            {
                "run_id": one.run_id,
                "name": one.name,
                "task": one.task,
                "standing": one.outlook.standing.name.lower(),
                "incumbent": one.incumbent,
                "chance": one.outlook.chance,
                "expected": sign * one.outlook.expected,
                "bound": sign * one.outlook.lowest,
                "step": one.outlook.step,
                "outlook": one.words,
                "kept": one.is_kept,
                "asked_to_stop": one.is_asked_to_stop,
            }
            for one in seen.runs
        ],
        "remarks": list(seen.remarks),
    }
