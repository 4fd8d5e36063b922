"""Why a run teaches nothing: each active run is a trial, or has its reason here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlflow_meta.columns import is_choice
from mlflow_meta.dataset import finite
from mlflow_meta.space.decisions import is_yes
from mlflow_meta.store import names
from mlflow_meta.store.runs import Runs, by_key, one_array
from mlflow_meta.store.texts import CUT_MARK

ORPHAN_MS = 7 * 24 * 3600 * 1000  # a training that runs longer has most likely died unseen
FAILED = "failed"
ZOMBIE = "^(reaped|handed-back|given-up) "  # of how a run was ended that its training did not end


@dataclass(slots=True)
class Reasons:
    """Position of a run -> why it teaches nothing, in a few words, and what exactly.

    Attributes:
        reason: `(n,)` texts; empty for a trial.
        detail: `(n,)` texts, often empty.
    """

    reason: np.ndarray
    detail: np.ndarray

    def add(self, runs: np.ndarray, reason: str, details: Mapping[int, str] | None = None) -> None:
        """Give a reason to the runs, `(n,)` booleans, that have none yet."""
        fresh = runs & (self.reason == "")
        self.reason[fresh] = reason
        for run, detail in (details or {}).items():
            if fresh[run]:
                self.detail[run] = detail


def reasons(runs: Runs, metrics: pa.Table, now_ms: int) -> Reasons:
    """Why each run is left out.

    Args:
        runs: `(n,)` in order.
        metrics: Those of them that may be an objective.
        now_ms: What tells a run that still trains from one that was left behind.
    """
    n = len(runs)
    found = Reasons(np.full(n, "", dtype=object), np.full(n, "", dtype=object))
    found.add(_reaped(runs), "zombie attempt")
    found.add(_stopped(runs), "stopped early, as it was asked to")
    _by_status(runs, found, now_ms)
    found.add(_parents(runs), "parent of nested runs")
    _by_metrics(metrics, n, found)
    cut = _truncated(runs)
    found.add(np.isin(np.arange(n), list(cut)), "truncated value", cut)
    same = _duplicates(runs, found.reason == "")
    found.add(np.isin(np.arange(n), list(same)), "duplicate", same)
    return found


def usable(metrics: pa.Table) -> np.ndarray:
    """`(m,)`: which values of metrics can be learned."""
    return np.asarray(finite(metrics["value"].to_numpy()) & ~_stored_for_junk(metrics))


def _stored_for_junk(metrics: pa.Table) -> np.ndarray:
    # MLflow stores a value that it can't parse as 0.0 at timestamp 0, and answers 200.
    zero = (metrics[name].to_numpy() == 0 for name in ("value", "timestamp_ms"))
    return np.asarray(np.logical_and(*zero))


def _reaped(runs: Runs) -> np.ndarray:
    reaped = np.zeros(len(runs), dtype=bool)
    is_end = pc.equal(runs.params["key"].cast(pa.string()), names.ENDED)
    word = pc.match_substring_regex(runs.params["value"].cast(pa.string()), ZOMBIE)
    mask = pc.and_(is_end, word)
    reaped[runs.params["run"].filter(mask).to_numpy()] = True
    return reaped


def _stopped(runs: Runs) -> np.ndarray:
    """Runs whose last value is not that of a whole training, though they may be FINISHED."""
    stopped = np.zeros(len(runs), dtype=bool)
    for key, owners, texts in by_key(runs.tags):
        if key == names.STOPPED:
            stopped[owners] = [is_yes(text) for text in texts.to_pylist()]
    return stopped


def _by_status(runs: Runs, found: Reasons, now_ms: int) -> None:
    status = runs.infos["status"].to_numpy()
    start = runs.infos["start_ms"].fill_null(0).to_numpy()
    running = status == "RUNNING"
    found.add(running & (start < now_ms - ORPHAN_MS), "orphaned: running for over 7 days")
    found.add(running, "still running")
    found.add(status == "SCHEDULED", "scheduled: not begun")
    found.add(status == "FAILED", FAILED)
    found.add(status == "KILLED", "killed")
    found.add(status != "FINISHED", "not finished")


def _parents(runs: Runs) -> np.ndarray:
    ids = one_array(runs.run_ids)
    for key, children, parents in by_key(runs.tags):
        if key == "mlflow.parentRunId":
            others = pc.not_equal(ids.take(pa.array(children)), parents)
            return np.asarray(pc.is_in(ids, parents.filter(others)).to_numpy(zero_copy_only=False))
    return np.zeros(len(runs), dtype=bool)


def _by_metrics(metrics: pa.Table, n: int, found: Reasons) -> None:
    run, good = metrics["run"].to_numpy(), usable(metrics)
    logged, junk = np.bincount(run, minlength=n) > 0, _stored_for_junk(metrics)
    learned = np.bincount(run[good], minlength=n) > 0
    all_junk = np.bincount(run[junk], minlength=n) == np.bincount(run, minlength=n)
    found.add(~logged, "no metric")
    found.add(~learned & all_junk, "zero at timestamp 0: stored for a metric that is no number")
    found.add(~learned, "no finite metric")


def _truncated(runs: Runs) -> dict[int, str]:
    """Runs with a param that MLflow has cut, where such params are choices in most other runs."""
    mark = f", {CUT_MARK}, "
    if not pc.any(pc.match_substring(runs.params["value"], mark)).as_py():
        return {}
    cut: dict[int, str] = {}
    for key, owners, values in by_key(runs.params):
        hit = pc.match_substring(values, mark).to_numpy(zero_copy_only=False)
        if hit.any() and 2 * sum(map(is_choice, values.to_pylist())) > len(values):
            cut |= {int(run): f"param {key!r}" for run in owners[hit]}
    return cut


def _duplicates(runs: Runs, among: np.ndarray) -> dict[int, str]:
    """Runs that were copied: what they logged, their start and their end are those of another."""
    positions = np.flatnonzero(among)
    start, end = (runs.infos[name].fill_null(0).to_numpy() for name in ("start_ms", "end_ms"))
    order = positions[np.lexsort((end[positions], start[positions]))]
    same_times = (np.diff(start[order]) == 0) & (np.diff(end[order]) == 0)
    alike = np.zeros(len(order), dtype=bool)
    alike[1:] |= same_times
    alike[:-1] |= same_times
    positions = np.sort(order[alike])
    if not len(positions):
        return {}
    part = runs.rows(positions)
    logged: list[list[object]] = [
        [*row.values()] for row in part.infos.drop_columns(["run_id"]).to_pylist()
    ]
    for table in (part.params, part.metrics):
        columns = [table[name].to_pylist() for name in table.column_names]
        for run, *item in zip(*columns, strict=True):
            logged[run].append(tuple(map(str, item)))
    first: dict[tuple[object, ...], str] = {}
    same: dict[int, str] = {}
    for position, items, run_id in zip(positions, logged, part.run_ids.to_pylist(), strict=True):
        original = first.setdefault(tuple(items), run_id)
        if original != run_id:
            same[int(position)] = f"of run {original}"
    return same
