"""Commands for cron: cycle, promote, monitor."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_meta.cli import options
from mlflow_meta.cli.learn import KINDS
from mlflow_meta.cli.lock import alone
from mlflow_meta.cli.reading import read_direction, read_space
from mlflow_meta.cli.running import emit, humane, on_cluster, open_store, working
from mlflow_meta.cli.suggest import address_of
from mlflow_meta.cli.terminal import echo, say_next

if TYPE_CHECKING:
    from mlflow_meta.effort import Limits
    from mlflow_meta.trials import At

# Heavy imports wait inside the commands: `mlflow-meta --help` must answer at once.


@click.command()
@options.improving
@options.count(5, "How many suggestions are to wait.")
@options.limits
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS),
              help="Compare only this kind of meta-model; repeat for several.")  # fmt: skip
@options.no_lock
@options.store_uri
@options.tracking_uri
@options.as_json
@humane
def cycle(  # noqa: PLR0913 - one argument an option
    experiment_name: str,
    n: int,
    metric: str | None,
    direction: str | None,
    at: At,
    tasks_by: str,
    learn_from: Sequence[str],
    space_path: Path | None,
    where: Sequence[str],
    limits: Limits,
    kinds: Sequence[str],
    address: str | None,
    no_lock: bool,
    store_uri: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Harvest, monitor, promote, train and suggest, so that -n suggestions wait for workers.

    The one command for cron: what need not be done is left out, and while another cycle of the
    same experiment is at work it leaves with exit code 75. A --budget is what the suggestions
    that it adds may take together.

    \b
    Example:
        mlflow-meta cycle -e sweep-7 --metric val_loss -n 10
        0 3 * * *  mlflow-meta cycle -e sweep-7 --metric val_loss --deadline 1h
    Next:
        mlflow-meta work -e sweep-7 -- python train.py
    """
    given = read_space(space_path)
    with nullcontext() if no_lock else alone("cycle", tracking_uri, experiment_name):
        store = open_store(tracking_uri, database=store_uri)
        from mlflow_meta.cli import show_schedule
        from mlflow_meta.loop import cycle as run

        with on_cluster(address) as cluster, working("harvesting") as say:
            done = run(
                store,
                experiment_name,
                n=n,
                metric=metric,
                direction=read_direction(direction),
                at=at,
                tasks_by=tasks_by,
                learn_from=learn_from,
                space=given,
                where=where,
                limits=limits,
                kinds=kinds,
                cluster=cluster,
                progress=say,
            )
    if as_json:
        emit(show_schedule.cycle_data(done))
        return
    show_schedule.cycle(done)
    if done.suggestions:
        echo(f"See them: {address_of(store, done.suggestions.view)}")
    say_next(f"mlflow-meta work -e {shlex.quote(experiment_name)}", "python train.py")


@click.command()
@options.predicted_metric()
@click.option(
    "--model-name", metavar="NAME", help="Registered model; mlflow-meta-METRIC by default."
)
@click.option("--version", metavar="N", help="Make this version the champion in any case.")
@options.dry_run
@options.tracking_uri
@options.as_json
@humane
def promote(
    metric: str | None,
    model_name: str | None,
    version: str | None,
    dry_run: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """See how the champion predicted the runs since then; let a better version take over.

    A champion that has drifted gives way to the one before, if that did better; otherwise the
    version that was trained last is compared with it. --version is the way back, or forth.

    \b
    Example:
        mlflow-meta promote --metric val_loss
        mlflow-meta promote --metric val_loss --version 3
    Next:
        mlflow-meta suggest -e sweep-7
    """
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show_schedule
    from mlflow_meta.services.promote import promote as run

    with working("asking the champion") as say:
        done = run(
            store, metric=metric, model_name=model_name, version=version, dry_run=dry_run,
            progress=say,
        )  # fmt: skip
    if as_json:
        emit(show_schedule.promotion_data(done))
        return
    show_schedule.promotion(done)
    if dry_run:
        echo("Nothing was written (--dry-run).", err=True)


@click.command()
@options.sources
@options.dry_run
@options.tracking_uri
@options.as_json
@humane
def monitor(
    experiment_names: Sequence[str], dry_run: bool, tracking_uri: str | None, as_json: bool
) -> None:
    """Compare what was predicted with what came of it, as a history that MLflow's UI draws.

    It looks at the newest harvest. Without -e: all experiments with suggestions.

    \b
    Example:
        mlflow-meta harvest && mlflow-meta monitor
    Next:
        mlflow-meta report -e sweep-7 --out report.png
    """
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show_schedule
    from mlflow_meta.services.monitor import monitor as run

    with working("looking what came of the suggestions") as say:
        found = run(store, experiment_names, dry_run=dry_run, progress=say)
    if as_json:
        emit({"monitored": [show_schedule.monitored_data(seen) for seen in found]})
        return
    show_schedule.monitored(found)
    if dry_run:
        echo("Nothing was written (--dry-run).", err=True)
