"""Watch: where the runs that train will end, and which of them will not become the best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import pandas as pd

from mlflow_meta.errors import TooLittle
from mlflow_meta.outlook import MIN_CURVES, Curve, Outlook, Outlooks, Standing
from mlflow_meta.space.decisions import is_kept
from mlflow_meta.store import MlflowStore, names
from mlflow_meta.store.contract import Record
from mlflow_meta.store.running import Told, as_if_finished, curves_of, tell
from mlflow_meta.store.runs import Runs
from mlflow_meta.store.stops import is_asked_to_stop
from mlflow_meta.trials import At, Direction, Objective

MAX_CURVES = 1000  # finished runs of a task that are learned from, the newest ones
OVERLAP_S = 120.0  # by how much the clocks of trainings may be behind ours
_WILL_NOT = "will not beat"


class Action(Enum):
    """What is done about a run."""

    LOOK = "nothing is written"
    TAG = "its outlook becomes a tag"
    STOP = "one that will not beat the best is asked to stop"
    KILL = "and gets the status KILLED where it is none of our workers'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read, for the next look to go on from.

    Attributes:
        objective: What is watched.
        runs: All runs of the experiment, with their curves.
        read_at_ms: When that began.
    """

    objective: Objective
    runs: Runs
    read_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A run that trains.

    Attributes:
        run_id: The run.
        name: Its name.
        task: What it is compared within.
        incumbent: The best end of a finished run of the task, in the metric's own direction; nan
            where there is none.
        outlook: What is expected of it, minimised.
        words: The same as a sentence, in the metric's own direction.
        is_kept: Whether a person wants it to go on.
        is_asked_to_stop: Whether it was asked to stop, now or before.
    """

    run_id: str
    name: str
    task: str
    incumbent: float
    outlook: Outlook
    words: str
    is_kept: bool
    is_asked_to_stop: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One look at the runs of an experiment that train.

    Attributes:
        runs: Those of them that have logged the metric, the oldest first.
        remarks: On tasks of which too little is known, as sentences.
        reading: For the next look.
    """

    runs: tuple[Watched, ...]
    remarks: tuple[str, ...]
    reading: Reading


def watch(  # noqa: PLR0913 - what to look at, and what to do
    store: MlflowStore,
    experiment_name: str,
    *,
    metric: str | Sequence[str] | None = None,
    direction: Direction | None = None,
    at: At = "last",
    tasks_by: str = "default",
    action: Action = Action.TAG,
    before: Reading | None = None,
) -> Watch:
    """Look once at the runs that train, and tell in each what is expected of it.

    A run gets the tag `mlflow_meta.outlook` and the metrics `mlflow_meta.chance` (to beat the best
    finished run of its task) and `mlflow_meta.expected_<metric>`. One that is asked to stop gets
    the tag `mlflow_meta.stop`: our workers end it at their next heartbeat, other programs ask
    `mlflow_meta.should_stop()`. A person's `mlflow_meta.keep` = `true` exempts a run. Where a
    later look finds that it may beat the best after all, the request is withdrawn.

    Args:
        store: Where the runs are.
        experiment_name: Whose.
        metric: Which metric, or its several spellings, as `train` takes them; None for the
            experiment's primary one.
        direction: Which values are better; None for what the experiment or the names say.
        at: Which value of a run's curve counts.
        tasks_by: What makes runs comparable, as `train` takes it.
        action: What to do.
        before: The reading of the look before, with its objective: only what has changed since is
            read.

    Raises:
        NothingToLearn: If there is no such experiment, or no run has the metric.
        NoPermission: If the user may not write to the experiment; nothing is written then.
    """
    if action is not Action.LOOK:
        store.check_may_edit(experiment_name)
    reading = _read(store, experiment_name, metric, direction, at, before)
    records = {
        record.run_id: record
        for record in store.search_runs(store.experiment_id(experiment_name), status="RUNNING")
    }
    trials = _trials(store, experiment_name, reading, tasks_by)
    trained = set(reading.runs.open_ids()) | records.keys()  # though they may have ended since
    curves = curves_of(reading.runs, reading.objective)
    found: list[tuple[Watched, Told]] = []
    remarks: list[str] = []
    for task, rows in trials.groupby("task", sort=False):
        runs = [str(run_id) for run_id in rows["run_id"]]
        running = [run_id for run_id in runs if run_id in records and run_id in curves]
        if not running:
            continue
        finished = rows[~rows["run_id"].isin(trained)]
        ended = [curves[r][0] for r in finished["run_id"] if r in curves]
        known = _known(str(task), ended, at, remarks)
        best = float(finished["value"].min())
        for run_id in running:
            curve, at_ms = curves[run_id]
            outlook = known.of(curve, best) if known else Outlook(standing=Standing.UNKNOWN)
            one = _watched(records[run_id], str(task), best, outlook, reading.objective)
            found.append(_decided(one, records[run_id], action, reading.objective, at_ms))
    if action is not Action.LOOK:
        for one, told in found:
            tell(store, records[one.run_id], told)
    order = {run_id: i for i, run_id in enumerate(records)}
    watched = sorted((one for one, _ in found), key=lambda one: order[one.run_id])
    return Watch(runs=tuple(watched), remarks=tuple(remarks), reading=reading)


