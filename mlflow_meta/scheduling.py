"""Scheduling: what is asked becomes runs that wait, once however often it is asked, and by whom."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlflow_meta.space import Rejection, SearchSpace, constrained
from mlflow_meta.store import MlflowStore, Store, names, plans
from mlflow_meta.store.contract import Record
from mlflow_meta.store.descriptions import NOTE, batch
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.plans import Item, Plan
from mlflow_meta.store.publish import publish
from mlflow_meta.store.suggested import rejections_in, share_view, view_address
from mlflow_meta.store.sweep import sweep
from mlflow_meta.subsets import folded
from mlflow_meta.trials import Objective, Searched, Suggestion, Suggestions

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be scheduled.

    Attributes:
        items: The runs to be, the best first.
        about: What `told` makes `Suggestions` of, and whatever is needed to decide it again.
        tags: Of our run that keeps it.
        draw: Makes what people may look at beside it, as file name -> content.
    """

    items: Sequence[Item]
    about: Mapping[str, Any]
    tags: Mapping[str, str]
    draw: Callable[[], Mapping[str, bytes]] = dict


def check_may_schedule(store: Store, experiment_name: str) -> None:
    """See that the user may write what suggesting and working write, and write nothing.

    Raises:
        NothingToLearn: If the experiment does not exist.
        NoPermission: If not.
    """
    for name in (experiment_name, names.PROJECT_EXPERIMENT):
        store.check_may_edit(name)


def swept_ledger(store: MlflowStore, experiment_name: str, *, dry_run: bool) -> Ledger | None:
    """The experiment's ledger, when all is finished that was begun and left.

    In a dry run it is as it is found: None where there is none yet.
    """
    experiment_id = store.experiment_id(experiment_name)
    if dry_run:
        return Ledger.known(store, experiment_id)
    ledger = Ledger.of(store, experiment_id)
    sweep(ledger)
    return ledger


def heeded(
    store: Store, space: SearchSpace, before: Sequence[Record], *, dry_run: bool
) -> tuple[SearchSpace, list[Rejection], tuple[str, ...]]:
    """What people's rejections leave of a space, these, and remarks on how they were understood.

    Each rejected run is tagged with how its reason was understood, unless it is a dry run.

    Args:
        store: Where the runs are.
        space: The whole.
        before: The suggested runs so far, the oldest first.
        dry_run: Write nothing.
    """
    refused = rejections_in(before)
    left = constrained(space, refused)
    tagged = {record.run_id: record.tags.get(names.UNDERSTOOD) for record in before}
    for run_id, words in left.understood.items():
        if not dry_run and tagged[run_id] != words:
            store.log_batch(run_id, tags={names.UNDERSTOOD: words})
    return left.space, refused, (*left.held, *left.remarks)


def scheduled_once(
    store: MlflowStore,
    ledger: Ledger | None,
    question: Mapping[str, Any],
    decide: Callable[[int], Decision],
    *,
    dry_run: bool,
    progress: Callable[[str], None] = lambda _: None,
) -> Suggestions:
    """The suggestions for what is asked: those that were made for it, or new ones.

    Args:
        store: Where the runs go.
        ledger: As `swept_ledger` gives it.
        question: What is asked, as JSON has it; equal questions get the same runs.
        decide: Called with a seed of random numbers where nobody has asked this before.
        dry_run: Decide, and write nothing.
        progress: Called with how many runs are scheduled, in words.
    """
    asked = plans.digest(question)
    plan = plans.standing(ledger, asked) if ledger else None
    is_repeated = plan is not None
    if plan is None:
        decision = decide(question.get("seed", int(asked[:13], 16)))
        if dry_run or ledger is None:
            return told(decision.about)
        drawn = _drawn(decision)
        tags = {**decision.tags, NOTE: _description(ledger, decision, drawn)}
        plan = plans.decide(ledger, asked, decision.items, decision.about, tags, drawn)
    if dry_run or ledger is None:
        return told(plan.about, is_repeated=True)
    return published(store, ledger, plan, is_repeated=is_repeated, progress=progress)


def _description(ledger: Ledger, decision: Decision, drawn: Mapping[str, bytes]) -> str:
    about = decision.about
    metric = Objective.from_dict(about["objective"]).metric
    return batch(
        n=len(decision.items),
        experiment_name=about["experiment_name"],
        metric=metric,
        model=about.get("model", ""),
        view=view_address(ledger.experiment_id, metric),
        files=drawn,
    )


def _drawn(decision: Decision) -> Mapping[str, bytes]:
    """What is drawn beside a decision; a picture that fails is no reason to schedule nothing."""
    try:
        return decision.draw()
    except Exception as error:  # whatever a drawing may stumble over
        log.warning(
            "The suggestions have no report: %s: %s",
            type(error).__name__,
            error,
            extra={"action": "draw"},
        )
        return {}


def seed_of(rng: np.random.Generator | None) -> dict[str, int]:
    """What a generator adds to a question; nothing where there is none."""
    return {} if rng is None else {"seed": int(rng.integers(2**53))}


def published(
    store: MlflowStore,
    ledger: Ledger,
    plan: Plan,
    *,
    is_repeated: bool,
    progress: Callable[[str], None],
) -> Suggestions:
    """Schedule what is not yet scheduled of a plan, and tell of all of it."""
    n, about = len(plan.items), plan.about
    run_ids = publish(ledger, plan, lambda i: progress(f"scheduling: {i} of {n} runs"))
    objective = Objective.from_dict(about["objective"])
    params = list(folded(dict.fromkeys(SearchSpace.from_dict(about["space"]).names, True)))
    view = share_view(store, about["experiment_name"], objective, params)
    return told(about, run_ids=run_ids, is_repeated=is_repeated, view=view, run_id=plan.run_id)


def told(
    about: Mapping[str, Any],
    *,
    run_ids: Sequence[str] = (),
    is_repeated: bool = False,
    view: str = "",
    run_id: str = "",
) -> Suggestions:
    """What callers get, from what is kept."""
    searched = about.get("searched")
    return Suggestions(
        items=[Suggestion(**item) for item in about["found"]],
        run_ids=run_ids,
        task=about["task"],
        tasks_by=about["tasks_by"],
        objective=Objective.from_dict(about["objective"]),
        best_so_far=about["best_so_far"],
        model=about.get("model", ""),
        view=view,
        n_unseen=about.get("n_unseen", 0),
        has_signal=about.get("has_signal", False),
        never_logged=about["never_logged"],
        searched=Searched(**searched) if searched else None,
        run_id=run_id,
        is_repeated=is_repeated,
        remarks=about["remarks"],
        avoided=about.get("avoided", ()),
    )
