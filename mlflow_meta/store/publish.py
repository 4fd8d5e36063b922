"""Publishing: a plan becomes SCHEDULED runs, each suggestion exactly one, whoever dies meanwhile.

draft   a run that was created for a suggestion and is not SCHEDULED yet

A draft enters the ledger under its suggestion's key; the run that stands there is the suggestion's.
It gets its params and predictions, and the status SCHEDULED last. Every step may be repeated, and
done by anybody. Drafts that the ledger does not name are discarded by the claim that they will
never run.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlflow_meta.errors import StoreRefused
from mlflow_meta.store import names, plans
from mlflow_meta.store.contract import ENDED, Record, RunStatus, Store
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.own_runs import origin
from mlflow_meta.store.plans import Item, Plan

PART = 8  # suggestions for which the ledger is read once
SIDE_BY_SIDE = 4  # runs that are written at a time, as many as a server has workers by default
DISCARDED, REJECTED = "discarded", "rejected"  # claims of runs that nobody will ever train

log = logging.getLogger(__name__)


def publish(
    ledger: Ledger, plan: Plan, progress: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Write what is not yet written of a plan.

    Args:
        ledger: Of the plan's experiment.
        plan: That the ledger knows.
        progress: Called with how many suggestions are written.

    Returns:
        The run of each suggestion, in the plan's order; SCHEDULED, or what came of it already.
    """
    written = _by_key(ledger.store.search_runs(plan.experiment_id, suggest_run=plan.run_id))
    now_ms = int(time.time() * 1000)
    run_ids: dict[int, str] = {}
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for part in _parts(len(plan.items)):
            known = ledger.entries()

            def one(rank: int, known: Mapping[str, str] = known) -> str:
                item = plan.items[rank]
                # MLflow's UI shows the youngest run first: the best one is to be on top.
                start_ms = now_ms + len(plan.items) - rank
                drafts = written.get(item.key, [])
                return _settled(ledger, plan, item, known.get(item.key), drafts, start_ms)

            for rank, run_id in zip(part, pool.map(one, part), strict=True):
                run_ids[rank] = run_id
                progress(len(run_ids))
    for record in ledger.store.search_runs(plan.experiment_id, suggest_run=plan.run_id):
        put_right(ledger.store, record)
    ledger.store.set_status(plan.run_id, "FINISHED")
    return [run_ids[rank] for rank in range(len(plan.items))]


def _parts(n: int) -> list[range]:
    """Ranks 0 to n-1 in parts, from another one on in each process.

    Who publishes the same at the same time begins elsewhere, and sees what the others have done.
    """
    parts = [range(start, min(start + PART, n)) for start in range(0, n, PART)]
    first = os.getpid() % max(len(parts), 1)
    return parts[first:] + parts[:first]


def publish_again(ledger: Ledger, record: Record, *, deaths: int) -> str:
    """Schedule the next attempt of a suggestion whose run will not end; its run id."""
    plan = plans.read(ledger.store, record.tags[names.SUGGEST_RUN])
    attempt = int(record.tags[names.ATTEMPT]) + 1
    tags = {names.PREVIOUS_RUN: record.run_id, names.DEATHS: str(deaths)}
    item = plans.attempt_of(plan, record.tags[names.SUGGESTION], attempt, tags)
    drafts = ledger.store.search_runs(plan.experiment_id, key=item.key)
    stands = ledger.entries().get(item.key)
    return _settled(ledger, plan, item, stands, drafts, int(time.time() * 1000))


def finish_draft(ledger: Ledger, record: Record) -> None:
    """Publish or discard a draft, whoever has created it."""
    tags = record.tags
    try:
        plan = plans.read(ledger.store, tags[names.SUGGEST_RUN])
    except (StoreRefused, KeyError) as error:
        log.warning(
            "The run %s was begun by mlflow-meta and is left as it is: %s",
            record.run_id,
            error,
            extra={"action": "leave_draft", "run_id": record.run_id},
        )
        return
    again = {k: tags[k] for k in (names.PREVIOUS_RUN, names.DEATHS) if k in tags}
    item = plans.attempt_of(plan, tags[names.SUGGESTION], int(tags[names.ATTEMPT]), again)
    stands = ledger.enter(item.key, record.run_id)
    _settled(ledger, plan, item, stands, [record], record.start_ms)


def _settled(
    ledger: Ledger,
    plan: Plan,
    item: Item,
    stands: str | None,
    drafts: Sequence[Record],
    start_ms: int,
) -> str:
    """The run of a suggestion, published; other drafts of it are discarded.

    Args:
        ledger: Of the plan's experiment.
        plan: Whose suggestion.
        item: It.
        stands: The run that the ledger has for it, as far as is known.
        drafts: Runs that were created for it, as far as is known.
        start_ms: When a new one begins.
    """
    known = {draft.run_id: draft for draft in drafts}
    created = None
    if stands is None:
        if not known:
            created = ledger.store.create_run(
                plan.experiment_id, item.name, _tags(plan, item), start_ms=start_ms
            )
        stands = ledger.enter(item.key, created or min(known))
    for run_id in (*known, *((created,) if created else ())):
        if run_id != stands:
            _discard(ledger.store, run_id)
    if stands != created:
        record = known.get(stands) or ledger.store.get_run(stands)
        if not is_draft(record):
            return stands
        if record.tags.get(names.SUGGEST_RUN) != plan.run_id:
            finish_draft(ledger, record)  # the same config in a plan of somebody else
            return stands
        start_ms = record.start_ms
    ledger.store.log_batch(stands, params=item.params, metrics=item.metrics, at_ms=start_ms)
    ledger.store.set_status(stands, "SCHEDULED")
    return stands


def _tags(plan: Plan, item: Item) -> dict[str, str]:
    return {
        **origin(),
        **item.tags,
        names.KEY: item.key,
        names.SUGGESTION: item.suggestion,
        names.ATTEMPT: str(item.attempt),
        names.SUGGEST_RUN: plan.run_id,
    }


def is_draft(record: Record) -> bool:
    """Whether a run was created for a suggestion, and not published yet."""
    return record.status == "RUNNING" and names.CLAIM not in record.params


def _discard(store: Store, run_id: str) -> None:
    """See that a draft which the ledger does not name never runs, and ends."""
    store.log_once(run_id, names.CLAIM, DISCARDED)
    store.set_status(run_id, "KILLED")


def put_right(store: Store, record: Record) -> None:
    """Undo a late SCHEDULED or RUNNING of somebody who has slept while others went on."""
    if record.status in ("SCHEDULED", "RUNNING") and (ended := final_status(record)):
        store.set_status(record.run_id, ended)
    elif record.status == "SCHEDULED" and names.HEARTBEAT in record.tags:
        store.set_status(record.run_id, "RUNNING")


def final_status(record: Record) -> RunStatus | None:
    """With which status a run was ended by us, whatever its status is now; None if it was not."""
    if record.params.get(names.CLAIM) in (DISCARDED, REJECTED):
        return "KILLED"
    word = record.params.get(names.ENDED, "").partition(" ")[0]
    if not word:
        return None
    return next((status for status in ENDED if status == word), "KILLED")


def _by_key(records: Iterable[Record]) -> Mapping[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.tags.get(names.KEY, ""), []).append(record)
    return found
