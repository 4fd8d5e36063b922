"""A meta-model as files, and back: JSON, npz, parquet and LightGBM's text; `seal` checks them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_meta.dataset import DEFAULT_TASKS
from mlflow_meta.models import ZOO, MetaModel
from mlflow_meta.trials import Objective

_CARD = "card.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A meta-model, with all that searching with it needs.

    Attributes:
        model: The meta-model itself.
        kind: Its kind in the zoo.
        objective: What it predicts.
        harvest_run_id: The harvest that it has learned from.
        tasks_by: What made trials comparable, as `MetaDataset.with_tasks` takes it.
    """

    model: MetaModel
    kind: str
    objective: Objective
    harvest_run_id: str
    tasks_by: str = DEFAULT_TASKS


def pack(packed: Packed, memory: Mapping[str, bytes]) -> dict[str, bytes]:
    """The data files of a registered model: file name -> content.

    Args:
        packed: The meta-model.
        memory: What it knows besides, as `Memory.save` gives it.
    """
    card = {
        "kind": packed.kind,
        "objective": packed.objective.to_dict(),
        "harvest_run_id": packed.harvest_run_id,
        "tasks_by": packed.tasks_by,
    }
    files = {_CARD: json.dumps(card, indent=1).encode(), **packed.model.save()}
    assert not set(files) & set(memory), "a file of the model and one of the memory share a name"
    return {**files, **memory}


def unpack(files: Mapping[str, bytes]) -> Packed:
    """Inverse of `pack`, but for the memory. What is read must have been checked, see `seal`."""
    card = json.loads(files[_CARD])
    model = ZOO[card["kind"]]()
    model.load(files)
    return Packed(
        model=model,
        kind=card["kind"],
        objective=Objective.from_dict(card["objective"]),
        harvest_run_id=card["harvest_run_id"],
        tasks_by=card["tasks_by"],
    )
