"""Work: claim SCHEDULED runs, and train each under its very run id."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import IO

from mlflow_meta.errors import BadCommand
from mlflow_meta.scheduling import check_may_schedule
from mlflow_meta.services.work.commands import arguments
from mlflow_meta.services.work.shift import Execution, Rules, Shift, may_be_taken
from mlflow_meta.store import MlflowStore, Store, queue
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.sweep import sweep


def work(
    store: Store,
    experiment_name: str,
    command: Sequence[str],
    rules: Rules | None = None,
    *,
    output: IO[str] | int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Execution]:
    """Train what is scheduled in an experiment, best rank first, until nothing waits.

    With `rules.poll_s` it stays then, and trains what is scheduled later, too. It stops early when
    `shift.MAX_FAILURES` trainings in a row fail. Where other workers have runs,
    it watches until it has seen that they live, or takes them for dead after a lease and trains
    what they had. On an interrupt it hands back what it trains.

    The program gets the params as `--name=value` behind its own arguments or, where `command` has
    placeholders such as `{lr}`, in their places. `MLFLOW_RUN_ID` makes its `mlflow.start_run()`
    resume the suggested run. No shell is involved. What it prints is kept as the run's artifact
    `training.log`.

    Args:
        store: Where the runs wait.
        experiment_name: Whose.
        command: The program and its arguments.
        rules: How; None for one after the other, all of them.
        output: Where what the program prints goes, a file or its number; None for our standard
            output.
        progress: Called with what is being done: before each training with the run's name and the
            program's arguments.

    Returns:
        What was claimed, in the order in which it ended.

    Raises:
        BadCommand: If there is no such program, or a placeholder names no param of the run; nothing
            is claimed then.
        NoPermission: If the user may not write to the experiment; nothing is claimed then either.
    """
    if shutil.which(command[0]) is None:
        raise BadCommand(
            f"There is no program {command[0]!r} here, so nothing was started. Check the words "
            "after `--`, or give the program's whole path."
        )
    check_may_schedule(store, experiment_name)
    ledger = Ledger.of(store, store.experiment_id(experiment_name))
    for run in queue.waiting(ledger):
        arguments(command, run.params)
    sweep(ledger)
    shift = Shift(ledger, command, rules or Rules(), output, progress)
    return shift.run()


def work_elsewhere(
    executor: Executor,
    uri: str,
    experiment_name: str,
    command: Sequence[str],
    n: int,
    rules: Rules | None = None,
) -> list[Execution]:
    """Train the `n` best of what waits on the workers of a cluster, one run each at a time.

    Each worker claims what waits, as `work` does: so one that dies loses nothing, and is followed
    by another one.

    Args:
        executor: Of the cluster. Its workers must have the program, and reach the store.
        uri: The store's address.
        experiment_name: Whose runs.
        command: As `work` takes it.
        n: How many.
        rules: As `work` takes them, for each worker.
    """
    each = replace(rules or Rules(), max_runs=1, concurrency=1)
    futures = [
        executor.submit(_work_once, uri, experiment_name, list(command), each) for _ in range(n)
    ]
    return [execution for future in futures for execution in future.result()]


def _work_once(uri: str, experiment_name: str, command: list[str], rules: Rules) -> list[Execution]:
    return work(MlflowStore(uri), experiment_name, command, rules)


def plan(
    store: Store, experiment_name: str, command: Sequence[str], rules: Rules | None = None
) -> list[list[str]]:
    """The argument lists that `work` would start, in their order; nothing is claimed."""
    rules = rules or Rules()
    ledger = Ledger.known(store, store.experiment_id(experiment_name))
    waiting = queue.waiting(ledger) if ledger else []
    runs = [run for run in waiting if may_be_taken(run, rules)]
    return [arguments(command, run.params) for run in runs[: rules.max_runs]]
