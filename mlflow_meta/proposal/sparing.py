"""Of a list of columns, those that nothing speaks for are left out: fewer columns, equally good.

A search leaves in what does no harm: near the best prediction, a column of noise more or less
changes it by less than the model can tell. So two kinds of evidence have to agree on a column:

    helps      P(w < 0), w ~ N(m, S): its main effect w on the score, by a Bayesian ridge over all
               of the task's trials
    predicted  the meta-model's mean where it is left out, against the best configuration's: at
               most one standard error more, for all that is left out together, as in the rule by
               which a regression tree is pruned

References:
    Breiman, Friedman, Olshen, Stone. *Classification and Regression Trees*. 1984. Section 3.4.3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtr

from mlflow_meta.models import MetaModel
from mlflow_meta.models.meta_model import task_scores
from mlflow_meta.space import SearchSpace
from mlflow_meta.subsets import list_of
from mlflow_meta.trials import Config, ConfigValue

PROVEN = 0.95  # chance that a column helps, from which it stays whatever the prediction is
MIN_TRIALS = 2  # for each flag: with fewer, no main effect can be told from another
TOLERANCE = 1.0  # standard errors by which the prediction may get worse, of all columns together


def spared(
    config: Config,
    model: MetaModel,
    space: SearchSpace,
    own: pd.DataFrame,
    frame: Callable[[Sequence[Config]], pd.DataFrame],
) -> list[dict[str, ConfigValue]]:
    """`config` less the listed columns that it can do without, as far as trials and model tell.

    They are left out one by one, each time the one that is missed least: by the mean of what the
    ridge and the meta-model say. What is no flag of a list stays, and of each list at least as many
    items as the shortest of the trials' has.

    Args:
        config: In the space.
        model: Fitted.
        space: Where the result lies too.
        own: Trials of the task; with fewer than `MIN_TRIALS` a flag, `config` stays as it is.
        frame: Configurations as rows that the model reads.

    Returns:
        `config`, and what it becomes with each column that is left out, the fewest columns last.
        None has a predicted score that is worse than `config`'s by more than `TOLERANCE` times the
        std of that.
    """
    flags = [name for name, value in config.items() if value is True and list_of(name)]
    n_flags = sum(list_of(name) is not None for name in space.names)
    if not flags or len(own) < MIN_TRIALS * n_flags:
        return [dict(config)]
    effects, chances = _effects(flags, config, model, own, frame)
    best = model.score(frame([config]))
    allowed = float(best.mean[0] + TOLERANCE * best.std[0])
    room = _room(flags, space, own)
    steps = [dict(config)]
    left = [flag for flag in flags if chances[flag] < PROVEN]
    while left := [flag for flag in left if room[list_of(flag)] > 0]:
        fewer = [{**steps[-1], flag: False} for flag in left]
        predicted = model.score(frame(fewer)).mean
        missed = predicted - [effects[flag] for flag in left]
        missed[predicted > allowed] = np.inf
        missed[[not space.holds(one) for one in fewer]] = np.inf
        least = int(np.argmin(missed))
        if np.isinf(missed[least]):
            break
        steps.append(fewer[least])
        room[list_of(left.pop(least))] -= 1
    return steps


def _effects(
    flags: Sequence[str],
    config: Config,
    model: MetaModel,
    own: pd.DataFrame,
    frame: Callable[[Sequence[Config]], pd.DataFrame],
) -> tuple[dict[str, float], dict[str, float]]:
    """What each flag adds to the score where effects add up, and the chance that it lowers it."""
    from sklearn.linear_model import BayesianRidge  # slow

    encode = model.encoder.encode
    ridge = BayesianRidge().fit(encode(own), task_scores(own))
    without = encode(frame([{**config, flag: False} for flag in flags]))
    change = encode(frame([config])) - without  # what setting each of them does to a row
    mean = change @ ridge.coef_
    std = np.sqrt(np.einsum("ij,jk,ik->i", change, ridge.sigma_, change))
    chance = ndtr(-mean / np.maximum(std, np.finfo(float).tiny))
    effects = dict(zip(flags, mean.tolist(), strict=True))
    return effects, dict(zip(flags, chance.tolist(), strict=True))


def _room(flags: Sequence[str], space: SearchSpace, own: pd.DataFrame) -> dict[str | None, int]:
    """List -> how many of the `flags`, which are set, may be left out of it."""
    room: dict[str | None, int] = {}
    for name, n_set in Counter(map(list_of, flags)).items():
        columns = [f"params.{flag}" for flag in space.names if list_of(flag) == name]
        listed = own.reindex(columns=columns).fillna(value=False).astype(bool)
        room[name] = n_set - max(int(listed.sum(axis=1).min()), 1)
    return room
