"""What is drawn of a batch when it is suggested: what was known then, and what is expected."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd

from mlflow_meta import pictures
from mlflow_meta.columns import columns_with, frame_of
from mlflow_meta.explain import explain
from mlflow_meta.pages import Story, page
from mlflow_meta.services.suggest.search import Asked, Found
from mlflow_meta.store import names

# Suggesting does not wait for more.
N_REPEATS = 1  # permutations of each param
N_CONFIGS = 10  # over which a curve is averaged


def drawings(it: Asked, found: Found, now: datetime) -> dict[str, bytes]:
    """The report of this moment as HTML, and what the params do as PNG: file name -> content."""
    champion, trials = found.champion, it.known.trials
    objective = champion.objective
    explanation = explain(
        champion.model,
        trials,
        it.space,
        task=it.task,
        direction=objective.direction,
        rng=np.random.default_rng(0),
        n_repeats=N_REPEATS,
        n_configs=N_CONFIGS,
    )
    story = Story(
        experiment_name=it.experiment_name,
        task=it.task,
        objective=objective,
        model=f"{champion.name} v{champion.version}",
        before=_before(it, objective.direction.sign),
        suggested=_suggested(found),
        explanation=explanation,
        space=it.space,
        why_not="",
        address="",
        now=now,
    )
    return {
        names.REPORT_FILE: page(story),
        names.PARAMS_FILE: pictures.explanation(explanation, it.space, objective, it.task),
    }


def _before(it: Asked, sign: int) -> pd.DataFrame:
    own = it.known.trials[it.known.trials["task"] == it.task]
    own = own[["run_id", "value", *columns_with(own, "params.")]].dropna(axis="columns", how="all")
    times = it.known.runs[["run_id", "start_time", "duration_s"]]
    return own.assign(got=sign * own["value"]).merge(times, on="run_id", how="left")


def _suggested(found: Found) -> pd.DataFrame:
    configs = [item.config for item in found.items]
    rows = pd.DataFrame(
        {
            "run_id": "",  # it has none yet
            "name": [f"suggested {item.rank}: {item.mean:.4g}" for item in found.items],
            "rank": [item.rank for item in found.items],
            "status": "SCHEDULED",
            "predicted": [item.mean for item in found.items],
            "low": [item.low for item in found.items],
            "high": [item.high for item in found.items],
            "got": np.nan,
            "start_time": pd.Series(pd.NaT, index=range(len(configs)), dtype="datetime64[ms, UTC]"),
            "duration_s": np.nan,
        }
    )
    params = frame_of(configs, list(dict.fromkeys(name for c in configs for name in c)))
    return pd.concat([rows, params], axis="columns")
