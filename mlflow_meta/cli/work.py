"""The command `work`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mlflow_meta.cli import options
from mlflow_meta.cli.reading import read_gpus
from mlflow_meta.cli.running import STDERR, emit, humane, open_store
from mlflow_meta.cli.terminal import echo, say_next
from mlflow_meta.cli.values import Seconds

if TYPE_CHECKING:
    from mlflow_meta.services.work import Execution, Rules


@click.command()
@options.target
@click.option("--max-runs", type=click.IntRange(min=1), help="Take no more than so many runs.")
@click.option(
    "--max-time",
    type=Seconds(),
    metavar="TIME",
    help="Take no more runs after so long, as 90m or 2h; what is in training then is finished.",
)
@click.option(
    "--poll",
    type=Seconds(),
    metavar="TIME",
    help="Where nothing waits, stay and look again after so long, as 30s: until stopped, or until "
    "--max-runs or --max-time.",
)
@options.concurrency
@options.gpus
@click.option("--require-approval", is_flag=True,
              help="Take only runs whose tag mlflow_meta.decision says approve.")  # fmt: skip
@options.lease
@click.option("--project", metavar="URI", help="An MLflow Project to run instead of COMMAND.")
@options.dry_run
@options.tracking_uri_endless
@options.as_json
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@humane
def work(  # noqa: PLR0913 - one argument an option
    experiment_name: str,
    max_runs: int | None,
    max_time: float | None,
    poll: float | None,
    concurrency: int,
    gpus: str | None,
    require_approval: bool,
    lease: float,
    project: str | None,
    dry_run: bool,
    tracking_uri: str | None,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Train what is scheduled: run COMMAND for each run, with its params.

    Params are passed as --name=value or, where COMMAND has placeholders, in their places; those of
    a project with -P. Ctrl-C and SIGTERM hand back what is in training. Any number of workers, on
    any number of machines, may work on one experiment.

    \b
    Example:
        mlflow-meta work -e sweep-7 -- python train.py
        mlflow-meta work -e sweep-7 --gpus all -- python train.py --lr {learning_rate}
        mlflow-meta work -e sweep-7 --project ./my-project
        mlflow-meta work -e sweep-7 --poll 30s -- python train.py
    Next:
        mlflow-meta report -e sweep-7
    """
    if bool(command) == bool(project):
        raise click.UsageError("Give the training program behind `--`, or --project; one of them.")
    store = open_store(tracking_uri, endless=True)
    from mlflow_meta.attempt import Outcome
    from mlflow_meta.services.work import Rules, plan, project_command
    from mlflow_meta.services.work import work as run

    rules = Rules(
        max_runs=max_runs,
        max_time_s=max_time,
        concurrency=concurrency,
        gpus=read_gpus(gpus),
        require_approval=require_approval,
        lease_s=lease,
        poll_s=poll,
    )
    argv: Sequence[str] = project_command(project) if project else command
    if dry_run:
        planned = plan(store, experiment_name, argv, rules)
        if not planned:
            echo(f"Nothing waits in {experiment_name}.", err=True)
        if as_json:
            emit({"commands": planned})
        for words in [] if as_json else planned:
            echo(shlex.join(words))
        return
    done = run(
        store,
        experiment_name,
        argv,
        rules,
        output=STDERR,
        progress=lambda words: echo(words, err=True),
    )
    failed = [execution for execution in done if execution.outcome is Outcome.FAILED]
    if as_json:
        emit(_data(done))
    elif not done:
        _say_why(experiment_name, rules, len(plan(store, experiment_name, argv, Rules())))
    else:
        _tell(done)
        say_next(f"mlflow-meta report -e {shlex.quote(experiment_name)}")
    if failed:
        echo(
            f"Error: {failed[0].name} ended with code {failed[0].exit_code}; its run "
            f"{failed[0].run_id} is FAILED. What it printed stands above, and in the run's "
            "artifact training.log.",
            err=True,
        )
        sys.exit(1)


def _tell(done: Sequence[Execution]) -> None:
    from mlflow_meta.attempt import Outcome

    failed = [execution for execution in done if execution.outcome is Outcome.FAILED]
    trained = [e for e in done if e.outcome in (Outcome.FINISHED, Outcome.FAILED)]
    echo(f"Trained {len(trained)} runs, {len(failed)} failed.")
    for execution in done:
        if execution.outcome not in (Outcome.FINISHED, Outcome.FAILED):
            echo(f"{execution.name}: {execution.outcome.value}.", err=True)


def _data(done: Sequence[Execution]) -> dict[str, object]:
    return {
        "n_trained": sum(e.outcome.name in ("FINISHED", "FAILED") for e in done),
        "n_failed": sum(e.outcome.name == "FAILED" for e in done),
        "runs": [
            {
                "run_id": execution.run_id,
                "rank": execution.rank,
                "attempt": execution.attempt,
                "outcome": execution.outcome.name.lower(),
                "exit_code": execution.exit_code,
            }
            for execution in done
        ],
    }


def _say_why(experiment_name: str, rules: Rules, n_waiting: int) -> None:
    """Why nothing was trained."""
    if n_waiting and rules.require_approval:
        echo(
            f"{n_waiting} runs of {experiment_name} wait for approval: set the tag "
            "mlflow_meta.decision of a run to approve, in the MLflow UI.",
            err=True,
        )
    elif n_waiting:
        echo(f"{n_waiting} runs of {experiment_name} were taken by other workers.", err=True)
    else:
        echo(f"Nothing waits in {experiment_name}.", err=True)
        say_next(f"mlflow-meta suggest -e {shlex.quote(experiment_name)}")
