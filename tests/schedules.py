"""Runs that wait in an experiment, as `suggest` would have published them."""

from __future__ import annotations

import time

from mlflow_meta.store import Store, names, plans
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.plans import Item
from mlflow_meta.store.publish import publish


def scheduled(store: Store, *params: dict[str, str], name: str = "sweep") -> list[str]:
    """Runs that wait in an experiment, with these params."""
    ledger = Ledger.of(store, store.experiment_id(name))
    items = [
        Item(
            suggestion=plans.digest([one, i]),
            name=f"suggested {i}",
            params=one,
            metrics={},
            tags={names.RANK: str(i)},
        )
        for i, one in enumerate(params, start=1)
    ]
    plan = plans.decide(ledger, plans.digest([list(params), time.time()]), items, {}, {})
    return publish(ledger, plan)
