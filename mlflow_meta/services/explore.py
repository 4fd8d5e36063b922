"""Explore: search space -> SCHEDULED runs that cover it evenly; no meta-model is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from mlflow_meta.errors import NothingToLearn
from mlflow_meta.proposal import spread_out, tried_on
from mlflow_meta.space import SearchSpace, constrained, infer, narrowed
from mlflow_meta.store import MlflowStore, names, plans
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.publish import publish
from mlflow_meta.store.suggested import item, note, rejections, share_view, suggested_configs
from mlflow_meta.store.sweep import sweep
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
        NoPermission: If the user may not write to the experiment; nothing was written.
    """
    for name in () if dry_run else (experiment_name, names.PROJECT_EXPERIMENT):
        store.check_may_edit(name)
    harvest_run_id, dataset = store.dataset()
    objective = dataset.objective(metric, direction)
    trials = dataset.trials(objective)
    own = trials[trials["experiment"] == experiment_name]
    refused = rejections(store, experiment_name)
    space, remarks = constrained(space or _space_of(own, trials), refused)
    space = narrowed(space, where)
    question: dict[str, Any] = {
        "experiment": store.experiment_id(experiment_name),
        "explore": objective.to_dict(),
        "trials": sorted(trials["run_id"].astype(str)),
        "n": n,
        "space": space.to_dict(),
        "rejected": [dict(rejection.config) for rejection in refused],
        **({} if rng is None else {"seed": int(rng.integers(2**53))}),
    }
    what = plans.digest(question)
    if dry_run:
        looked_up = Ledger.known(store, question["experiment"])
        plan = plans.standing(looked_up, what) if looked_up else None
    else:
        ledger = Ledger.of(store, question["experiment"])
        sweep(ledger)
        plan = plans.standing(ledger, what)
    is_repeated = plan is not None
    if plan is None:
        tried: list[Config] = [c for task in own["task"].unique() for c in tried_on(own, str(task))]
        tried += [space.parse(texts) for texts in suggested_configs(store, experiment_name)]
        chosen = np.random.default_rng(question.get("seed", int(what[:13], 16)))
        configs = spread_out(space, n, tried=tried, rng=chosen)
        values = objective.direction.sign * (own if len(own) else trials)["value"].to_numpy(float)
        found = [_as_usual(i, config, values) for i, config in enumerate(configs, start=1)]
        about = {
            "experiment_name": experiment_name,
            "objective": objective.to_dict(),
            "found": [asdict(suggestion) for suggestion in found],
            "best_so_far": _best(own, objective),
            "space": space.to_dict(),
            "remarks": list(remarks),
            "never_logged": [name for name in space.names if f"params.{name}" not in trials],
        }
        if dry_run:
            return _told_of(about)
        tags = {names.HARVEST_RUN: harvest_run_id}
        items = [
            item(
                suggestion,
                objective,
                experiment_name,
                note=_note(suggestion, objective, experiment_name, len(values)),
                tags=tags,
            )
            for suggestion in found
        ]
        plan = plans.decide(ledger, what, items, about, tags)
    if dry_run:
        return _told_of(plan.about, is_repeated=True)
    run_ids = publish(ledger, plan)
    view = share_view(store, experiment_name, objective, list(plan.about["space"]))
    return _told_of(
        plan.about, run_ids=run_ids, is_repeated=is_repeated, view=view, run_id=plan.run_id
    )


def _best(own: pd.DataFrame, objective: Objective) -> float:
    best = own["value"].min() if len(own) else np.nan
    return float(objective.direction.sign * best)


def _told_of(
    about: Mapping[str, Any], *, run_ids: Sequence[str] = (), is_repeated: bool = False, **more: Any
) -> Suggestions:
    return Suggestions(
        items=[Suggestion(**suggestion) for suggestion in about["found"]],
        run_ids=run_ids,
        task=about["experiment_name"],
        tasks_by="experiment",
        objective=Objective.from_dict(about["objective"]),
        best_so_far=about["best_so_far"],
        model="",
        n_unseen=0,
        has_signal=False,
        never_logged=about["never_logged"],
        is_repeated=is_repeated,
        remarks=about["remarks"],
        **{"view": "", **more},
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
    return note(
        item,
        experiment_name,
        title=f"Exploring: suggestion {item.rank} for {experiment_name}",
        said="Chosen far from all that was tried, for a meta-model to learn from. 8 of 10 of the "
        f"{n_runs} runs before got a {objective.metric} between {item.low:.5g} and "
        f"{item.high:.5g} ({objective.direction.value}).",
    )
