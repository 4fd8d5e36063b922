"""Curves: the whole histories of metrics that were asked for, and the best of each.

m    points, in the order of `runs`: (key, run, step, time, value)

A curve is one metric of one run. A point that can't be learned (NaN, infinite, what MLflow stores
for junk) is none of its points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlflow_meta.store import names, quarantine
from mlflow_meta.store.runs import Runs, by_key, one_array, ordered

Mask = NDArray[np.bool_]
Positions = NDArray[np.int64]
Values = NDArray[np.float64]
Steps = NDArray[np.int64]

MAX_POINTS = 1000  # of one curve
SYSTEM = "system/"  # prefix of MLflow's own metrics of the hardware


def predicted(runs: Runs, points: pa.Table) -> Mask:
    """`(m,)`: a suggested run's rank and what we predicted for it, which are no results of it."""
    suggested = np.zeros(len(runs), dtype=bool)
    for tag, owners, _ in by_key(runs.tags):
        if tag == names.RANK:
            suggested[owners] = True
    ours = _of_keys(points, lambda key: key.startswith(names.OWN_METRICS))
    return np.asarray(ours & suggested[points["run"].to_numpy()])


def wanted(runs: Runs, patterns: Sequence[str]) -> pa.Table:
    """The rows of `runs.metrics` whose curves are to be read.

    Args:
        runs: In order.
        patterns: As a shell has them. Those of the hardware have to be named: `system/*`.
    """

    def matches(key: str) -> bool:
        named = [p for p in patterns if p.startswith(SYSTEM) or not key.startswith(SYSTEM)]
        ours = key.startswith(names.PREFIX)
        return not ours and any(fnmatchcase(key, pattern) for pattern in named)

    chosen = _of_keys(runs.metrics, matches) & ~predicted(runs, runs.metrics)
    return runs.metrics.filter(pa.array(chosen))


def _of_keys(points: pa.Table, holds: Callable[[str], bool]) -> Mask:
    """`(m,)`: whether something holds for a point's key, asked once for each key."""
    key = one_array(points["key"])
    of_key = np.array([holds(text) for text in key.dictionary.to_pylist()], dtype=bool)
    return np.asarray(of_key[key.indices.to_numpy()])


def kept(points: pa.Table) -> pa.Table:
    """What is kept of whole curves: in order, at most `MAX_POINTS` of each.

    Of a longer curve the first and the last point stay, the first lowest and the first highest one,
    and of the others as many as there is room for, evenly. So it has `MAX_POINTS` of them.

    Args:
        points: `(m,)` rows of `METRICS`, in any order, of each curve all or none.
    """
    points = ordered(points.filter(pa.array(quarantine.usable(points))))
    starts, counts = _curves(points)
    if not (counts > MAX_POINTS).any():
        return points
    values = points["value"].to_numpy()
    stay = np.ones(points.num_rows, dtype=bool)
    for start, n in zip(*(a[counts > MAX_POINTS].tolist() for a in (starts, counts)), strict=True):
        curve = values[start : start + n]
        ends = np.unique([0, curve.argmin(), curve.argmax(), n - 1])
        others = np.delete(np.arange(n), ends)
        evenly = np.linspace(0, len(others) - 1, MAX_POINTS - len(ends)).round().astype(np.int64)
        stay[start : start + n] = False
        stay[start + ends] = stay[start + others[evenly]] = True
    return points.filter(pa.array(stay))


def of_whole_runs(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of whole runs.

    Args:
        batches: Run ids in the first column; the rows of a run follow each other.
    """
    rest = None
    for batch in batches:
        table = pa.Table.from_batches([batch])
        if rest is not None:
            table = pa.concat_tables([rest, table], promote_options="permissive")
        if not table.num_rows:
            continue
        run = table.column(0)
        others = pc.not_equal(run, run[-1]).to_numpy()
        last = int(np.max(np.flatnonzero(others) + 1, initial=0))
        yield from table.slice(0, last).combine_chunks().to_batches()
        rest = table.slice(last)
    if rest is not None:
        yield from rest.combine_chunks().to_batches()


def _curves(points: pa.Table) -> tuple[Positions, Positions]:
    """Where each curve begins, `(c,)`, and how many points it has, `(c,)`."""
    code = one_array(points["key"]).indices.to_numpy()
    run = points["run"].to_numpy()
    new = np.ones(len(run), dtype=bool)
    new[1:] = (np.diff(code) != 0) | (np.diff(run) != 0)
    starts = np.flatnonzero(new)
    return starts, np.diff(starts, append=len(run))


def extremes(
    points: pa.Table,
) -> Iterator[tuple[str, NDArray[np.int32], dict[str, tuple[Values, Steps]]]]:
    """Each key with its runs, `(c,)`, and of `min` and `max` the values, `(c,)`, and steps, `(c,)`.

    Args:
        points: In order. The first of equal points counts.
    """
    if not points.num_rows:
        return
    starts, counts = _curves(points)
    value, step, run = (points[name].to_numpy() for name in ("value", "step", "run"))
    key = one_array(points["key"])
    code = key.indices.to_numpy()[starts]
    of_point = np.repeat(np.arange(len(starts)), counts)
    where = {}
    for name, best in (("min", np.minimum), ("max", np.maximum)):
        reached = np.flatnonzero(value == best.reduceat(value, starts)[of_point])
        _, first = np.unique(of_point[reached], return_index=True)
        where[name] = reached[first]
    for number in np.unique(code):
        of_key = code == number
        found = {name: (value[at[of_key]], step[at[of_key]]) for name, at in where.items()}
        yield key.dictionary[int(number)].as_py(), run[starts[of_key]], found


def remarks(points: pa.Table) -> list[str]:
    """What was cut of curves, as sentences."""
    starts, counts = _curves(points)
    key = one_array(points["key"])
    codes = key.indices.to_numpy()[starts[counts >= MAX_POINTS]]
    return [
        f"{key.dictionary[int(code)].as_py()}: the curves of {n} runs have {MAX_POINTS} points or "
        f"more; of longer ones {MAX_POINTS} are kept, among them the first, the last, the lowest "
        "and the highest."
        for code, n in zip(*np.unique(codes, return_counts=True), strict=True)
    ]


def frame(runs: Runs) -> pd.DataFrame:
    """The points as `run_id`, `metric` (categories), `step`, `timestamp_ms` and `value`."""
    points = runs.curves
    owners = points["run"].to_numpy()
    used, codes = np.unique(owners, return_inverse=True)
    run_ids = pd.Index(runs.run_ids.take(pa.array(used)).to_pylist(), dtype="str")
    key = one_array(points["key"])
    return pd.DataFrame(
        {
            "run_id": pd.Categorical.from_codes(codes.astype(np.int32), run_ids),
            "metric": pd.Categorical.from_codes(
                key.indices.to_numpy(), pd.Index(key.dictionary.to_pylist(), dtype="str")
            ),
            **{name: points[name].to_numpy() for name in ("step", "timestamp_ms", "value")},
        }
    )
