"""What is kept of a search: enough to tell of it, and to search again."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from mlflow_meta.errors import NotReproduced
from mlflow_meta.known import Known, never_logged
from mlflow_meta.services.suggest.search import Asked, Found
from mlflow_meta.store import plans
from mlflow_meta.store.plans import Plan

_PACKAGES = ("mlflow-meta", "numpy", "scipy", "scikit-learn", "lightgbm", "pandas")


def digest_of(known: Known) -> str:
    """Equal for equal trials and failures, whichever harvest has brought them."""
    rows = zip(known.trials["run_id"], known.trials["value"], strict=True)
    trials = sorted((str(run_id), float(value)) for run_id, value in rows)
    failed = sorted(str(run_id) for run_id in known.failures["run_id"])
    return plans.digest([trials, failed] if failed else trials)


def about_of(it: Asked, found: Found) -> dict[str, Any]:
    """All that is needed to tell of it, and to search again."""
    return {
        "experiment_name": it.experiment_name,
        "champion": [it.champion.name, it.champion.version],
        "model": f"{it.champion.name} v{it.champion.version}",
        "harvest_run_id": it.known.harvest_run_id,
        "task": it.task,
        "tasks_by": it.champion.tasks_by,
        "objective": it.champion.objective.to_dict(),
        "n": it.n,
        "space": it.space.to_dict(),
        "where": list(it.where),
        "seed": it.seed,
        "limits": it.limits.to_dict(),
        "also": list(it.also),
        "search_s": it.search_s,
        "suggested": [dict(texts) for texts in it.suggested],
        "found": [asdict(item) for item in found.items],
        "searched": asdict(found.searched) if found.searched else None,
        "best_so_far": found.best_so_far,
        "n_unseen": found.n_unseen,
        "has_signal": found.champion.model.has_signal,
        "never_logged": never_logged(it.space, it.known.trials),
        "remarks": list(it.remarks),
        "avoided": [region.sentence for region in found.failures.regions],
        "chances_of_failure": list(found.chances),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def compare(plan: Plan, found: Found) -> None:
    """Raise NotReproduced unless the plan has, bit for bit, what was found."""
    before = plan.about["found"]
    now = json.loads(json.dumps([asdict(item) for item in found.items]))
    if before == now:
        return
    rank = next(
        (i for i, (a, b) in enumerate(zip(before, now, strict=False), 1) if a != b), len(now)
    )
    packages = {name: version(name) for name in _PACKAGES}
    changed = [
        f"{name} {old} then and {packages[name]} now"
        for name, old in plan.about["packages"].items()
        if packages.get(name) != old
    ]
    searched = plan.about["searched"]
    if changed:
        why = "Other packages are installed: " + ", ".join(changed) + "."
    elif searched and searched["n_assessed"] != searched["n_configs"]:
        why = "The search was ended by its time, which is a matter of the machine's speed."
    else:
        why = "The processor may compute in another way."
    raise NotReproduced(
        f"The search of {plan.run_id} was repeated, and from suggestion {rank} on something else "
        f"was found. {why} Nothing was written."
    )
