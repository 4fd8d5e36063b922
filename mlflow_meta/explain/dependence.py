"""What each param does: partial dependence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.models import MetaModel
from mlflow_meta.proposal import in_context
from mlflow_meta.space import Categorical, Param, SearchSpace
from mlflow_meta.space.params import is_active
from mlflow_meta.trials import Config, ConfigValue

N_CONFIGS = 30  # random configurations over which a curve is averaged
N_POINTS = 15  # of the curve of a numeric param
BAND = 0.8  # share of the configurations that lie in a curve's band


def whole_configs(
    space: SearchSpace, n: int, rng: np.random.Generator
) -> list[dict[str, ConfigValue]]:
    """`n` random configurations that set every param, also those that are inactive."""
    columns = {name: param.sample(n, rng) for name, param in space.params.items()}
    return [{name: columns[name][i] for name in columns} for i in range(n)]


def partial_dependence(
    model: MetaModel,
    space: SearchSpace,
    params: Sequence[str],
    *,
    task: str,
    configs: Sequence[Config],
    context: Mapping[str, object],
) -> dict[str, pd.DataFrame]:
    """What the model expects as one param moves over its scale, all else as in `configs`.

    mean(x) = average over configs c of model(c with param = x); `low` and `high` are the quantiles
    over the configs between which `BAND` of them lie, so that a wide band means that it depends on
    the other params.

    Args:
        model: Fitted.
        space: Where the params' scales and conditions are.
        params: Their names. Where one exists only under other choices, these are made.
        task: In whose units.
        configs: At least one. They may set inactive params too (see `whole_configs`): these count
            where a value of a param makes them exist.
        context: What is given, as `proposal.context_of` has it.

    Returns:
        Param -> curve of values, minimised: at most `N_POINTS` of a numeric param, and every choice
        of another. The model is asked once for all of them.
    """
    if not params:
        return {}
    grids = [_grid(space.params[name]) for name in params]
    moved = []
    for name, grid in zip(params, grids, strict=True):
        allowing = [_allowing(space, name, config, i) for i, config in enumerate(configs)]
        moved += [space.active({**config, name: value}) for value in grid for config in allowing]
    predicted = model.predict(in_context(moved, space, task, context)).mean
    ends = np.cumsum([len(grid) * len(configs) for grid in grids])[:-1]
    parts = np.split(predicted, ends)
    return {
        name: _curve(grid, part.reshape(len(grid), len(configs)))
        for name, grid, part in zip(params, grids, parts, strict=True)
    }


def _curve(grid: Sequence[ConfigValue], by_value: NDArray[np.float64]) -> pd.DataFrame:
    """The curve over `grid`, of predictions `(grid, configs)`."""
    tail = (1 - BAND) / 2
    return pd.DataFrame(
        {
            "at": pd.Series(grid, dtype=object),
            "mean": by_value.mean(axis=1),
            "low": np.quantile(by_value, tail, axis=1),
            "high": np.quantile(by_value, 1 - tail, axis=1),
        }
    )


def _grid(param: Param) -> list[ConfigValue]:
    if isinstance(param, Categorical) or param.n_values <= N_POINTS:
        return param.grid()
    return list(dict.fromkeys(param.from_unit(np.linspace(0.0, 1.0, N_POINTS))))


def _allowing(space: SearchSpace, name: str, config: Config, turn: int) -> dict[str, ConfigValue]:
    """`config` with the choices under which a param exists; of several, each has its turn."""
    made = dict(config)
    for parent, values in space.params[name].when.items():
        if not is_active({parent: values}, made):
            made[parent] = values[turn % len(values)]
        made = _allowing(space, parent, made, turn)
    return made
