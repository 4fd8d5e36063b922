"""A meta-model as files, and back: JSON, npz, parquet and LightGBM's text, sealed by SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_meta.dataset import DEFAULT_TASKS
from mlflow_meta.errors import Damaged
from mlflow_meta.models import ZOO, MetaModel
from mlflow_meta.trials import Objective

SEAL = "sha256.json"
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
    """The files of a registered model, sealed: file name -> content.

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
    files |= memory
    seal = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    return {**files, SEAL: json.dumps(seal, indent=1).encode()}


def unpack(files: Mapping[str, bytes]) -> Packed:
    """Inverse of `pack`, but for the memory.

    Raises:
        Damaged: If a file is not what was packed.
    """
    check_seal(files)
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


def check_seal(files: Mapping[str, bytes]) -> None:
    """Raise `Damaged` unless there are just the files that were packed, each as it was."""
    try:
        seal = json.loads(files[SEAL])
        seal = {str(name): str(digest) for name, digest in seal.items()}
    except (KeyError, ValueError, AttributeError) as error:
        raise Damaged(
            f"The model's {SEAL}, which says what its other files must be, is missing or broken. "
            + _AGAIN
        ) from error
    wrong = [f"{name} is missing" for name in seal if name not in files]
    wrong += [f"{name} is not of the model" for name in files if name not in {*seal, SEAL}]
    for name in sorted(set(seal) & set(files)):
        if (found := hashlib.sha256(files[name]).hexdigest()) != seal[name]:
            wrong.append(f"{name} has the SHA-256 {found}, and not {seal[name]}")
    if wrong:
        more = f" (+{len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise Damaged(
            f"The model's files were changed: {'; '.join(wrong[:5])}{more}. Nothing was used. "
            + _AGAIN
        )


_AGAIN = "Serve another version, or train a new one with `mlflow-meta train`."
