"""Explore: search space -> SCHEDULED runs that cover it evenly; no meta-model is asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mlflow_meta.errors import NothingToLearn
from mlflow_meta.proposal import spread_out, tried_on
from mlflow_meta.space import SearchSpace, infer, narrowed
from mlflow_meta.store import MlflowStore, batches, names, queue
from mlflow_meta.trials import Config, Direction, Objective, Suggestion, Suggestions


def explore(  # noqa: PLR0913 - each is a choice of its own
    store: MlflowStore,
    experiment_name: str,
    *,
    n: int = 5,
    metric: str | Sequence[str] | None = None,
    direction: Direction | None = None,
    space: SearchSpace | None = None,
    where: Sequence[str] = (),
    dry_run: bool = False,
    rng: np.random.Generator | None = None,
) -> Suggestions:
    """Schedule `n` runs that, with those that were tried, cover the search space evenly.

    No meta-model is needed. What is said to be expected is what runs have got so far: the median,
    and the middle 80%.

    Args:
        store: Where the harvest is, and the runs go.
        experiment_name: The target experiment; it must exist.
        n: How many.
        metric: What is to be improved in the end, as `train` takes it.
        direction: Which values are better; None for what the experiments or the names say.
        space: Where to search; None for what the experiment's runs have varied or, where they have
            varied nothing, all that were harvested.
        where: Conditions that narrow the space, as `space.narrowed` takes them.
        dry_run: Choose, and write nothing.
        rng: Equal generators give equal suggestions; None for a fresh one.

    Raises:
        NothingToLearn: If nothing was harvested, or no run has the metric.
        TooLittle: If no param varies, and no space was given.
        BadSpace: If nothing of the space is left.
        Exhausted: If every configuration has been run or suggested.
    """
    suggested = queue.suggested_configs(store, experiment_name)
    harvest_run_id, dataset = store.dataset()
    objective = dataset.objective(metric, direction)
    trials = dataset.trials(objective)
    own = trials[trials["experiment"] == experiment_name]
    space = narrowed(space or _space_of(own, trials), where)
    tried: list[Config] = [c for task in own["task"].unique() for c in tried_on(own, str(task))]
    tried += [space.parse(texts) for texts in suggested]
    configs = spread_out(space, n, tried=tried, rng=rng or np.random.default_rng())
    values = objective.direction.sign * (own if len(own) else trials)["value"].to_numpy(float)
    items = [_as_usual(i, config, values) for i, config in enumerate(configs, start=1)]

    def described(item: Suggestion) -> tuple[str, dict[str, str]]:
        text = _note(item, objective, experiment_name, len(values))
        return text, {names.HARVEST_RUN: harvest_run_id}

    run_ids, view = (
        ([], "")
        if dry_run
        else batches.schedule(store, experiment_name, items, objective, described, space.names)
    )
    best = own["value"].min() if len(own) else np.nan
    return Suggestions(
        items=items,
        run_ids=run_ids,
        task=experiment_name,
        tasks_by="experiment",
        objective=objective,
        best_so_far=float(objective.direction.sign * best),
        model="",
        view=view,
        n_unseen=0,
        has_signal=False,
        never_logged=[name for name in space.names if f"params.{name}" not in trials],
    )


def _space_of(own: pd.DataFrame, trials: pd.DataFrame) -> SearchSpace:
    try:
        return infer(own).space
    except NothingToLearn:
        return infer(trials).space


def _as_usual(rank: int, config: Config, values: np.ndarray) -> Suggestion:
    """A configuration of which is expected what the runs before have got, `(n,)`."""
    low, lower, median, upper, high = np.quantile(values, [0.1, 0.16, 0.5, 0.84, 0.9]).tolist()
    return Suggestion(
        rank=rank, config=config, mean=median, std=(upper - lower) / 2, low=low, high=high
    )


def _note(item: Suggestion, objective: Objective, experiment_name: str, n_runs: int) -> str:
    return batches.note(
        item,
        experiment_name,
        title=f"Exploring: suggestion {item.rank} for {experiment_name}",
        said="Chosen far from all that was tried, for a meta-model to learn from. 8 of 10 of the "
        f"{n_runs} runs before got a {objective.metric} between {item.low:.5g} and "
        f"{item.high:.5g} ({objective.direction.value}).",
    )
