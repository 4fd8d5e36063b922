"""What is drawn of a batch when it is suggested: what was known then, and what is expected."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd

from mlflow_meta import pictures
from mlflow_meta.explain import explain
from mlflow_meta.pages import Story, page, runs_before, suggested_now
from mlflow_meta.pareto import fronts
from mlflow_meta.services.suggest.others import seen_values
from mlflow_meta.services.suggest.search import Asked, Found
from mlflow_meta.store import names

# Suggesting does not wait for more.
N_REPEATS = 1  # permutations of each param
N_CONFIGS = 10  # over which a curve is averaged


def drawings(it: Asked, found: Found, now: datetime) -> dict[str, bytes]:
    """The report of this moment as HTML, and what the params do as PNG: file name -> content."""
    champion, trials = found.champion, it.known.trials
    objective = champion.objective
    own = trials[trials["task"] == it.task]
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
        before=runs_before(own, it.known.runs, objective.direction.sign),
        suggested=suggested_now(found.items, f"{champion.name}/{champion.version}"),
        explanation=explanation,
        space=it.space,
        why_not="",
        address="",
        now=now,
    )
    drawn = {
        names.REPORT_FILE: page(story),
        names.PARAMS_FILE: pictures.explanation(explanation, it.space, objective, it.task),
    }
    return {**drawn, names.FRONT_FILE: _front(found, own)} if found.others else drawn


def _front(found: Found, own: pd.DataFrame) -> bytes:
    objective = found.champion.objective
    directions = {objective.metric: objective.direction}
    directions |= {other.name: other.direction for other in found.others}
    values = seen_values(own, found.others)
    signs = [direction.sign for direction in directions.values()]
    seen = pd.DataFrame(values * signs, columns=list(directions)).assign(front=fronts(values))
    suggested = pd.DataFrame(
        [{objective.metric: item.mean, **item.others, "rank": item.rank} for item in found.items]
    )
    return pictures.front(seen, suggested, directions)
