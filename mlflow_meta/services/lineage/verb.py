"""The verb: a run's id -> its lineage."""

from __future__ import annotations

from collections.abc import Callable

from mlflow_meta.services.lineage.down import Down
from mlflow_meta.services.lineage.nodes import Known, Lineage
from mlflow_meta.services.lineage.up import Up
from mlflow_meta.store import MlflowStore
from mlflow_meta.store import lineage as reading


def lineage(
    store: MlflowStore, run_id: str, *, progress: Callable[[str], None] = lambda _: None
) -> Lineage:
    """Follow a run to what it comes from, and to all that has come of it.

    A team's run leads to the harvests that have it, the trainings on these, the versions that they
    made, the batches that these have suggested, and what became of each suggested run. A suggested
    run leads back to its batch, version, training and harvest, the nearest run and earlier
    attempts. From trainings, updates, batches and harvests it goes both ways.

    Args:
        store: Where the run is; nothing is written.
        run_id: Any run, ours or a team's.
        progress: Called with what is being done.

    Returns:
        The lineage, as far as the newest runs tell: `store.lineage` has the bounds, and a remark
        says where one was met.

    Raises:
        StoreRefused: If there is no such run.
    """
    run = reading.find(store, run_id)
    progress("reading what was harvested, trained and suggested")
    known = Known(store, reading.records(store), progress)
    up = tuple(Up(known, {run_id}).of(run))
    down = tuple(Down(known, {run_id}).of(run))
    return Lineage(
        run=known.node(run),
        up=up,
        down=down,
        remarks=tuple(dict.fromkeys([*known.records.remarks, *known.remarks])),
    )
