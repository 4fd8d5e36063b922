"""What is known by now: the trials of the newest harvest, and what they say of one experiment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from mlflow_meta.errors import NothingToLearn
from mlflow_meta.models import MetaModel
from mlflow_meta.space import SearchSpace, own_space
from mlflow_meta.space.parts import hint
from mlflow_meta.store import MlflowStore, Registered


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known by now.

    Attributes:
        trials: Those of the newest harvest; of tasks that it left out, those the champion knows.
        runs: The newest harvest's, with the metric or without.
        failures: The newest harvest's runs that failed.
        harvest_run_id: The newest harvest.
        task_param: The param whose value a task is; None where it is none.
        experiment_ids: Id of each run's experiment.
    """

    trials: pd.DataFrame
    runs: pd.DataFrame
    failures: pd.DataFrame
    harvest_run_id: str
    task_param: str | None
    experiment_ids: Mapping[str, str]


def known_to(store: MlflowStore, champion: Registered, harvest_run_id: str | None = None) -> Known:
    """What a harvest, the newest if None, and a champion know of the champion's objective."""
    newest_run_id, newest = store.dataset(harvest_run_id)
    same = newest_run_id == champion.harvest_run_id
    learned = newest if same else store.dataset(champion.harvest_run_id)[1]
    task_param = learned.task_param(champion.tasks_by)
    objective = champion.objective
    trials = learned.with_tasks(champion.tasks_by).trials(objective)
    try:
        newest = newest.with_tasks(champion.tasks_by)
    except NothingToLearn:  # what holds for one run that lacks it holds for all
        newest = newest.with_tasks("experiment")
    if not same and newest.has(objective):
        fresh = newest.trials(objective)
        others = trials[~trials["task"].isin(fresh["task"])]
        trials = pd.concat([others, fresh], ignore_index=True)
    ids: dict[str, str] = {}
    for frame in (learned.frame, newest.frame):
        ids |= dict(zip(frame["run_id"], frame["experiment_id"].astype(str), strict=True))
    return Known(
        trials=trials,
        runs=newest.frame,
        failures=newest.failures,
        harvest_run_id=newest_run_id,
        task_param=task_param,
        experiment_ids=ids,
    )


def brought_up_to_date(
    champion: Registered, known: Known, tasks: Collection[str]
) -> tuple[Registered, int]:
    """The champion, updated with what it has not learned from; and how many trials that are.

    Only those of `tasks` and of the tasks that it knows: what it was not to learn from stays out.
    """
    wanted = known.trials["task"].isin([*champion.model.scales, *tasks])
    trials = known.trials[wanted].reset_index(drop=True)
    n_unseen = champion.model.n_unseen(trials)
    if not n_unseen:
        return champion, 0
    # A newest harvest of fewer tasks does not stand for all that it has learned from.
    whole = set(champion.model.scales) <= set(known.runs["task"])
    return (
        replace(
            champion,
            model=champion.model.updated(trials),
            harvest_run_id=known.harvest_run_id if whole else champion.harvest_run_id,
        ),
        n_unseen,
    )


def never_logged(space: SearchSpace, trials: pd.DataFrame) -> list[str]:
    """The space's params that no trial has, each with the one that it may be a misspelling of."""
    logged = [str(c).removeprefix("params.") for c in trials if str(c).startswith("params.")]
    others = [name for name in logged if name not in space.names]
    return [name + hint(name, others, likeness=0.75) for name in space.names if name not in logged]


def tasks_of(experiment_name: str, known: Known) -> list[str]:
    """The tasks that an experiment's trials are about or, if it has none, its other runs."""
    for frame in (known.trials, known.runs):
        own = frame["experiment"] == experiment_name
        if own.any():
            return [str(task) for task in frame.loc[own, "task"].unique()]
    return []


def task_of(experiment_name: str, known: Known) -> str:
    """The task that is meant by an experiment: its only one; itself where it has no runs."""
    tasks = tasks_of(experiment_name, known)
    if len(tasks) > 1:
        raise NothingToLearn(
            f"The runs of {experiment_name!r} are about several tasks. Pass --task with one of "
            f"{', '.join(repr(task) for task in tasks)}."
        )
    return tasks[0] if tasks else experiment_name


def space_of(
    known: Known, task: str, model: MetaModel, *, varied: Collection[str] = ()
) -> SearchSpace:
    """The space of a task, as `space.own_space` tells it."""
    learned = model.encoder.space
    return own_space(known.trials, known.runs, task, learned, varied=varied)
