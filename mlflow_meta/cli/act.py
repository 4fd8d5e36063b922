"""Commands that act on what was learned: suggest, work, tune."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_meta.cli import options
from mlflow_meta.cli.options import emit, humane, open_store, read_space, working

if TYPE_CHECKING:
    from mlflow_meta.store import MlflowStore
    from mlflow_meta.trials import At

# Heavy imports wait inside the commands: `mlflow-meta --help` must answer at once.


def _conditions(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    if given:
        from mlflow_meta.space.narrow import asked

        try:
            for text in given:
                asked(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return given


_where = click.option(
    "--where",
    multiple=True,
    metavar="NAME=VALUES",
    callback=_conditions,
    help="Search a part only: model=mlp, batch=32,64, lr=1e-4..1e-2 or lr=..1e-2; repeat for "
    "several params.",
)


@click.command()
@options.target
@options.count(5)
@options.metric
@click.option("--task", metavar="NAME", help="Which task, where the experiment has several.")
@options.space_file
@_where
@click.option(
    "--model-name", metavar="NAME", help="Registered model; mlflow-meta-METRIC by default."
)
@click.option(
    "--explore",
    is_flag=True,
    help="Cover the search space evenly, where runs are too few for a meta-model.",
)
@options.direction
@click.option(
    "--budget",
    type=options.Seconds(),
    metavar="TIME",
    help="How long to search at most, as 30s or 5m; 10s by default. It ends sooner with a proof.",
)
@click.option("--seed", type=int, help="Equal seeds give equal suggestions.")
@options.dry_run
@options.tracking_uri
@options.as_json
@humane
def suggest(  # noqa: PLR0913 - one argument an option
    experiment_name: str,
    n: int,
    metric: str | None,
    task: str | None,
    space_path: Path | None,
    where: Sequence[str],
    model_name: str | None,
    explore: bool,
    direction: str | None,
    budget: float | None,
    seed: int | None,
    dry_run: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Search for the best configurations, and schedule them as runs.

    \b
    Example:
        mlflow-meta suggest -e sweep-7 -n 10
        mlflow-meta suggest -e sweep-7 --where model=mlp --where lr=1e-4..1e-2
        mlflow-meta suggest -e sweep-8 --metric val_loss --explore
    Next:
        mlflow-meta work -e sweep-7 -- python train.py
    """
    if explore and (task or model_name or budget):
        raise click.UsageError(
            "--explore asks no meta-model: leave out --task, --model-name and --budget."
        )
    if direction and not explore:
        raise click.UsageError("--direction goes with --explore: a meta-model has learned its own.")
    given = read_space(space_path)
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show, show_tuning
    from mlflow_meta.services.explore import explore as cover
    from mlflow_meta.services.suggest import suggest as run

    asked: dict[str, Any] = {
        "n": n,
        "metric": metric,
        "space": given,
        "where": where,
        "dry_run": dry_run,
        "rng": options.generator(seed),
    }
    with working("searching") as say:
        if explore:
            side = options.read_direction(direction)
            found = cover(store, experiment_name, direction=side, **asked)
        else:
            how: dict[str, Any] = {"model_name": model_name, "budget_s": budget, "progress": say}
            found = run(store, experiment_name, task=task, **how, **asked)
    if as_json:
        emit(show.suggestions_data(found))
        return
    show.suggestions(found)
    show_tuning.grounds(found)
    if len(found.items) < n and not (found.searched and found.searched.is_interrupted):
        click.echo(f"The search space holds no more than {len(found.items)} new ones.", err=True)
    if dry_run:
        click.echo("Nothing was written (--dry-run).", err=True)
    else:
        click.echo(f"Scheduled {len(found.run_ids)} runs in {experiment_name}.")
        click.echo(f"See them: {_address(store, found.view)}")
        click.echo(f"Next: mlflow-meta work -e {experiment_name} -- python train.py", err=True)


