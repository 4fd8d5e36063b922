"""What a registered model suggests: the search of `proposal`, on what the model has with it."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlflow_meta.proposal import choose_batch, tried_on
from mlflow_meta.served.answers import COLUMNS, Answers
from mlflow_meta.served.memory import Memory
from mlflow_meta.served.packed import Packed
from mlflow_meta.served.rows import column_of, is_set, name_of
from mlflow_meta.space import narrowed, own_space
from mlflow_meta.subsets import folded

MAX_K = 1000
MAX_SEARCH_S = 3600.0


def suggest(  # noqa: PLR0913 - what is known, and what is asked for, are independent
    packed: Packed,
    memory: Memory,
    answers: Answers,
    *,
    task: str,
    k: int,
    search_s: float,
    seed: int,
    fixed: Mapping[str, object] | None = None,
) -> pd.DataFrame:
    """The `k` configurations to try next on a task, the best first.

    What `mlflow-meta suggest` finds when nothing was harvested or suggested since the training.

    Args:
        packed: The meta-model.
        memory: What it knows besides.
        answers: What tells of each.
        task: What they are for; may be one without trials.
        k: How many, 1 to `MAX_K`; fewer come only where the space has no more.
        search_s: Seconds for the search of a model that has a formula, see `choose_batch`.
        seed: Of the random numbers, at least 0.
        fixed: Column, as callers name it -> the value that it is to have in all of them; None, nan
            and the texts for "not set" fix nothing.

    Returns:
        `rank`, `task`, a column for each param of the task's space (None where it does not exist),
        and `answers.COLUMNS`. A param that is named as one of these is called `params.<name>`.

    Raises:
        ValueError: If an argument is out of its bounds, or a column is fixed that is no param.
        MetaError: If the space has no such param or value, or nothing is left to suggest.
    """
    if not 1 <= k <= MAX_K:
        raise ValueError(f"`1 <= k <= {MAX_K}` must hold, but got k = {k}.")
    if not 0 < search_s <= MAX_SEARCH_S:
        raise ValueError(f"`0 < search_s <= {MAX_SEARCH_S:g}` must hold, but got {search_s:g}.")
    if seed < 0:
        raise ValueError(f"`seed >= 0` must hold, but got seed = {seed}.")
    trials = pd.read_parquet(io.BytesIO(memory.trials))
    where = _where(fixed or {})
    space = own_space(trials, trials, task, packed.model.encoder.space)
    space = narrowed(space, [f"{name}={value}" for name, value in where.items()])
    configs, _ = choose_batch(
        packed.model,
        space,
        trials,
        task=task,
        n=k,
        tried=tried_on(trials, task),
        rng=np.random.default_rng(seed),
        search_s=search_s,
    )
    whole = [folded(config) for config in configs]
    # As objects: a whole number stays one where another configuration lacks the param.
    params = {
        f"params.{name}": pd.Series([config.get(name) for config in whole], dtype=object)
        for name in folded(dict.fromkeys(space.names, True))
    }
    told = answers.of(pd.DataFrame({"task": task, **params}))
    taken = {"rank", "task", *COLUMNS}
    shown = {c if name_of(c) in taken else name_of(c): values for c, values in params.items()}
    rank = pd.DataFrame({"rank": range(1, len(configs) + 1), "task": task})
    return pd.concat([rank, pd.DataFrame(shown), told], axis=1)


def _where(fixed: Mapping[str, object]) -> dict[str, object]:
    """The params that are fixed, and their values.

    Raises:
        ValueError: If something else is fixed: it is given for a task, and not chosen.
    """
    given = {column_of(name): value for name, value in fixed.items() if is_set(value)}
    if others := [column for column in given if not column.startswith("params.")]:
        raise ValueError(
            f"{', '.join(others[:5])} can't be asked for: with k, the row says which task the "
            "suggestions are for, and which params are to have which value."
        )
    return {column.removeprefix("params."): value for column, value in given.items()}
