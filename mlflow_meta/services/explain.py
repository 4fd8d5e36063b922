"""Explain: which params matter for an experiment, by the champion. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlflow_meta import pictures
from mlflow_meta.explain import explain as explained
from mlflow_meta.explain import sentence
from mlflow_meta.known import known_to, space_of, task_of
from mlflow_meta.store import MlflowStore, registry
from mlflow_meta.trials import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """What matters for one task.

    Attributes:
        task: Which task.
        objective: What the meta-model predicts.
        model: Name and version of the meta-model, such as `mlflow-meta-rmse v3`.
        n_trials: How many trials of the task are known.
        has_signal: Whether the meta-model could tell good from bad on held-out trials.
        importance: As `mlflow_meta.explain.importance` returns it.
        curves: Param -> curve, in the metric's own units.
        sentence: What the most important params do.
        picture: Both, as PNG.
    """

    task: str
    objective: Objective
    model: str
    n_trials: int
    has_signal: bool
    importance: pd.DataFrame
    curves: Mapping[str, pd.DataFrame]
    sentence: str
    picture: bytes


def explain(
    store: MlflowStore,
    experiment_name: str,
    *,
    metric: str | None = None,
    task: str | None = None,
    model_name: str | None = None,
) -> Reasons:
    """Ask the champion which params matter for an experiment's task, and what they do.

    Args:
        store: Where the champion and the harvest are.
        experiment_name: Which experiment; it must exist.
        metric: Of what; None if there is only one meta-model.
        task: Which task of the experiment, where its runs have several data sets.
        model_name: The registered model, where it is not our own choice.

    Raises:
        NoModel: If no meta-model has been trained.
        NothingToLearn: If it is not clear which task is meant, or its params are not known.
        StoreRefused: If there is no such experiment.
    """
    champion = registry.champion(store, metric=metric, name=model_name)
    store.experiments([experiment_name])
    known = known_to(store, champion)
    task = task or task_of(experiment_name, known)
    space = space_of(known, task, champion.model)
    objective = champion.objective
    found = explained(
        champion.model,
        known.trials,
        space,
        task=task,
        direction=objective.direction,
        rng=np.random.default_rng(0),  # asked twice, it answers the same
    )
    return Reasons(
        task=task,
        objective=objective,
        model=f"{champion.name} v{champion.version}",
        n_trials=int((known.trials["task"] == task).sum()),
        has_signal=champion.model.has_signal,
        importance=found.importance,
        curves=found.curves,
        sentence=sentence(found.curves, space, objective.metric, objective.direction),
        picture=pictures.explanation(found, space, objective, task),
    )
