"""What a task is told by: what was tried on it, in which context, and what was best anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlflow_meta.columns import CONTEXT, columns_with, config_of, frame_of
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Config, ConfigValue

N_ELITES = 10  # best trials of each task from which the search also starts
MAX_ELITES = 300  # of all tasks together


def tried_on(trials: pd.DataFrame, task: str) -> list[dict[str, ConfigValue]]:
    """The configurations that were tried on `task`."""
    rows = trials[trials["task"].astype(str) == task]
    return [config_of(row) for row in rows.to_dict("records")]


def context_of(trials: pd.DataFrame, space: SearchSpace, task: str) -> dict[str, object]:
    """What is given for `task`: the context of its best trial, among those that are most alike.

    A task's runs may come from several programs; the trial that sets most of the space's
    parameters belongs to the one that is being searched.
    """
    rows = trials[trials["task"].astype(str) == task]
    columns = columns_with(trials, *CONTEXT)
    if rows.empty or not columns:
        return {}
    known = [f"params.{name}" for name in space.names if f"params.{name}" in rows]
    n_set = rows[known].notna().sum(axis=1) if known else pd.Series(0, index=rows.index)
    typical = rows[n_set >= n_set.median()]
    best = typical.iloc[int(np.argmin(typical["value"].to_numpy(float)))]
    return {column: best[column] for column in columns if not pd.isna(best[column])}


def in_context(
    configs: Sequence[Config], space: SearchSpace, task: str, context: Mapping[str, object]
) -> pd.DataFrame:
    """`configs` as rows that a meta-model reads: each on `task`, in the same context."""
    frame = frame_of(configs, space.names)
    given = pd.DataFrame({"task": task, **context}, index=frame.index)
    return pd.concat([frame, given], axis=1)


def elites(trials: pd.DataFrame, task: str) -> list[dict[str, ConfigValue]]:
    """The best configurations of every task: `task`'s first, then the others' by their turns."""
    ranked = trials.sort_values("value")
    turn = ranked.groupby("task", sort=False).cumcount()
    own = ranked["task"].astype(str) == task
    order = np.lexsort([turn.to_numpy(), ~own.to_numpy()])
    best = ranked.iloc[order[turn.to_numpy()[order] < N_ELITES][:MAX_ELITES]]
    return [config_of(row) for row in best.to_dict("records")]
