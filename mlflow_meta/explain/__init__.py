"""Why: which params matter, what each one does, and which past trials are like a configuration.

trials:   frame with `task`, `value` (minimised) and `params.<name>`, as `models.meta_model` has it
curve:    frame with `at` (a value of the param), `mean`, `low` and `high`, in rising order of `at`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlflow_meta.explain.dependence import N_CONFIGS, partial_dependence, whole_configs
from mlflow_meta.explain.measures import N_REPEATS, importance
from mlflow_meta.explain.neighbours import nearest
from mlflow_meta.explain.words import effect, sentence
from mlflow_meta.models import MetaModel
from mlflow_meta.proposal import context_of
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Direction

__all__ = [
    "Explanation",
    "effect",
    "explain",
    "importance",
    "nearest",
    "partial_dependence",
    "sentence",
]

MAX_CURVES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a meta-model has learned of one task's params.

    Attributes:
        importance: As `importance` returns it.
        curves: Of the most important params, the first one first: name -> curve, in the metric's
            own units and direction.
    """

    importance: pd.DataFrame
    curves: Mapping[str, pd.DataFrame]


def explain(  # noqa: PLR0913 - each is a choice of its own
    model: MetaModel,
    trials: pd.DataFrame,
    space: SearchSpace,
    *,
    task: str,
    direction: Direction,
    rng: np.random.Generator,
    n_repeats: int = N_REPEATS,
    n_configs: int = N_CONFIGS,
) -> Explanation:
    """Importance of every param on `task`, and the curves of up to `MAX_CURVES` of them.

    Args:
        model: Fitted.
        trials: What it was fitted on, or newer ones.
        space: Whose params are asked about.
        task: Whose trials count.
        direction: Of the metric, in whose units the curves are.
        rng: Equal generators give equal answers.
        n_repeats: Permutations of each param.
        n_configs: Random configurations over which a curve is averaged.
    """
    found = importance(model, trials, space, task=task, rng=rng, n_repeats=n_repeats)
    configs, context = whole_configs(space, n_configs, rng), context_of(trials, space, task)
    asked = [str(name) for name in found.loc[found["n"] > 0, "param"].head(MAX_CURVES)]
    curves = partial_dependence(model, space, asked, task=task, configs=configs, context=context)
    if direction is Direction.MAXIMIZE:
        curves = {
            name: curve.assign(mean=-curve["mean"], low=-curve["high"], high=-curve["low"])
            for name, curve in curves.items()
        }
    return Explanation(importance=found, curves=curves)
