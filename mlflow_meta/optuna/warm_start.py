"""Studies made of MLflow's runs: each run is a trial, with the distributions that it tells."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlflow_meta.columns import DISTRIBUTION, config_of
from mlflow_meta.dataset import MetaDataset
from mlflow_meta.optuna.told import RUN_ID, theirs
from mlflow_meta.space import SearchSpace, infer, to_distributions
from mlflow_meta.space.distributions import written_distribution
from mlflow_meta.store import MlflowStore
from mlflow_meta.trials import Direction, Objective

log = logging.getLogger(__name__)


def to_optuna(
    store: MlflowStore,
    experiment_name: str,
    *,
    study: Study | None = None,
    metric: str | None = None,
    space: SearchSpace | None = None,
    sampler: BaseSampler | None = None,
) -> Study:
    """A study that knows the runs of an experiment.

    Finished runs are its complete trials, failed ones are failed trials, each under the user
    attribute `mlflow_run_id`; a run that is in the study already is not added again. Their params
    have the distributions of Optuna where it has made the runs, else those of `space`.

    Args:
        store: Where the runs are; nothing is written there.
        experiment_name: Whose runs.
        study: What gets the trials, of one objective; None for a new one in memory, named as the
            experiment and with the direction of its metric.
        metric: What the trials' value is, as `MetaDataset.objective` takes it.
        space: Which params are told, and what they are drawn from. A run outside of it is left out
            with a warning in the log. None infers it from the runs.
        sampler: Of a new study; None for Optuna's own.

    Returns:
        The study.

    Raises:
        NothingToLearn: If there is no such experiment, or no run of it has the metric.
        BadSpace: If Optuna can't say a param of the space; names it.
        ValueError: If the study seeks the other direction, or several objectives.
    """
    dataset = store.read([experiment_name])
    objective = dataset.objective(metric, None if study is None else _direction(study))
    if study is None:
        study = optuna.create_study(
            study_name=experiment_name, sampler=sampler, direction=objective.direction.value
        )
    trials = dataset.trials(objective)
    searched = space or infer(trials).space
    known = {trial.user_attrs.get(RUN_ID) for trial in study.get_trials(deepcopy=False)}
    found = [*_complete(trials, searched, objective), *_failed(dataset, searched)]
    added = [trial for trial in found if trial.user_attrs[RUN_ID] not in known]
    study.add_trials(added)
    log.info("added", extra={"action": "to_optuna", "n_trials": len(added)})
    return study


def _direction(study: Study) -> Direction:
    if len(study.directions) > 1:
        raise ValueError(f"The study {study.study_name!r} must have one objective, but has more.")
    return Direction(study.direction.name.lower())


def _complete(trials: pd.DataFrame, space: SearchSpace, objective: Objective) -> list[FrozenTrial]:
    values = objective.direction.sign * trials["value"]
    return _trials(trials, space, TrialState.COMPLETE, values.tolist())


def _failed(dataset: MetaDataset, space: SearchSpace) -> list[FrozenTrial]:
    return _trials(dataset.failures, space, TrialState.FAIL, [None] * len(dataset.failures))


def _distribution(
    name: str, row: Mapping[Hashable, object], inferred: Mapping[str, BaseDistribution]
) -> BaseDistribution:
    """What Optuna has drawn the param from, where the run tells it; else what was inferred."""
    text = row.get(DISTRIBUTION + name)
    return written_distribution(text) if isinstance(text, str) else inferred[name]


def _trials(
    runs: pd.DataFrame, space: SearchSpace, state: TrialState, values: list[float | None]
) -> list[FrozenTrial]:
    """A trial for each run that lies in the space."""
    inferred, made, outside = to_distributions(space), [], []
    for row, value in zip(runs.to_dict("records"), values, strict=True):
        config = space.active(config_of(row))
        distributions = {name: _distribution(name, row, inferred) for name in config}
        if not space.satisfied(config):
            outside.append(str(row["run_id"]))
            continue
        try:
            made.append(
                create_trial(
                    state=state,
                    value=value,
                    params={name: theirs(v, distributions[name]) for name, v in config.items()},
                    distributions=distributions,
                    user_attrs={RUN_ID: str(row["run_id"])},
                )
            )
        except ValueError:
            outside.append(str(row["run_id"]))
    if outside:
        log.warning(
            "%d runs are outside of the search space, such as %s: they are no trials.",
            len(outside),
            outside[0],
            extra={"action": "to_optuna"},
        )
    return made
