"""Tune: harvest, learn, suggest and work in a loop, each round wiser than the one before.

The first round trains a meta-model. The others update it with their runs, which takes a moment;
unless it can't tell good from bad yet, or as many runs are new as it was trained on.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import IO

import numpy as np

from mlflow_meta.cluster import Cluster
from mlflow_meta.dataset import DEFAULT_TASKS
from mlflow_meta.effort import ANY, Limits
from mlflow_meta.errors import BadCommand
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.report import Report, report
from mlflow_meta.services.suggest import suggest
from mlflow_meta.services.train import Training, train
from mlflow_meta.services.update import Update, update
from mlflow_meta.services.work import Execution, Rules, work, work_elsewhere
from mlflow_meta.space import SearchSpace, narrowed
from mlflow_meta.store import MlflowStore
from mlflow_meta.trials import At, Direction, Suggestions


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One turn of the loop.

    Attributes:
        learned: The meta-model that was trained on all runs so far, or updated with the new ones.
        suggestions: What it suggested.
        executions: What was trained of it.
    """

    learned: Training | Update
    suggestions: Suggestions
    executions: Sequence[Execution]

    @property
    def updated_from(self) -> str | None:
        """The version that was updated; None where the meta-model was trained."""
        return self.learned.updated_from if isinstance(self.learned, Update) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What the loop did.

    Attributes:
        rounds: Its turns, in order.
        report: Suggested, predicted and got, and the best before and after.
    """

    rounds: Sequence[Round]
    report: Report


def tune(  # noqa: PLR0913 - each is a choice of its own
    store: MlflowStore,
    experiment_name: str,
    command: Sequence[str],
    *,
    rounds: int = 3,
    n: int = 5,
    metric: str | Sequence[str] | None = None,
    direction: Direction | None = None,
    at: At = "last",
    tasks_by: str = DEFAULT_TASKS,
    learn_from: Sequence[str] = (),
    space: SearchSpace | None = None,
    where: Sequence[str] = (),
    limits: Limits = ANY,
    rules: Rules | None = None,
    output: IO[str] | int | None = None,
    cluster: Cluster | None = None,
    rng: np.random.Generator | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Tuning:
    """Harvest, train or update, suggest and work, `rounds` times; then harvest once more.

    Args:
        store: Where the runs are.
        experiment_name: The experiment to improve.
        command: The training program and its arguments, as `work` takes them.
        rounds: How often.
        n: How many configurations to train in each round.
        metric: What to improve, or its several spellings, as `train` takes them; None for the
            primary metric that the experiments name.
        direction: Which values are better; None for what the experiments or the names say.
        at: Which value of the metric's curve counts.
        tasks_by: What makes runs comparable, as `MetaDataset.with_tasks` takes it.
        learn_from: Names of the experiments to learn from beside it; none for all of the server.
        space: Where to search; None to infer it from the experiment's runs.
        where: Conditions that narrow the space, as `space.narrowed` takes them.
        limits: How long the trainings of a round may take, and on what hardware.
        rules: How to work; None for one training after the other.
        output: Where the program's standard output goes, a file or its number; None for ours.
        cluster: Where runs are read, meta-models compared, spaces searched and programs run; None
            for here.
        rng: Equal generators and results give equal suggestions; None for a fresh one.
        progress: Called with what is being done.

    Raises:
        MetaError: As the services do.
        ValueError: If `rounds < 1`.
    """
    if rounds < 1:
        raise ValueError(f"`rounds >= 1` must hold, but got {rounds}.")
    if space is not None:
        narrowed(space, where)  # so that a wrong condition shows before anything is done
    store.check_may_edit(experiment_name)
    rng = rng or np.random.default_rng()
    sources = [*learn_from, experiment_name] if learn_from else ()
    curves = metrics_meant(metric) if at == "best" else ()
    executor = cluster.executor if cluster else None
    done: list[Round] = []
    training: Training | None = None
    n_since = 0  # runs that ended since it was trained
    for turn in range(1, rounds + 1):
        progress(f"round {turn} of {rounds}: harvesting")
        harvest(store, sources, curves=curves, executor=executor)
        learned: Training | Update
        if training is None or not training.has_signal or n_since >= training.n_trials:
            learned = training = train(
                store,
                metric=metric,
                direction=direction,
                at=at,
                tasks_by=tasks_by,
                executor=executor,
                progress=progress,
            )
            n_since = 0
        else:
            progress(f"round {turn} of {rounds}: updating the meta-model")
            learned = update(store, experiment_name, metric=training.objective.metric)
        name = learned.objective.metric
        progress(f"round {turn} of {rounds}: searching")
        suggestions = suggest(
            store, experiment_name, n=n, metric=name, space=space, where=where,
            limits=limits, rng=rng, spread=cluster.spread if cluster else None, progress=progress,
        )  # fmt: skip
        # Older suggestions may wait, too: what has learned from more runs is trained first.
        how = replace(rules or Rules(), first=frozenset(suggestions.run_ids))
        executions = _trained(
            store, experiment_name, command, len(suggestions.items), how,
            output=output, executor=executor, progress=progress,
        )  # fmt: skip
        if executions and all(execution.exit_code for execution in executions):
            raise BadCommand(
                f"All trainings of round {turn} failed, the last with code "
                f"{executions[-1].exit_code} (run {executions[-1].run_id}). Try the program by "
                f"hand: {shlex.join(command)}"
            )
        n_since += len(executions)
        done.append(Round(learned=learned, suggestions=suggestions, executions=executions))
    progress("harvesting the results")
    harvest(store, sources, curves=curves, executor=executor)
    return Tuning(rounds=done, report=report(store, experiment_name, metric=name))


def _trained(  # noqa: PLR0913 - it only says where
    store: MlflowStore,
    experiment_name: str,
    command: Sequence[str],
    n: int,
    rules: Rules,
    *,
    output: IO[str] | int | None,
    executor: Executor | None,
    progress: Callable[[str], None],
) -> list[Execution]:
    if executor is not None:
        progress(f"training {n} runs on the cluster")
        return work_elsewhere(executor, store.uri, experiment_name, command, n, rules)
    return work(
        store,
        experiment_name,
        command,
        replace(rules, max_runs=n),
        output=output,
        progress=lambda words: progress(f"training {words}"),
    )


def metrics_meant(metric: str | Sequence[str] | None) -> Sequence[str]:
    """The metrics that may be meant, as `MetaDataset.objective` takes them; all by `*`."""
    if metric is None:
        return ("*",)
    return (
        [metric, *(part.strip() for part in metric.split(","))]
        if isinstance(metric, str)
        else metric
    )
