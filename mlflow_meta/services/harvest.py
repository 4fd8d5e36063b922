"""Harvest: finished runs -> a meta-dataset, kept as an artifact of a harvest run.

Over REST a harvest reads what has changed since the one before, and everything when that one is
old. What no time stamp tells (edited tags, deleted and restored runs) is seen by the latter. From
a database everything is read every time: that is faster than asking what has changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import pandas as pd

from mlflow_meta import shown
from mlflow_meta.dataset import MetaDataset
from mlflow_meta.errors import TryLater
from mlflow_meta.store import MlflowStore, names
from mlflow_meta.store.curves import frame as curves_of
from mlflow_meta.store.descriptions import HARVEST, NOTE
from mlflow_meta.store.harvests import Snapshot, latest_signatures, latest_snapshot
from mlflow_meta.store.own_runs import end_abandoned, own_run
from mlflow_meta.store.signatures import Signatures, has_silent

OVERLAP_S = 120.0  # by how much the clocks of trainings may be behind ours
FULL_AFTER_S = 24 * 3600.0  # a harvest reads everything when that was last done so long ago,
FULL_AFTER = 20  # or so many harvests

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """What a harvest brought in.

    Attributes:
        run_id: The harvest run, which holds the meta-dataset; empty after a dry run.
        dataset: The meta-dataset.
        n_read: How many runs were read anew; the others have not changed since last time.
        full: Whether everything was read.
        curves: The curves that were asked for, of all runs that were read, a row a point: `run_id`,
            `metric`, `step`, `timestamp_ms` and `value`.
    """

    run_id: str
    dataset: MetaDataset
    n_read: int
    full: bool
    curves: pd.DataFrame

    @property
    def n_trials(self) -> int:
        """How many runs teach something."""
        return len(self.dataset)

    @property
    def n_quarantined(self) -> int:
        """How many were read and left out."""
        return len(self.dataset.quarantine)


def harvest(  # noqa: PLR0913 - what to read, and how
    store: MlflowStore,
    experiment_names: Sequence[str] = (),
    *,
    full: bool = False,
    tags: Sequence[str] = ("*",),
    curves: Sequence[str] = (),
    deadline_s: float | None = None,
    dry_run: bool = False,
    executor: Executor | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Harvest:
    """Read every run of the experiments into a meta-dataset.

    Args:
        store: Where to read, and to keep the result.
        experiment_names: Which experiments; none for all.
        full: Read everything, also what has not changed as far as time stamps tell.
        tags: Patterns, as a shell has them, of the users' tags that become columns.
        curves: Patterns of the metrics whose whole curves are read too. Those of the hardware only
            where a pattern begins with `system/`.
        deadline_s: Give up after so many seconds.
        dry_run: Read, and write nothing.
        executor: Where a part of the experiments each is read, side by side, see
            `MlflowStore.read_all`; None for here, which gives the same. What has changed since last
            time is little, and is read here.
        progress: Called with how many runs have been read so far.

    Raises:
        NothingToLearn: If an experiment does not exist.
        NoPermission: If the user may not read one, or not write the harvest; nothing was written.
        TryLater: If the deadline has passed; nothing was written.
    """
    started = time.monotonic()
    read_at_ms = int(time.time() * 1000)

    def check(n: int) -> None:
        if deadline_s is not None and time.monotonic() - started > deadline_s:
            raise TryLater(
                f"The deadline of {deadline_s:g} s passed after {n} runs; nothing was written. "
                "Give it more time with --deadline, or a faster way with --store-uri."
            )
        progress(n)

    if not dry_run:
        store.check_may_edit(names.PROJECT_EXPERIMENT)
    selection = _selection(experiment_names, curves)
    experiments = store.experiments(experiment_names)
    # Of a database everything is read, and nothing need be remembered.
    before = None
    if store.database is None and not full:
        before = latest_snapshot(store, selection)
    if before is not None and _is_old(before, read_at_ms):
        before = None
    if before is None:
        runs = store.read_all(experiments, check, curves=curves, executor=executor)
        n_read = len(runs)
    else:
        since_ms = before.read_at_ms - int(OVERLAP_S * 1000)
        runs, n_read = store.read_since(experiments, before.runs, since_ms, check, curves=curves)
    log.info("read", extra={"action": "read", "n_read": n_read, "n_runs": len(runs)})
    signatures = Signatures(of_model={})
    if has_silent(runs):
        signatures = store.signatures(runs, latest_signatures(store, selection), check)
    dataset = store.dataset_of(signatures.told(runs), experiments, tags=tags)
    dataset = replace(dataset, remarks=(*dataset.remarks, *signatures.remarks))
    check(len(runs))
    found = Harvest(
        run_id="", dataset=dataset, n_read=n_read, full=before is None, curves=curves_of(runs)
    )
    if dry_run:
        return found
    snapshot = Snapshot(
        runs=runs,
        read_at_ms=read_at_ms,
        full_at_ms=before.full_at_ms if before else read_at_ms,
        n_since_full=before.n_since_full + 1 if before else 0,
    )
    files, tags_of_run = _kept(store, found, snapshot, signatures, selection)
    about = {
        "experiments": ",".join(experiment_names)[:500] or "all",
        **({"curves": ",".join(curves)[:500]} if curves else {}),
    }
    run_id = _write(store, found, files, tags_of_run, about)
    log.info("written", extra={"action": "written", "run_id": run_id})
    return replace(found, run_id=run_id)


def _is_old(before: Snapshot, now_ms: int) -> bool:
    age_s = (now_ms - before.full_at_ms) / 1000
    return age_s > FULL_AFTER_S or age_s < 0 or before.n_since_full + 1 >= FULL_AFTER


def _kept(
    store: MlflowStore,
    found: Harvest,
    snapshot: Snapshot,
    signatures: Signatures,
    selection: str,
) -> tuple[dict[str, bytes], dict[str, str]]:
    """What the harvest's run keeps: artifacts, and the tags by which the next one finds them."""
    files = {
        names.DATASET_FILE: found.dataset.to_parquet(),
        names.QUARANTINE_FILE: shown.csv(found.dataset.quarantine),
    }
    tags = {names.KIND: "harvest"}
    if len(found.curves):
        files[names.CURVES_FILE] = found.curves.to_parquet(index=False)
    if store.database is None:
        files[names.RUNS_FILE] = snapshot.runs.to_bytes()
        tags |= snapshot.tags(selection)
    if signatures.of_model:
        files[names.SIGNATURES_FILE] = signatures.to_bytes()
        tags[names.SIGNATURES] = selection
    return files, tags


def _write(
    store: MlflowStore,
    found: Harvest,
    files: Mapping[str, bytes],
    tags: Mapping[str, str],
    about: Mapping[str, str],
) -> str:
    end_abandoned(store, ("harvest",))
    with own_run(store, "harvest", {**tags, NOTE: HARVEST}) as run_id:
        store.log_files(run_id, files)
        store.log_batch(
            run_id,
            params=about,
            metrics={
                "n_trials": len(found.dataset),
                "n_quarantined": len(found.dataset.quarantine),
                "n_tasks": len(found.dataset.tasks),
                "n_read": found.n_read,
            },
        )
    return run_id


def _selection(experiment_names: Sequence[str], curves: Sequence[str]) -> str:
    """What tells harvests of the same experiments and curves from others."""
    wanted = json.dumps([sorted(set(experiment_names)), sorted(set(curves))])
    return hashlib.sha256(wanted.encode()).hexdigest()[:16]
