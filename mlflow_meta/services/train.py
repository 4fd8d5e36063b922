"""Train: a meta-dataset -> the meta-model that predicts it best, registered as the challenger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlflow_meta import pictures, shown
from mlflow_meta.dataset import DEFAULT_TASKS
from mlflow_meta.dataset.leakage import Leak
from mlflow_meta.errors import BadSpace
from mlflow_meta.explain import explain
from mlflow_meta.models import ZOO
from mlflow_meta.models.baselines import BASELINES
from mlflow_meta.models.choice import Candidate, compare, score_table
from mlflow_meta.models.signal import Signal
from mlflow_meta.promotion import Decision, carry_out, decide
from mlflow_meta.served.packed import Packed
from mlflow_meta.space import InferredSpace, SearchSpace, infer
from mlflow_meta.store import MlflowStore, descriptions, names, registry
from mlflow_meta.store.model_folder import servable
from mlflow_meta.store.own_runs import TRAININGS, end_abandoned, own_run
from mlflow_meta.trials import At, Direction, Objective

_HELD_OUT_FILE = "predicted-against-actual.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What came of a training.

    Attributes:
        run_id: The training run.
        model_name: The registered model's name.
        version: The new version of it.
        champion: The version that is the champion now.
        decision: Why the new version is the champion, or is not.
        objective: What it predicts.
        table: The kinds of model that were compared, the best first, and the baselines; as
            `score_table` gives it.
        n_trials: How many trials it has learned from.
        n_tasks: Of how many tasks.
        n_features: From how many features.
        left_out: Param or context column -> why it is no feature.
        has_signal: Whether it could tell good from bad at all on held-out trials.
        signal: How clearly, and about how many more runs it takes.
        remarks: What is odd about the objective's values or the tasks, as sentences.
    """

    run_id: str
    model_name: str
    version: str
    champion: str
    decision: Decision
    objective: Objective
    table: pd.DataFrame
    n_trials: int
    n_tasks: int
    n_features: int
    left_out: dict[str, str]
    has_signal: bool
    signal: Signal
    remarks: tuple[str, ...]


