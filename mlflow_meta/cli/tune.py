"""The command `tune`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_meta.cli import options
from mlflow_meta.cli.reading import generator, read_direction, read_gpus, read_space
from mlflow_meta.cli.running import (
    STDERR,
    emit,
    humane,
    on_cluster,
    open_store,
    working,
)
from mlflow_meta.cli.terminal import echo

if TYPE_CHECKING:
    from mlflow_meta.effort import Limits
    from mlflow_meta.trials import At


@click.command()
@options.improving
@options.count(5, "How many configurations in each round.")
@options.limits
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True,
              help="How often to harvest, train, suggest and work.")  # fmt: skip
@click.option("--seed", type=int, help="Equal seeds and results give equal suggestions.")
@options.concurrency
@options.gpus
@options.lease
@options.tracking_uri_endless
@options.as_json
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@humane
def tune(  # noqa: PLR0913 - one argument an option
    experiment_name: str,
    rounds: int,
    n: int,
    metric: str | None,
    direction: str | None,
    at: At,
    tasks_by: str,
    learn_from: Sequence[str],
    space_path: Path | None,
    where: Sequence[str],
    limits: Limits,
    address: str | None,
    seed: int | None,
    concurrency: int,
    gpus: str | None,
    lease: float,
    tracking_uri: str | None,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Harvest, train, suggest and work in a loop; COMMAND as for `work`.

    From the second round on, the meta-model is updated rather than trained anew. A --budget is
    what the trainings of a round may take together.

    \b
    Example:
        mlflow-meta tune -e sweep-7 --metric val_loss --rounds 3 -n 5 -- python train.py
        mlflow-meta tune -e sweep-7 --where model=mlp --where lr=1e-4..1e-2 -- python train.py
    Next:
        mlflow-meta report -e sweep-7
    """
    given = read_space(space_path)
    store = open_store(tracking_uri, endless=True)
    from mlflow_meta.cli import show_report, show_tuning
    from mlflow_meta.loop import tune as run
    from mlflow_meta.services.work import Rules

    rules = Rules(concurrency=concurrency, gpus=read_gpus(gpus), lease_s=lease)
    with on_cluster(address) as cluster, working("harvesting") as say:
        done = run(
            store,
            experiment_name,
            command,
            rounds=rounds,
            n=n,
            metric=metric,
            direction=read_direction(direction),
            at=at,
            tasks_by=tasks_by,
            learn_from=learn_from,
            space=given,
            where=where,
            limits=limits,
            rules=rules,
            cluster=cluster,
            output=STDERR,
            rng=generator(seed),
            progress=say,
        )
    if as_json:
        emit(show_tuning.tuning_data(done))
        return
    show_report.report(done.report)
    echo(show_report.balance(done.report))
    echo(show_tuning.versions(done), err=True)
