"""What a harvest leaves for the next one: the runs as they were read, in the harvest's own run."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mlflow_meta.errors import StoreError
from mlflow_meta.store import names
from mlflow_meta.store.connection import translated
from mlflow_meta.store.mlflow_store import MlflowStore
from mlflow_meta.store.runs import Runs
from mlflow_meta.store.signatures import Signatures

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The runs of one harvest.

    Attributes:
        runs: All active ones, in order.
        read_at_ms: When the reading began.
        full_at_ms: When everything was last read.
        n_since_full: How many harvests have read only what had changed since then.
    """

    runs: Runs
    read_at_ms: int
    full_at_ms: int
    n_since_full: int

    def tags(self, selection: str) -> dict[str, str]:
        """As tags of the harvest's run.

        Args:
            selection: What tells harvests of the same experiments from others.
        """
        return {
            names.SELECTION: selection,
            names.READ_AT: str(self.read_at_ms),
            names.FULL_AT: str(self.full_at_ms),
            names.SINCE_FULL: str(self.n_since_full),
        }


@translated
def latest_snapshot(store: MlflowStore, selection: str) -> Snapshot | None:
    """What the newest finished harvest of these experiments has read; None if there is none.

    One that can't be read, because its artifact is gone or of another version, is none either: the
    next harvest reads everything.
    """
    run = store.latest("harvest", **{"harvest.selection": selection})
    if run is None:
        return None
    try:
        return Snapshot(
            runs=Runs.from_bytes(store.file(run.run_id, names.RUNS_FILE)),
            read_at_ms=int(run.tags[names.READ_AT]),
            full_at_ms=int(run.tags[names.FULL_AT]),
            n_since_full=int(run.tags[names.SINCE_FULL]),
        )
    except (StoreError, ValueError, KeyError) as error:
        log.warning(
            "The harvest %s can't be continued (%s): everything is read.",
            run.run_id,
            error,
            extra={"action": "read_everything", "run_id": run.run_id},
        )
        return None


@translated
def latest_signatures(store: MlflowStore, selection: str) -> Signatures:
    """What models have said to the newest finished harvest of these experiments that asked any."""
    run = store.latest("harvest", **{"harvest.signatures": selection})
    if run is None:
        return Signatures(of_model={})
    try:
        return Signatures.from_bytes(store.file(run.run_id, names.SIGNATURES_FILE))
    except (StoreError, ValueError) as error:
        log.warning(
            "The signatures of the harvest %s can't be read (%s): the models are asked again.",
            run.run_id,
            error,
            extra={"action": "ask_models_again", "run_id": run.run_id},
        )
        return Signatures(of_model={})
