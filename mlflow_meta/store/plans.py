"""Plans: a batch of suggestions as it was decided, whole, before the first run of it is written.

A plan is an artifact of a run of ours. It enters the ledger under what was asked, so that of all
who ask the same at the same time, or again later, one decides and the others take what it has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from mlflow_meta.errors import StoreRefused
from mlflow_meta.store import names
from mlflow_meta.store.contract import Record, Store
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.own_runs import origin

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A run to be: what is written into it.

    Attributes:
        suggestion: Tells the suggestion from all others of its experiment, see `digest`.
        name: The run's name.
        params: Name -> text, of the training.
        metrics: What is predicted.
        tags: All others, its rank among them.
        attempt: How often it was tried before, and 1.
    """

    suggestion: str
    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    attempt: int = 1

    @property
    def key(self) -> str:
        """Under which the ledger has the run of this attempt."""
        return digest([self.suggestion, self.attempt])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A batch of suggestions.

    Attributes:
        run_id: The run of ours that holds it.
        asked: What was asked: equal for all that get the same batch.
        experiment_id: Where the runs go.
        items: The best first.
        about: All that is needed to decide it again, as JSON has it.
    """

    run_id: str
    asked: str
    experiment_id: str
    items: Sequence[Item]
    about: Mapping[str, Any]


def digest(value: object) -> str:
    """32 hex digits of what JSON can say; equal values have equal ones, whatever their order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def standing(ledger: Ledger, asked: str) -> Plan | None:
    """The plan that was decided for what is asked; None if there is none yet."""
    run_id = ledger.entries().get(_entry(asked))
    return None if run_id is None else read(ledger.store, run_id)


def decide(
    ledger: Ledger,
    asked: str,
    items: Sequence[Item],
    about: Mapping[str, Any],
    tags: Mapping[str, str],
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> Plan:
    """Make a plan, and enter it into the ledger; another's, if that came first.

    Args:
        ledger: Of the target experiment.
        asked: See `Plan`.
        items: See `Plan`.
        about: See `Plan`.
        tags: Of the run that holds it.
        files: What people may look at beside it.
    """
    all_tags = {
        **origin(),
        **tags,
        names.KIND: "suggest",
        names.EXPERIMENT: ledger.experiment_id,
        names.ASKED: asked,
    }
    run_id = ledger.store.create_run(ledger.store.own_experiment_id(), "suggest", all_tags)
    data = {
        "version": VERSION,
        "asked": asked,
        "experiment_id": ledger.experiment_id,
        "about": about,
        "items": [_to_dict(item) for item in items],
    }
    text = json.dumps(data, indent=1)
    ledger.store.log_files(run_id, {**files, names.PLAN_FILE: text.encode()})
    stands = ledger.enter(_entry(asked), run_id)
    if stands == run_id:
        return _plan(run_id, json.loads(text))
    ledger.store.set_status(run_id, "KILLED")
    return read(ledger.store, stands)


def read(store: Store, run_id: str) -> Plan:
    """The plan of a run of ours.

    Raises:
        StoreRefused: If it has none, or one of another version.
    """
    try:
        data = json.loads(store.file(run_id, names.PLAN_FILE))
        if data["version"] != VERSION:
            raise ValueError(f"it is of version {data['version']}")
        return _plan(run_id, data)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreRefused(
            f"The run {run_id} has no plan of suggestions that can be read: {error}. It was made "
            "by another version of mlflow-meta, or changed."
        ) from error


def _plan(run_id: str, data: Mapping[str, Any]) -> Plan:
    return Plan(
        run_id=run_id,
        asked=data["asked"],
        experiment_id=data["experiment_id"],
        items=[Item(**item) for item in data["items"]],
        about=data["about"],
    )


def attempt_of(plan: Plan, suggestion: str, attempt: int, tags: Mapping[str, str]) -> Item:
    """A suggestion of a plan as it is tried for the `attempt`-th time."""
    (item,) = (item for item in plan.items if item.suggestion == suggestion)
    return replace(item, attempt=attempt, tags={**item.tags, **tags})


def key_after(record: Record) -> str:
    """The key of the attempt that comes after a run's."""
    return digest([record.tags[names.SUGGESTION], int(record.tags[names.ATTEMPT]) + 1])


def is_entered(ledger: Ledger, record: Record) -> bool:
    """Whether the ledger knows the plan of a run of ours; else nothing of it was published."""
    return ledger.entries().get(_entry(record.tags[names.ASKED])) == record.run_id


def _entry(asked: str) -> str:
    return f"plan.{asked}"


def _to_dict(item: Item) -> dict[str, Any]:
    return {
        "suggestion": item.suggestion,
        "name": item.name,
        "params": dict(item.params),
        "metrics": dict(item.metrics),
        "tags": dict(item.tags),
        "attempt": item.attempt,
    }
