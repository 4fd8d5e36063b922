"""Work: claim SCHEDULED runs, and train each under its very run id."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from mlflow_meta.errors import BadCommand
from mlflow_meta.plugin import hardware_tags
from mlflow_meta.store import MlflowStore, Scheduled, queue

MAX_FAILURES = 2  # trainings that may fail in a row before the others are left waiting
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w./ -]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One suggested run that was trained.

    Attributes:
        run_id: The run.
        name: Its name.
        rank: Its rank among the suggestions.
        exit_code: What the training program ended with; 0 is success.
    """

    run_id: str
    name: str
    rank: int
    exit_code: int


def work(
    store: MlflowStore,
    experiment_name: str,
    command: Sequence[str],
    *,
    max_runs: int | None = None,
    output: IO[str] | int | None = None,
    progress: Callable[[Scheduled, Sequence[str]], None] = lambda _, __: None,
) -> list[Execution]:
    """Train what is scheduled in an experiment, best rank first, until nothing waits.

    It stops early when `MAX_FAILURES` trainings in a row fail.

    The program gets the params as `--name=value` behind its own arguments or, where `command` has
    placeholders such as `{lr}`, in their places. `MLFLOW_RUN_ID` makes its `mlflow.start_run()`
    resume the suggested run. No shell is involved.

    Args:
        store: Where the runs wait.
        experiment_name: Whose.
        command: The program and its arguments.
        max_runs: How many at most.
        output: Where the program's standard output goes, a file or its number; None for ours.
        progress: Called before each training with the run and the program's arguments.

    Raises:
        BadCommand: If there is no such program, or a placeholder names no param of the run; nothing
            is claimed then.
    """
    if shutil.which(command[0]) is None:
        raise BadCommand(
            f"There is no program {command[0]!r} here, so nothing was started. Check the words "
            "after `--`, or give the program's whole path."
        )
    done: list[Execution] = []
    waiting = queue.scheduled(store, experiment_name)
    planned = [(run, arguments(command, run.params)) for run in waiting]
    for run, argv in planned:
        if max_runs is not None and len(done) >= max_runs:
            break
        lately = [execution.exit_code for execution in done[-MAX_FAILURES:]]
        if len(lately) == MAX_FAILURES and all(lately):
            break  # it is the program, not the configurations: leave those for later
        if not queue.claim(store, run.run_id, tags=hardware_tags()):
            continue
        progress(run, argv)
        exit_code = _execute(store, run.run_id, argv, output)
        done.append(Execution(run_id=run.run_id, name=run.name, rank=run.rank, exit_code=exit_code))
    return done


def plan(
    store: MlflowStore, experiment_name: str, command: Sequence[str], *, max_runs: int | None = None
) -> list[list[str]]:
    """The argument lists that `work` would start, in their order; nothing is claimed."""
    waiting = queue.scheduled(store, experiment_name)
    return [arguments(command, run.params) for run in waiting[:max_runs]]


def arguments(command: Sequence[str], params: Mapping[str, str]) -> list[str]:
    """The argument list for one run: placeholders filled, or all params appended.

    Raises:
        BadCommand: If a placeholder names no param of the run.
    """
    wanted = {name for word in command for name in _PLACEHOLDER.findall(word)}
    if not wanted:
        return [*command, *(f"--{name}={value}" for name, value in params.items())]
    if unknown := sorted(wanted - set(params)):
        raise BadCommand(
            f"The placeholder {{{unknown[0]}}} names no param of the suggested run, which has "
            f"{', '.join(params)}. Without placeholders all params are passed as --name=value."
        )
    return [_PLACEHOLDER.sub(lambda match: params[match[1]], word) for word in command]


def _execute(
    store: MlflowStore, run_id: str, argv: Sequence[str], output: IO[str] | int | None
) -> int:
    environment = {**os.environ, "MLFLOW_RUN_ID": run_id, "MLFLOW_TRACKING_URI": store.uri}
    succeeded = False
    try:
        exit_code = subprocess.run(argv, env=environment, stdout=output, check=False).returncode
        succeeded = exit_code == 0
    except OSError as error:
        raise BadCommand(
            f"{argv[0]} can't be started: {error.strerror}. Put the program that runs it in front, "
            "as in `-- python train.py`."
        ) from error
    finally:  # an interrupt, too, must not leave the run open
        queue.finish(store, run_id, succeeded=succeeded)
    return exit_code