def train(  # noqa: PLR0913 - each is a choice of its own
    store: MlflowStore,
    *,
    metric: str | Sequence[str] | None = None,
    direction: Direction | None = None,
    at: At = "last",
    tasks_by: str = DEFAULT_TASKS,
    experiment_names: Sequence[str] = (),
    space: SearchSpace | None = None,
    kinds: Sequence[str] = (),
    harvest_run_id: str | None = None,
    model_name: str | None = None,
    promote: bool = False,
    executor: Executor | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Training:
    """Compare all kinds of meta-model on a harvest, and register the best.

    It becomes the champion where there is none, or where it predicts the runs that the champion
    has not learned from better; see `promotion`.

    Args:
        store: Where the harvest is, and the model goes.
        metric: What to predict; None for the primary metric that the experiments name. Several
            spellings of it as a sequence, or as one text with commas: the first one that a run has
            counts, and the first one names the model.
        direction: Which values are better; None for what the experiments or the names say.
        at: Which value of the metric's curve counts; for the best, curves must be harvested.
        tasks_by: What makes runs comparable, as `MetaDataset.with_tasks` takes it.
        experiment_names: Learn from these only; none for all that were harvested.
        space: How to read params; None to infer it from the trials.
        kinds: Names of `models.ZOO` to compare; none for all.
        harvest_run_id: Which harvest; None for the newest.
        model_name: What to register it as; None for `mlflow-meta-<metric>`.
        promote: Make it the champion in any case.
        executor: Where to fit what is compared side by side, see `choice.compare`; None for here,
            which gives the same.
        progress: Called with what is being done.

    Raises:
        NothingToLearn: If there is no harvest, no such metric, or too little to learn from.
        BadSpace: If the space has a param that tells the result.
        NoPermission: If the user may not write what is learned; nothing was written.
    """
    store.check_may_edit(names.PROJECT_EXPERIMENT)
    harvest_run_id, dataset = store.dataset(harvest_run_id)
    harvested = dataset.only(experiment_names)
    dataset = harvested.with_tasks(tasks_by)
    objective = dataset.objective(metric, direction, at=at)
    trials, leaks = dataset.trials_and_leaks(objective)
    inferred = _space(space, trials, leaks)
    candidates = compare(
        trials, inferred.space, names=kinds or tuple(ZOO), executor=executor, progress=progress
    )
    best = candidates[0]
    packed = Packed(
        model=best.model,
        kind=best.name,
        objective=objective,
        harvest_run_id=harvest_run_id,
        tasks_by=tasks_by,
    )
    progress("asking them about later runs and new tasks")
    table = score_table(candidates, trials, executor=executor)
    name = model_name or registry.model_name(objective.metric)
    progress(f"registering {name}")
    registry.reserve(store, name, objective)
    end_abandoned(store, TRAININGS)
    note = descriptions.training(
        metric=objective.metric,
        model_name=name,
        kind=best.name,
        n_trials=len(trials),
        n_tasks=trials["task"].nunique(),
    )
    tags = {names.KIND: "train", descriptions.NOTE: note}
    with own_run(store, f"train {objective.metric}", tags) as run_id:
        _log_choice(store, run_id, packed, table, trials)
        store.log_files(
            run_id,
            {
                names.SPACE_FILE: inferred.to_yaml().encode(),
                **_explanation(best, trials, inferred.space, objective),
            },
        )
        _log_candidates(store, run_id, candidates, table, objective)
        registry.log_training_data(store, run_id, trials, harvest_run_id)
        rmse_of_mean = _scores(table, "mean")["rmse"]
        it = servable(packed, trials, rmse_of_mean=rmse_of_mean)
        version = registry.register(store, run_id, name, it)
        progress("comparing it with the champion on later runs")
        decision = decide(store, name, packed, trials, by_hand=promote)
        carry_out(store, name, version, decision)
    return Training(
        run_id=run_id,
        model_name=name,
        version=version,
        champion=version if decision.verdict.is_promoted else str(decision.champion),
        decision=decision,
        objective=objective,
        table=table,
        n_trials=len(trials),
        n_tasks=trials["task"].nunique(),
        n_features=len(best.model.encoder.names),
        left_out={**inferred.left_out, **best.model.encoder.left_out},
        has_signal=best.model.has_signal,
        signal=best.model.signal,
        remarks=(
            *dataset.remarks[len(harvested.remarks) :],
            *dataset.remarks_on(objective),
            *(leak.remark for leak in leaks),
        ),
    )


def _space(given: SearchSpace | None, trials: pd.DataFrame, leaks: Sequence[Leak]) -> InferredSpace:
    """The search space, and why what is not in it is left out."""
    told = {leak.column.removeprefix("params."): leak.why for leak in leaks if leak.is_left_out}
    if given is None:
        inferred = infer(trials)
        return InferredSpace(inferred.space, {**told, **inferred.left_out})
    for name in given.names:
        if why := told.get(name):
            raise BadSpace(
                f"The search space has the param {name!r}, which {why}: what is known only after a "
                "training can't be chosen. Delete it from the file."
            )
    return InferredSpace(given, told)


def _log_choice(
    store: MlflowStore,
    run_id: str,
    packed: Packed,
    table: pd.DataFrame,
    trials: pd.DataFrame,
) -> None:
    """What was chosen, and against what."""
    objective = packed.objective
    store.log_batch(
        run_id,
        params={
            "model": packed.kind,
            "metric": objective.metric,
            "direction": objective.direction.value,
            **({"aliases": ",".join(objective.aliases)} if objective.aliases else {}),
            "at": objective.at,
            "tasks_by": packed.tasks_by,
            "n_trials": len(trials),
            "n_tasks": trials["task"].nunique(),
            "n_features": len(packed.model.encoder.names),
            "harvest_run_id": packed.harvest_run_id,
        },
        metrics={**_scores(table, packed.kind), "p_value": packed.model.signal.p_value},
    )
    store.log_files(
        run_id,
        {
            "candidates.csv": shown.csv(table),
            "candidates.png": pictures.candidates(table, list(BASELINES)),
            _HELD_OUT_FILE: pictures.predicted_against_actual(packed.model, objective),
        },
    )


def _scores(table: pd.DataFrame, model: str) -> dict[str, float]:
    """A row of the table as metrics."""
    row = table[table["model"] == model].drop(columns="model").iloc[0]
    return {str(score): float(value) for score, value in row.to_dict().items() if pd.notna(value)}


def _log_candidates(
    store: MlflowStore,
    run_id: str,
    candidates: Sequence[Candidate],
    table: pd.DataFrame,
    objective: Objective,
) -> None:
    """A nested run for each kind of model that was compared, baselines too."""
    models = {candidate.name: candidate.model for candidate in candidates}
    tags = {names.KIND: "candidate", "mlflow.parentRunId": run_id}
    for name in table["model"]:
        with own_run(store, name, tags) as child_id:
            store.log_batch(child_id, params={"model": name}, metrics=_scores(table, name))
            if name in models:
                picture = pictures.predicted_against_actual(models[name], objective)
                store.log_files(child_id, {_HELD_OUT_FILE: picture})


def _explanation(
    best: Candidate, trials: pd.DataFrame, space: SearchSpace, objective: Objective
) -> dict[str, bytes]:
    """Which params matter, and what they do, on the task with the most trials: as files."""
    task = str(trials["task"].mode()[0])
    found = explain(
        best.model,
        trials,
        space,
        task=task,
        direction=objective.direction,
        rng=np.random.default_rng(0),
    )
    return {
        "importance.csv": shown.csv(found.importance),
        "importance.png": pictures.importance(found.importance),
        "partial_dependence.png": pictures.partial_dependence(found.curves, space, objective, task),
    }
