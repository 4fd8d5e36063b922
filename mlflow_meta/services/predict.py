"""Predict: what untried configurations would get, by the champion. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mlflow_meta.columns import CONTEXT
from mlflow_meta.known import brought_up_to_date, known_to, task_of
from mlflow_meta.served.answers import Answers
from mlflow_meta.served.remember import remember
from mlflow_meta.store import MlflowStore, registry
from mlflow_meta.subsets import list_of
from mlflow_meta.trials import Config, Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What is expected of some configurations.

    Attributes:
        task: Which task they were asked for.
        objective: What is predicted.
        model: Name and version of the meta-model, such as `mlflow-meta-rmse v3`.
        has_signal: Whether the meta-model could tell good from bad on held-out trials.
        answers: `served.answers.COLUMNS`, a row a configuration, in the metric's own units.
        unknown: Names in the configurations of which the meta-model knows nothing.
    """

    task: str
    objective: Objective
    model: str
    has_signal: bool
    answers: pd.DataFrame
    unknown: Sequence[str]


def predict(
    store: MlflowStore,
    experiment_name: str,
    configs: Sequence[Config],
    *,
    metric: str | None = None,
    task: str | None = None,
    model_name: str | None = None,
) -> Predictions:
    """Ask the champion, with all that was harvested by now, what configurations would get.

    Args:
        store: Where the champion and the harvest are.
        experiment_name: Which experiment; it must exist.
        configs: Param -> value, as numbers or as the texts that MLflow keeps; any may be missing.
            Names such as `hardware.gpu_model` say what is given.
        metric: Which; None if there is only one meta-model.
        task: Which task of the experiment, where its runs have several data sets.
        model_name: The registered model, where it is not our own choice.

    Raises:
        NoModel: If no meta-model has been trained.
        NothingToLearn: If it is not clear which task is meant.
        StoreRefused: If there is no such experiment.
        ValueError: If no configuration is given.
    """
    if not configs:
        raise ValueError("At least one configuration must be given, but got none.")
    champion = registry.champion(store, metric=metric, name=model_name)
    store.experiments([experiment_name])
    known = known_to(store, champion)
    task = task or task_of(experiment_name, known)
    champion, _ = brought_up_to_date(champion, known, [task])
    learned = known.trials["task"].isin([*champion.model.scales, task])
    memory = remember(known.trials[learned].reset_index(drop=True), champion.model.encoder.space)
    columns = champion.model.encoder.columns + memory.encoder.columns
    asked = [{_column(name): value for name, value in config.items()} for config in configs]
    frame = pd.DataFrame(asked, dtype=object).assign(task=task)
    read = {"task", *(column.source for column in columns)}
    read |= {f"params.{list_of(source.removeprefix('params.'))}" for source in read}
    given = {str(column) for column in frame}
    return Predictions(
        task=task,
        objective=champion.objective,
        model=f"{champion.name} v{champion.version}",
        has_signal=champion.model.has_signal,
        answers=Answers(champion, memory).of(frame),
        unknown=sorted(column.removeprefix("params.") for column in given - read),
    )


def _column(name: str) -> str:
    """The column of a frame of trials; a param may be called `task`."""
    return name if name.startswith((*CONTEXT, "params.")) else f"params.{name}"
