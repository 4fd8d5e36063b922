"""Sweeping: what others have begun and left is brought to its end, by whoever comes next.

What is still in the making somewhere is brought to the same end; that is what keys and write-once
params are for.
"""

from __future__ import annotations

import logging

from mlflow_meta.store import names, plans
from mlflow_meta.store.contract import Record
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.publish import finish_draft, is_draft, publish, put_right
from mlflow_meta.store.queue import follow, is_rejected, is_superseded, reject

log = logging.getLogger(__name__)


def sweep(ledger: Ledger) -> None:
    """Finish the plans, drafts, ends, rejections and next attempts that are unfinished."""
    own = ledger.store.own_experiment_id()
    for record in ledger.store.search_runs(own, status="RUNNING", kind=None):
        kind = record.tags[names.KIND]
        if kind == "ledger":
            ledger.store.set_status(record.run_id, "FINISHED")
        elif kind == "suggest" and record.tags.get(names.EXPERIMENT) == ledger.experiment_id:
            _finish_plan(ledger, record)
    # Who was taken for dead before its plan was in the ledger may have entered it since.
    decided = set(ledger.entries().values())
    about = {"kind": "suggest", "experiment": ledger.experiment_id}
    for record in ledger.store.search_runs(own, status="KILLED", **about):
        if record.run_id in decided:
            _finish_plan(ledger, record)
    records = ledger.store.search_runs(ledger.experiment_id, key=None)
    entries = ledger.entries()
    for record in records:
        if is_draft(record):
            finish_draft(ledger, record)
        elif is_superseded(record) and plans.key_after(record) not in entries:
            log.info("follow", extra={"action": "follow", "run_id": record.run_id})
            follow(ledger, record)
        elif is_rejected(record):
            reject(ledger.store, record.run_id)
        else:
            put_right(ledger.store, record)


def _finish_plan(ledger: Ledger, record: Record) -> None:
    if plans.is_entered(ledger, record):
        log.info("finish", extra={"action": "finish_plan", "run_id": record.run_id})
        publish(ledger, plans.read(ledger.store, record.run_id))
    else:  # nothing of it is published; who is about to enter it says how it ends
        ledger.store.set_status(record.run_id, "KILLED")
