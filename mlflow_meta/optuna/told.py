"""What a study tells: Optuna's distributions and trials as our params and frames, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mlflow_meta.space import Param, read_distribution
from mlflow_meta.space.distributions import plain_choice
from mlflow_meta.space.params import same
from mlflow_meta.trials import ConfigValue

RUN_ID = "mlflow_run_id"
"""The user attribute of a trial that was a run of MLflow's; Optuna's own callback says it too."""

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def param_of(distribution: BaseDistribution) -> Param | None:
    """Our param of a distribution; None where its choices can't be told apart."""
    try:
        return read_distribution(distribution_to_json(distribution))
    except (TypeError, ValueError):
        return None


def theirs(value: ConfigValue, distribution: BaseDistribution) -> Any:
    """A value of `param_of(distribution)`, or the text that MLflow keeps, as Optuna has it.

    Raises:
        ValueError: If it is none of the choices, no number, or for an integer no whole one.
    """
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        found = [choice for choice in choices if same(plain_choice(choice), value)]
        found += [choice for choice in choices if str(choice) == value]
        if not found:
            raise ValueError(f"{value!r} is none of {choices}.")
        return found[0]
    number = float(value)
    if not isinstance(distribution, IntDistribution):
        return number
    if not number.is_integer():  # nor is inf or nan
        raise ValueError(f"{value!r} is no whole number.")
    return int(number)


def config_of(trial: FrozenTrial) -> dict[str, ConfigValue]:
    """What a trial has set, as our values."""
    return {name: plain_choice(value) for name, value in trial.params.items()}


def distributions_of(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """The newest distribution of every param that can be searched together with others."""
    found: dict[str, BaseDistribution] = {}
    for trial in trials:
        found |= trial.distributions
    return {n: d for n, d in found.items() if not d.single() and param_of(d) is not None}


def frame_of(study: Study, trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """The complete ones of a study's trials, as `propose` takes them; the study is their task.

    An infinite value counts as the worst or the best of the others; without others it is left out.
    """
    sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    values = np.array([sign * float(trial.value or 0.0) for trial in done])
    finite = values[np.isfinite(values)]
    if not len(finite):
        return pd.DataFrame({"task": [], "value": []})
    values = np.clip(values, finite.min(), finite.max())
    rows: list[Mapping[str, object]] = [
        {
            "task": study.study_name,
            "value": value,
            "run_id": trial.user_attrs.get(RUN_ID),
            **{f"params.{name}": chosen for name, chosen in config_of(trial).items()},
        }
        for trial, value in zip(done, values, strict=True)
    ]
    return pd.DataFrame(rows)


def together(history: pd.DataFrame | None, own: pd.DataFrame) -> pd.DataFrame:
    """All that is known; a run that became a trial of the study counts once, as that."""
    if history is None or history.empty:
        return own
    if own.empty:
        return history.reset_index(drop=True)
    if "run_id" in history:
        history = history[~history["run_id"].isin(own["run_id"].dropna())]
    parts = [part.dropna(axis="columns", how="all") for part in (history, own)]
    return pd.concat(parts, ignore_index=True)
