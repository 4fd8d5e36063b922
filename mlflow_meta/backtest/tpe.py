"""Optuna's TPE as a way through the pool: of what it asks for, the nearest run that is left.

Optuna is a peer to be measured against, and no dependency: it is imported where it is asked for.
Numbers are given to it as positions on their parameter's scale, in [0, 1].
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from mlflow_meta.columns import config_of, frame_of
from mlflow_meta.features import Encoder
from mlflow_meta.space import Categorical, SearchSpace
from mlflow_meta.space.params import Param, is_active, same
from mlflow_meta.trials import Config, ConfigValue

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial


def is_installed() -> bool:
    """Whether Optuna is there to be compared with."""
    return find_spec("optuna") is not None


def tpe(
    space: SearchSpace, task: str, rng: np.random.Generator
) -> Callable[[pd.DataFrame, pd.DataFrame, int], list[int]]:
    """A way as `replay` takes it. It is told the task's own runs, and what it asked for waits.

    TPE asks for a whole batch before it hears of any of it, as we do.
    """
    import optuna  # the extra `bench`

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=int(rng.integers(2**31)), multivariate=True, group=True, constant_liar=True
        )
    study = optuna.create_study(direction="minimize", sampler=sampler)
    told: set[object] = set()

    def choose(known: pd.DataFrame, pool: pd.DataFrame, n: int) -> list[int]:
        own = known[known["task"].astype(str) == task]
        for place, row in own[~own.index.isin(list(told))].iterrows():
            told.add(place)
            config = space.nearest(config_of(row.to_dict()), rng)
            study.add_trial(_known_trial(space, config, float(row["value"])))
        asked = [study.ask() for _ in range(n)]
        configs = [_config(trial, space) for trial in asked]
        for trial in asked:  # what it asked for was never run; what was, is added in its stead
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return _nearest(configs, pool, space)

    return choose


def _nearest(configs: list[Config], pool: pd.DataFrame, space: SearchSpace) -> list[int]:
    """For each configuration the nearest run of the pool that no earlier one has taken."""
    asked = frame_of(configs, space.names)
    params = [column for column in asked if column in pool]
    both = pd.concat([pool[params].astype(object), asked[params].astype(object)], ignore_index=True)
    positions = Encoder.learn(both.assign(task=""), space).encode(both)
    distances = cdist(positions[len(pool) :], positions[: len(pool)])
    chosen: list[int] = []
    for row in distances:
        row[chosen] = np.inf
        chosen.append(int(np.argmin(row)))
    return chosen


def _config(trial: Trial, space: SearchSpace) -> Config:
    """What a trial of Optuna's is about; each param is asked for once its parents are known."""
    config: dict[str, ConfigValue] = {}
    for name, param in space.params.items():
        if not is_active(param.when, config):
            continue
        if not isinstance(param, Categorical):
            unit = trial.suggest_float(name, 0.0, 1.0)
            config[name] = param.from_unit(np.array([unit]))[0]
        elif param.is_ordered:
            config[name] = param.choices[trial.suggest_int(name, 0, len(param.choices) - 1)]
        else:
            config[name] = param.choices[trial.suggest_categorical(name, range(len(param.choices)))]
    return config


def _known_trial(space: SearchSpace, config: Config, value: float) -> FrozenTrial:
    from optuna.trial import create_trial

    return create_trial(
        params={name: _given(space.params[name], config[name]) for name in config},
        distributions={name: _distribution(space.params[name]) for name in config},
        value=value,
    )


def _given(param: Param, value: ConfigValue) -> float | int:
    """A value as Optuna is told it: a choice's place, or the position on the scale."""
    if isinstance(param, Categorical):
        return next(i for i, choice in enumerate(param.choices) if same(choice, value))
    return float(np.clip(param.to_unit(np.array([float(value)]))[0], 0.0, 1.0))


def _distribution(param: Param) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(param, Categorical):
        return FloatDistribution(0.0, 1.0)
    if param.is_ordered:
        return IntDistribution(0, len(param.choices) - 1)
    return CategoricalDistribution(range(len(param.choices)))
