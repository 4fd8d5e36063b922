"""The moment in which a batch is suggested: what is known then, as a `Story` has it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mlflow_meta.columns import columns_with, frame_of
from mlflow_meta.trials import Suggestion


def runs_before(trials: pd.DataFrame, runs: pd.DataFrame, sign: int) -> pd.DataFrame:
    """`Story.before`, of the trials that the batch adds to.

    Args:
        trials: Theirs: `run_id`, `value` and `params.<name>`; may be none.
        runs: Which have `run_id`, `start_time` and `duration_s`, these and others.
        sign: Of the objective's direction.
    """
    params = [name for name in columns_with(trials, "params.") if trials[name].notna().any()]
    found = trials[["run_id", "value", *params]]
    times = runs[["run_id", "start_time", "duration_s"]]
    return found.assign(got=sign * found["value"]).merge(times, on="run_id", how="left")


def suggested_now(items: Sequence[Suggestion], version: str) -> pd.DataFrame:
    """`Story.suggested`, of a batch that has no runs yet.

    Args:
        items: The batch.
        version: As `Story.suggested` has it.
    """
    configs = [item.config for item in items]
    rows = pd.DataFrame(
        {
            "run_id": "",
            "name": [f"suggested {item.rank}: {item.mean:.4g}" for item in items],
            "rank": [item.rank for item in items],
            "status": "SCHEDULED",
            "version": version,
            "verdict": "",
            "reason": "",
            "predicted": [item.mean for item in items],
            "low": [item.low for item in items],
            "high": [item.high for item in items],
            "got": np.nan,
            "start_time": pd.Series(pd.NaT, index=range(len(items)), dtype="datetime64[ms, UTC]"),
            "duration_s": np.nan,
        }
    )
    params = frame_of(configs, list(dict.fromkeys(name for c in configs for name in c)))
    return pd.concat([rows, params], axis="columns")
