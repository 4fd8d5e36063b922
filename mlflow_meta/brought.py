"""What suggestions have brought: predicted against realised, and what it would have cost otherwise.

m: suggested runs that have ended, in the order of their end
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlflow_meta.trials import Direction

COLUMNS = (
    "run_id", "ended_at", "predicted", "low", "high", "realised", "error", "is_inside",
    "best_before", "is_better", "regret", "coverage_80", "share_better", "hours_saved",
)  # fmt: skip


def brought(runs: pd.DataFrame, direction: Direction) -> pd.DataFrame:
    """How each suggested run went, and how all went until then.

    Args:
        runs: Finished runs of one experiment: `run_id`, `ended_at`, `realised` (the metric),
            `duration_s`; and of those that were suggested `predicted`, `low`, `high` (80%), which
            are NaN of the others.
        direction: Which values of the metric are better.

    Returns:
        `m` rows of `COLUMNS`, in the metric's units:

        - `error`: realised - predicted.
        - `best_before`: the best of all runs that had ended; NaN if none had.
        - `regret`: by how much it is worse than the best that is known once it has ended; 0 of a
          run that is the best.
        - `coverage_80`, `share_better`: share of the suggested runs until then that lay in their
          interval, and that were better than the best before them.
        - `hours_saved`: of training. Of runs like the `n` that nobody suggested, of which `k` are
          as good as the best suggested one, it takes about `(n + 1) / (k + 1)` until one is so
          good; times their mean duration, less what the suggested runs took; at least 0.
    """
    runs = runs.sort_values(["ended_at", "run_id"], ignore_index=True)
    value = direction.sign * runs["realised"].to_numpy(float)
    ours = runs["predicted"].notna().to_numpy(bool)
    best = np.minimum.accumulate(value) if len(value) else value
    before = np.concatenate([[np.nan], best[:-1]])[: len(best)]
    rows = runs[ours].reset_index(drop=True)
    inside = (rows["low"] <= rows["realised"]) & (rows["realised"] <= rows["high"])
    better = value[ours] < before[ours]
    found = rows[["run_id", "ended_at", "predicted", "low", "high", "realised"]].assign(
        error=rows["realised"] - rows["predicted"],
        is_inside=inside,
        best_before=direction.sign * before[ours],
        is_better=better,
        regret=value[ours] - best[ours],
        coverage_80=inside.expanding().mean(),
        share_better=pd.Series(better, dtype=float).expanding().mean(),
        hours_saved=_hours_saved(runs, value, ours),
    )
    return found[list(COLUMNS)]


def _hours_saved(runs: pd.DataFrame, value: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """See `brought`; `(m,)`, NaN where no run that nobody suggested had ended."""
    spent_s = runs["duration_s"].to_numpy(float)
    saved = np.full(int(ours.sum()), np.nan)
    places = np.flatnonzero(ours)
    for i, place in enumerate(places):
        others = np.flatnonzero(~ours[:place])
        lasted = spent_s[others][np.isfinite(spent_s[others])]
        if not len(lasted):
            continue
        n_as_good = int(np.sum(value[others] <= value[places[: i + 1]].min()))
        otherwise_s = (len(others) + 1) / (n_as_good + 1) * lasted.mean()
        saved[i] = max(0.0, otherwise_s - np.nansum(spent_s[places[: i + 1]])) / 3600
    return saved
