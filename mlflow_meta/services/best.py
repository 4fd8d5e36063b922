"""Best: what has done best so far, by the newest harvest. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlflow_meta.columns import config_of
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.store import MlflowStore
from mlflow_meta.trials import Config, Direction, Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """One of the best trials.

    Attributes:
        run_id: Its run.
        task: Which task it is about.
        metric: What it got, in the metric's own units.
        config: Its params.
        duration_s: Seconds that it took; nan where that is not known.
    """

    run_id: str
    task: str
    metric: float
    config: Config
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaders:
    """The best trials of an experiment.

    Attributes:
        objective: By which they are the best.
        n_trials: How many trials there are.
        median: The median metric of all of them.
        trials: The best, in their order.
    """

    objective: Objective
    n_trials: int
    median: float
    trials: Sequence[Leader]


def best(
    store: MlflowStore,
    experiment_name: str,
    *,
    n: int = 5,
    metric: str | None = None,
    direction: Direction | None = None,
    task: str | None = None,
) -> Leaders:
    """The `n` best trials of an experiment, as the newest harvest knows them.

    Args:
        store: Where the harvest is.
        experiment_name: Which experiment.
        n: How many, at least 1.
        metric: By which; None for the experiment's primary metric.
        direction: Which values are better; None for what the experiment or the name says.
        task: Which task of the experiment; None for all.

    Raises:
        NothingToLearn: If nothing was harvested of it, or no run has the metric.
        ValueError: If `n < 1`.
    """
    if n < 1:
        raise ValueError(f"`n >= 1` must hold, but got {n}.")
    dataset = store.dataset()[1].only([experiment_name])
    objective = dataset.objective(metric, direction)
    trials = dataset.trials(objective)
    if task is not None:
        tasks = trials["task"].astype(str)
        if not (tasks == task).any():
            raise NothingToLearn(
                f"{experiment_name!r} has no trial of the task {task!r}; it has "
                f"{', '.join(repr(name) for name in tasks.unique()[:8])}."
            )
        trials = trials[tasks == task]
    sign = objective.direction.sign
    return Leaders(
        objective=objective,
        n_trials=len(trials),
        median=float(sign * trials["value"].median()),
        trials=[
            Leader(
                run_id=str(row["run_id"]),
                task=str(row["task"]),
                metric=float(sign * row["value"]),
                config=config_of(row),
                duration_s=float(row["duration_s"]),
            )
            for row in trials.sort_values("value", kind="stable").head(n).to_dict("records")
        ],
    )
