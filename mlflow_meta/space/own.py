"""The search space of one task, mined from its own trials or from what others have varied."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

import pandas as pd

from mlflow_meta.columns import columns_with
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.space.infer import infer
from mlflow_meta.space.search_space import SearchSpace

MIN_OWN_TRIALS = 10  # trials of a task from which its own ranges say enough


def own_space(
    trials: pd.DataFrame,
    runs: pd.DataFrame,
    task: str,
    learned: SearchSpace,
    *,
    varied: Collection[str] = (),
) -> SearchSpace:
    """What the task's own trials have varied or, if they are few, what others have.

    So also where its own, many as they are, have not varied all of the params `varied`.

    The constraints of what the meta-model was trained with hold here, too.

    Of the others' params only those that belong together: the ones that the task's own runs have
    logged, with any metric, or else those of the task with the most trials.

    Args:
        trials: Of all tasks.
        runs: Likewise, and those without the metric, where they are known.
        task: Whose space it is.
        learned: What the meta-model was trained with.
        varied: Params that must be in it.

    Raises:
        NothingToLearn: If the task's runs log no param that the meta-model knows.
    """
    own = trials[trials["task"] == task]
    if len(own) >= MIN_OWN_TRIALS:
        with suppress(NothingToLearn):
            inferred = infer(own).space
            same = _under_constraints(inferred, learned)
            if same is not None and set(varied) <= set(inferred.names):
                return same
    alike = runs[runs["task"] == task]
    if alike.empty:
        alike = trials[trials["task"] == trials["task"].mode()[0]]
    logged = [c for c in columns_with(alike, "params.") if alike[c].notna().any()]
    space = learned.only({column.removeprefix("params.") for column in logged})
    if space is None:
        raise NothingToLearn(
            f"The runs of {task!r} log none of the params that the meta-model knows, which are "
            f"{', '.join(learned.names[:8])}. Pass what to search with --space."
        )
    return space


def _under_constraints(inferred: SearchSpace, learned: SearchSpace) -> SearchSpace | None:
    """What was inferred, under the constraints that name its params; None if they can't be of it.

    So where own runs have shown as a text what the others have shown as a number.
    """
    names = set(inferred.names)
    kept = tuple(c for c in learned.constraints if c.names <= names)
    try:
        return replace(inferred, constraints=kept) if kept else inferred
    except ValueError:
        return None
