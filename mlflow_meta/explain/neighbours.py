"""Which past trials are like a configuration."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.columns import config_of
from mlflow_meta.explain.rows import is_set, plain, unit
from mlflow_meta.space import Categorical, Param, SearchSpace
from mlflow_meta.space.params import same
from mlflow_meta.trials import Config, ConfigValue

Vector = NDArray[np.float64]


def nearest(
    config: Config, trials: pd.DataFrame, space: SearchSpace, *, task: str, k: int
) -> pd.DataFrame:
    """The past trials that are most like a configuration; those of its own task come first.

    distance^2 = sum over params of d^2, where d is the distance on the param's scale, 0 or 1 for
    choices without order, and 1 where only one of the two has the param.

    Returns:
        Up to `k` rows of `trials`, the nearest first, with the columns `distance` and `differs`: a
        dict of param -> (the trial's value, the configuration's value), None for one that is not
        set.
    """
    config = space.active(config)
    own = trials[trials["task"].astype(str) == task]
    if len(own) >= k:  # none of the others will be among them
        trials = own
    squared = np.zeros(len(trials))
    for name, param in space.params.items():
        there = _is_active_in(trials, space, name)
        if name not in config:
            squared += there
            continue
        # What is no number, such as an unknown category, is as far as can be.
        away = np.ones(len(trials))
        if there.any():  # else the trials may not even have the column
            away[there] = _distances(trials.loc[there, f"params.{name}"], param, config[name])
        squared += away**2
    foreign = (trials["task"].astype(str) != task).to_numpy(bool)
    order = np.lexsort([squared, foreign])[:k]
    found = trials.iloc[order].reset_index(drop=True)
    differs = [_differences(space.active(config_of(r)), config, space) for r in _records(found)]
    return found.assign(distance=np.sqrt(squared[order]), differs=pd.Series(differs, dtype=object))


def _is_active_in(rows: pd.DataFrame, space: SearchSpace, name: str) -> NDArray[np.bool_]:
    """Which rows have set the param, and its parents to what makes it exist."""
    there = is_set(rows, name)
    for parent, values in space.params[name].when.items():
        if there.any():
            allowed = [
                any(same(value, v) for v in values) for value in plain(rows[f"params.{parent}"])
            ] if f"params.{parent}" in rows else [False] * len(rows)  # fmt: skip
            there = there & np.array(allowed) & _is_active_in(rows, space, parent)
    return there


def _distances(values: pd.Series, param: Param, here: ConfigValue) -> Vector:
    if isinstance(param, Categorical) and not param.is_ordered:
        return np.array([float(not same(value, here)) for value in plain(values)])
    place = param.to_unit(np.array([float(here)]))[0]
    away = np.abs(np.clip(unit(values, param), -1.0, 2.0) - place)
    return np.asarray(np.where(np.isfinite(away), away, 1.0))


def _records(frame: pd.DataFrame) -> list[Mapping[object, object]]:
    return [dict(row) for row in frame.to_dict("records")]


def _differences(
    theirs: Config, ours: Config, space: SearchSpace
) -> dict[str, tuple[ConfigValue | None, ConfigValue | None]]:
    pairs = {name: (theirs.get(name), ours.get(name)) for name in space.names}
    return {name: pair for name, pair in pairs.items() if not same(*pair)}