@click.command()
@options.target
@click.option("--max-runs", type=click.IntRange(min=1), help="Stop after so many runs.")
@options.dry_run
@options.tracking_uri
@options.as_json
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@humane
def work(
    experiment_name: str,
    max_runs: int | None,
    dry_run: bool,
    tracking_uri: str | None,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Train what is scheduled: run COMMAND for each run, with its params.

    Params are passed as --name=value or, where COMMAND has placeholders, in their places.

    \b
    Example:
        mlflow-meta work -e sweep-7 -- python train.py
        mlflow-meta work -e sweep-7 -- python train.py --lr {learning_rate}
    Next:
        mlflow-meta report -e sweep-7
    """
    store = open_store(tracking_uri)
    from mlflow_meta.services.work import plan
    from mlflow_meta.services.work import work as run

    if dry_run:
        planned = plan(store, experiment_name, command, max_runs=max_runs)
        if not planned:
            click.echo(f"Nothing waits in {experiment_name}.", err=True)
        if as_json:
            emit({"commands": planned})
        for argv in [] if as_json else planned:
            click.echo(shlex.join(argv))
        return
    done = run(
        store,
        experiment_name,
        command,
        max_runs=max_runs,
        output=options.STDERR,
        progress=lambda waiting, argv: click.echo(f"{waiting.name}: {' '.join(argv)}", err=True),
    )
    failed = [execution for execution in done if execution.exit_code]
    if as_json:
        emit(
            {
                "n_trained": len(done),
                "n_failed": len(failed),
                "runs": [
                    {"run_id": e.run_id, "rank": e.rank, "exit_code": e.exit_code} for e in done
                ],
            }
        )
    elif not done and (left := len(plan(store, experiment_name, command))):
        click.echo(
            f"{left} runs of {experiment_name} are scheduled, but claimed by other workers, or by "
            "one that died.",
            err=True,
        )
    elif not done:
        click.echo(f"Nothing waits in {experiment_name}. Next: mlflow-meta suggest", err=True)
    else:
        click.echo(f"Trained {len(done)} runs, {len(failed)} failed.")
        click.echo(f"Next: mlflow-meta report -e {experiment_name}", err=True)
    if failed:
        click.echo(
            f"Error: {failed[0].name} ended with code {failed[0].exit_code}; its run "
            f"{failed[0].run_id} is FAILED. What it printed stands above.",
            err=True,
        )
        sys.exit(1)


@click.command()
@options.target
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True,
              help="How often to harvest, train, suggest and work.")  # fmt: skip
@options.count(5)
@options.metric
@options.direction
@options.at
@options.tasks_by
@click.option("--learn-from", multiple=True, metavar="NAME",
              help="Experiment to learn from; repeat for several. All by default.")  # fmt: skip
@options.space_file
@_where
@click.option("--seed", type=int, help="Equal seeds and results give equal suggestions.")
@options.tracking_uri
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
    seed: int | None,
    tracking_uri: str | None,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Harvest, train, suggest and work in a loop; COMMAND as for `work`.

    From the second round on, the meta-model is updated rather than trained anew.

    \b
    Example:
        mlflow-meta tune -e sweep-7 --metric val_loss --rounds 3 -n 5 -- python train.py
        mlflow-meta tune -e sweep-7 --where model=mlp --where lr=1e-4..1e-2 -- python train.py
    Next:
        mlflow-meta report -e sweep-7
    """
    given = read_space(space_path)
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show, show_tuning
    from mlflow_meta.loop import tune as run

    with working("harvesting") as say:
        done = run(
            store,
            experiment_name,
            command,
            rounds=rounds,
            n=n,
            metric=metric,
            direction=options.read_direction(direction),
            at=at,
            tasks_by=tasks_by,
            learn_from=learn_from,
            space=given,
            where=where,
            output=options.STDERR,
            rng=options.generator(seed),
            progress=say,
        )
    if as_json:
        emit(show_tuning.tuning_data(done))
        return
    show.report(done.report)
    click.echo(show.balance(done.report))
    click.echo(show_tuning.versions(done), err=True)


def _address(store: MlflowStore, view: str) -> str:
    """Where to see a view: the server, or the UI that is started on a database."""
    if store.uri.startswith("http"):
        return store.uri.rstrip("/") + view
    return f"run `mlflow ui --backend-store-uri {store.uri}`, then open http://127.0.0.1:5000{view}"