def _read(
    store: MlflowStore,
    experiment_name: str,
    metric: str | Sequence[str] | None,
    direction: Direction | None,
    at: At,
    before: Reading | None,
) -> Reading:
    experiments = store.experiments([experiment_name])
    read_at_ms = int(time.time() * 1000)
    if before is None:
        dataset = store.dataset_of(as_if_finished(store.read_all(experiments)), experiments)
        objective = dataset.objective(metric, direction, at=at)
    else:
        objective = before.objective
    if before is None or store.database is not None:
        runs = store.read_all(experiments, curves=objective.spellings)
    else:
        since_ms = before.read_at_ms - int(OVERLAP_S * 1000)
        runs, _ = store.read_since(experiments, before.runs, since_ms, curves=objective.spellings)
    return Reading(objective=objective, runs=runs, read_at_ms=read_at_ms)


def _trials(
    store: MlflowStore, experiment_name: str, reading: Reading, tasks_by: str
) -> pd.DataFrame:
    """Runs with the metric, finished or not: `run_id`, `task` and `value`, in order of start."""
    experiments = store.experiments([experiment_name])
    dataset = store.dataset_of(as_if_finished(reading.runs), experiments).with_tasks(tasks_by)
    return dataset.trials(reading.objective)[["run_id", "task", "value"]]


def _known(task: str, ended: Sequence[Curve], at: At, remarks: list[str]) -> Outlooks | None:
    """What the finished runs of a task say; a remark where that is too little."""
    curves = [curve for curve in ended if len(curve.steps) > 1]
    try:
        return Outlooks.learn(curves[-MAX_CURVES:], at)
    except TooLittle as error:
        remarks.append(f"{task}: {error}")
        return None


def _watched(
    record: Record, task: str, best: float, outlook: Outlook, objective: Objective
) -> Watched:
    sign = objective.direction.sign
    return Watched(
        run_id=record.run_id,
        name=record.name,
        task=task,
        incumbent=sign * best,
        outlook=outlook,
        words=_words(outlook, sign, sign * best),
        is_kept=is_kept(record.tags),
        is_asked_to_stop=is_asked_to_stop(record.tags),
    )


def _words(outlook: Outlook, sign: int, incumbent: float) -> str:
    expected = f", expected {sign * outlook.expected:.5g}"
    if outlook.standing is Standing.UNKNOWN:
        return (
            f"too little is known (needs {MIN_CURVES} finished runs, one of them as long, and a "
            "tenth of the steps)"
        )
    if outlook.standing is Standing.BEATS:
        return f"has beaten {incumbent:.5g} already{expected if outlook.step >= 0 else ''}"
    if outlook.standing is Standing.WILL_NOT:
        return f"{_WILL_NOT} {incumbent:.5g} ({1 - outlook.chance:.0%}){expected}"
    return f"may beat {incumbent:.5g} ({outlook.chance:.0%}){expected}"


def _decided(
    one: Watched, record: Record, action: Action, objective: Objective, at_ms: int
) -> tuple[Watched, Told]:
    """What is told of a run, and whether it is asked to stop."""
    tags = {names.OUTLOOK: one.words}
    metrics = {}
    if one.outlook.step >= 0:
        expected = objective.direction.sign * one.outlook.expected
        metrics = {names.CHANCE: one.outlook.chance, names.EXPECTED + objective.metric: expected}
    is_stopping = action in (Action.STOP, Action.KILL)
    will_not = one.outlook.standing is Standing.WILL_NOT
    may_win = one.outlook.standing in (Standing.MAY, Standing.BEATS)
    asked = one.is_asked_to_stop
    if is_stopping and will_not and not one.is_kept:
        tags[names.STOP] = one.words
        asked = True
    elif is_stopping and may_win and record.tags.get(names.STOP, "").startswith(_WILL_NOT):
        tags[names.STOP] = ""
        asked = False
    is_killed = action is Action.KILL and names.STOP in tags and asked
    told = Told(
        tags=tags,
        metrics=metrics,
        step=max(one.outlook.step, 0),
        at_ms=at_ms,
        is_killed=is_killed and names.CLAIM not in record.params,
    )
    return replace(one, is_asked_to_stop=asked), told
