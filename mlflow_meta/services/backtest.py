"""Backtest: an experiment's own history -> what the product would have saved in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mlflow_meta import pictures
from mlflow_meta.backtest import Backtest
from mlflow_meta.backtest import backtest as replay_history
from mlflow_meta.dataset import DEFAULT_TASKS, MetaDataset
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.space import infer
from mlflow_meta.store import MlflowStore
from mlflow_meta.trials import At, Direction, Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtesting:
    """What came of a backtest.

    Attributes:
        objective: What was to be improved.
        tasks_by: What makes a task, as `MetaDataset.with_tasks` takes it.
        found: What the replay came to; values are minimised there.
        picture: The ways' regret after ever more runs, as PNG.
    """

    objective: Objective
    tasks_by: str
    found: Backtest
    picture: bytes


def backtest(  # noqa: PLR0913 - each is a choice of its own
    store: MlflowStore,
    experiment_name: str,
    *,
    metric: str | Sequence[str] | None = None,
    direction: Direction | None = None,
    at: At = "last",
    tasks_by: str = DEFAULT_TASKS,
    task: str | None = None,
    rng: np.random.Generator | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Backtesting:
    """Replay the history of an experiment on the newest harvest; writes nothing.

    Args:
        store: Where the harvest is.
        experiment_name: Whose history.
        metric: What was to be improved, as `train` takes it.
        direction: Which values are better; None for what the experiments or the names say.
        at: Which value of the metric's curve counts.
        tasks_by: What makes runs comparable, as `MetaDataset.with_tasks` takes it.
        task: Which task of the experiment, where its runs have several data sets.
        rng: Equal generators give equal replays; None for a fresh one.
        progress: Called with what is being done.

    Raises:
        NothingToLearn: If there is no harvest, no such experiment or metric, or too few runs.
    """
    _, dataset = store.dataset()
    harvested = dataset.with_tasks(tasks_by)
    task = task or _task_of(experiment_name, harvested)
    objective = harvested.objective(metric, direction, at=at)
    trials = harvested.trials(objective)
    found = replay_history(
        trials,
        infer(trials).space,
        task=task,
        rng=rng or np.random.default_rng(),
        progress=progress,
    )
    return Backtesting(
        objective=objective,
        tasks_by=tasks_by,
        found=found,
        picture=pictures.regrets(found, objective),
    )


def _task_of(experiment_name: str, dataset: MetaDataset) -> str:
    tasks = dataset.only([experiment_name]).tasks
    if len(tasks) > 1:
        raise NothingToLearn(
            f"The runs of {experiment_name!r} are about several tasks. Pass --task with one of "
            f"{', '.join(repr(task) for task in tasks)}."
        )
    return tasks[0]
