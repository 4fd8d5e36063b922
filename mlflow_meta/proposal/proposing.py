"""Trials and a search space in, configurations out, without a model at hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlflow_meta.effort import Effort, Limits
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.models import ZOO
from mlflow_meta.models.durations import Durations
from mlflow_meta.proposal.candidates import spread_out
from mlflow_meta.proposal.choosing import choose_batch
from mlflow_meta.proposal.task import tried_on
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import ConfigValue


def propose(
    trials: pd.DataFrame,
    space: SearchSpace,
    *,
    task: str,
    n: int,
    rng: np.random.Generator,
    budget_s: float | None = None,
) -> list[dict[str, ConfigValue]]:
    """The `n` configurations to try next on `task`, best first.

    Args:
        trials: What is known, of all tasks: a frame with `task`, `value` (minimised) and
            `params.<name>` (missing where inactive); `hardware.*`, `dataset.*` and `tags.*` are
            taken for context. May be empty.
        space: The configurations that may be tried.
        task: Which task they are for; it may have no trials yet.
        n: How many, at least 1.
        rng: Equal generators give equal proposals.
        budget_s: Seconds that they may take together, as predicted from the trials' `duration_s`:
            then fewer may come, those that gain most for the time. None does not look at time.

    Returns:
        Up to `n` configurations, none tried on the task before; fewer only where the space has no
        more. Inactive parameters are left out. With too few trials to learn from they fill the
        space evenly.

    Raises:
        Exhausted: If every configuration of the space has been tried on the task.
        NothingToLearn: If there is a budget, and trials are too few or all equally good; TooLittle
            if too few say how long they took.
        ValueError: If `n < 1`, or `trials` lacks a column or has values that are not finite.

    Example:
        >>> lr = {"type": "float", "low": 1e-4, "high": 1.0, "log": True}
        >>> space = SearchSpace.from_dict({"lr": lr})
        >>> trials = pd.DataFrame({"task": [], "value": [], "params.lr": []})
        >>> len(propose(trials, space, task="mnist", n=3, rng=np.random.default_rng(0)))
        3
    """
    if n < 1:
        raise ValueError(f"`n >= 1` must hold, but got {n}.")
    if missing := {"task", "value"} - set(trials):
        raise ValueError(
            f"Trials need the columns task and value, but {sorted(missing)} is missing."
        )
    tried = tried_on(trials, task)
    effort = None
    if budget_s is not None:
        durations = Durations.learn(trials, space)
        effort = Effort(limits=Limits(budget_s=budget_s), durations=durations)
    model = ZOO["transfer"]()
    try:
        model.learn(trials, space)
    except NothingToLearn:
        if effort is not None:
            raise
        return spread_out(space, n, tried=tried, rng=rng)
    configs, _ = choose_batch(
        model, space, trials, task=task, n=n, tried=tried, rng=rng, effort=effort
    )
    return configs
