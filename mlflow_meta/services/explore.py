"""Explore: search space -> SCHEDULED runs that cover it evenly; no meta-model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone

import numpy as np
import pandas as pd

from mlflow_meta import shown
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.known import never_logged
from mlflow_meta.pages import Story, page, runs_before, suggested_now
from mlflow_meta.proposal import spread_out, tried_on
from mlflow_meta.scheduling import (
    Decision,
    check_may_schedule,
    heeded,
    scheduled_once,
    seed_of,
    swept_ledger,
)
from mlflow_meta.space import SearchSpace, infer, narrowed
from mlflow_meta.store import MlflowStore, names
from mlflow_meta.store.suggested import configs_of, item, note, suggested_runs, undecided_in
from mlflow_meta.trials import Config, Direction, Objective, Suggestion, Suggestions

_NOT_ASKED = (
    "No meta-model was asked: these suggestions cover the search space evenly. When they have "
    "finished, `mlflow-meta train` learns which params matter."
)


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
        rng: Equal generators ask the same, others for other suggestions; None: what is asked
            decides.

    Raises:
        NothingToLearn: If nothing was harvested, or no run has the metric.
        TooLittle: If no param varies, and no space was given.
        BadSpace: If nothing of the space is left.
        Exhausted: If every configuration has been run or suggested.
        NoPermission: If the user may not write to the experiment; nothing was written.
    """
    if not dry_run:
        check_may_schedule(store, experiment_name)
    harvest_run_id, dataset = store.dataset()
    objective = dataset.objective(metric, direction)
    trials = dataset.trials(objective)
    own = trials[trials["experiment"] == experiment_name]
    space = space or _space_of(own, trials)
    narrowed(space, where)  # so that a wrong condition shows before anything is done
    ledger = swept_ledger(store, experiment_name, dry_run=dry_run)
    before = suggested_runs(store, experiment_name)
    space, refused, remarks = heeded(store, space, before, dry_run=dry_run)
    space = narrowed(space, where)
    question = {
        "experiment": store.experiment_id(experiment_name),
        "explore": objective.to_dict(),
        "trials": sorted(trials["run_id"].astype(str)),
        "n": n,
        "space": space.to_dict(),
        "rejected": [dict(rejection.config) for rejection in refused],
        **seed_of(rng),
    }

    def decide(seed: int) -> Decision:
        tried: list[Config] = [c for task in own["task"].unique() for c in tried_on(own, str(task))]
        tried += [space.parse(texts) for texts in configs_of(before)]
        configs = spread_out(space, n, tried=tried, rng=np.random.default_rng(seed))
        values = objective.direction.sign * (own if len(own) else trials)["value"].to_numpy(float)
        found = [_as_usual(i, config, values) for i, config in enumerate(configs, start=1)]
        tags = {names.HARVEST_RUN: harvest_run_id}
        notes = [_note(one, objective, experiment_name, len(values)) for one in found]
        return Decision(
            items=[
                item(one, objective, experiment_name, note=text, tags=tags)
                for one, text in zip(found, notes, strict=True)
            ],
            about={
                "experiment_name": experiment_name,
                "task": experiment_name,
                "tasks_by": "experiment",
                "objective": objective.to_dict(),
                "found": [asdict(suggestion) for suggestion in found],
                "best_so_far": _best(own, objective),
                "space": space.to_dict(),
                "remarks": list(remarks),
                "never_logged": never_logged(space, trials),
            },
            tags=tags,
            draw=lambda: {
                names.REPORT_FILE: page(
                    Story(
                        experiment_name=experiment_name,
                        task=experiment_name,
                        objective=objective,
                        model="",
                        before=runs_before(own, dataset.frame, objective.direction.sign),
                        suggested=suggested_now(found, ""),
                        explanation=None,
                        space=space,
                        why_not=_NOT_ASKED,
                        address="",
                        now=datetime.now(timezone.utc),
                    )
                )
            },
        )

    done = scheduled_once(store, ledger, question, decide, dry_run=dry_run)
    return replace(done, remarks=(*undecided_in(before), *done.remarks))


def _best(own: pd.DataFrame, objective: Objective) -> float:
    best = own["value"].min() if len(own) else np.nan
    return float(objective.direction.sign * best)


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
        title=f"Exploring: suggestion {item.rank} for {shown.code(experiment_name)}",
        said=[
            "Chosen far from all that was tried, for a meta-model to learn from.",
            f"8 of 10 of the {n_runs} runs before got a {shown.code(objective.metric)} between "
            f"{shown.number(item.low)} and {shown.number(item.high)} "
            f"({objective.direction.value}).",
        ],
    )
