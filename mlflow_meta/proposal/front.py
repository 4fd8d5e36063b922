"""A batch for several objectives: what together is expected to dominate the most.

Each objective has a model of its own. Scores are what is compared, since they have one scale; see
`pareto` for how many objectives become one in each of many worlds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mlflow_meta.batch import jointly_best
from mlflow_meta.models import JointSampler, MetaModel
from mlflow_meta.models.failures import Failures
from mlflow_meta.pareto import directions, fronts, scalarised
from mlflow_meta.proposal.candidates import candidates, likely, without
from mlflow_meta.proposal.task import context_of, elites, in_context
from mlflow_meta.search import local_search
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Config, ConfigValue

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

N_WEIGHTS = 32  # directions in which objectives are weighed against each other
N_GUESSES = 16  # draws of each prediction alone, by which the search is led
N_DRAWS = 64  # joint draws on which the batch is chosen; each in every direction
MAX_RIVALS = 40  # configurations, of those on the first fronts, that a batch has to add to
_WORST = 2.0  # score of a bad configuration, where nothing was tried on the task
_MARGIN = 0.1  # of the range, by which the reference is beyond the worst


def choose_front(  # noqa: PLR0913 - as `choose_batch`
    models: Sequence[MetaModel],
    space: SearchSpace,
    trials: Sequence[pd.DataFrame],
    *,
    task: str,
    n: int,
    tried: Sequence[Config],
    rng: np.random.Generator,
    given: Mapping[str, object] | None = None,
    failures: Failures | None = None,
) -> list[dict[str, ConfigValue]]:
    """Up to `n` configurations that add most to the volume that the tried ones dominate.

    Args:
        models: One for each of k objectives, with regressors that are `JointSampler`.
        space: Where to search.
        trials: What each of the models has learned from; the first one's give the context.
        task: Which task the configurations are for.
        n: How many.
        tried: Configurations to leave out, and to add to.
        rng: Equal generators give equal batches.
        given: Context to suppose instead of the task's own.
        failures: Which configurations fail; those that rather do than not are left out.

    Returns:
        Configurations in the order in which they were chosen: the first adds the most.

    Raises:
        Exhausted: If nothing is left of the space.
    """
    context = {**context_of(trials[0], space, task), **(given or {})}

    def frame(configs: Sequence[Config]) -> pd.DataFrame:
        return in_context(configs, space, task, context)

    with threadpool_limits(1):  # many small products: several threads would wait for one another
        weights = directions(N_WEIGHTS, len(models), rng)
        expected = (
            _predicted(models, frame(tried))[0] if tried else np.full((1, len(models)), _WORST)
        )
        reference = expected.max(axis=0) + _MARGIN * np.maximum(np.ptp(expected, axis=0), 1.0)
        guesses = rng.normal(size=(N_GUESSES, len(models)))
        reached = scalarised(expected, weights, reference).min(axis=0)

        def worth(configs: Sequence[Config]) -> Vector:
            """Expected gain `(m,)`, of each alone."""
            mean, std = _predicted(models, frame(configs))
            values = (scalarised(mean + guess * std, weights, reference) for guess in guesses)
            gains = [np.maximum(reached - v, 0.0).mean(axis=1) for v in values]
            return np.asarray(np.mean(gains, axis=0))

        near = [space.nearest(c, rng) for known in trials for c in elites(known, task)]
        near = near or space.sample(100, rng)
        found = without(local_search(space, worth, start=near, rng=rng), space, tried)
        if failures is not None:
            found = likely(found, failures.chance(frame(found.configs)))
        pool = candidates(found, near, n, rng)
        ranked = np.argsort(fronts(expected), kind="stable")[:MAX_RIVALS].tolist()
        both = frame([*pool, *(tried[i] for i in ranked if tried)])
        drawn = np.stack([_drawn(model, both, rng) for model in models], axis=-1)
    worlds = scalarised(drawn, weights, reference)  # draws, configurations, weights
    worlds = np.moveaxis(worlds, 2, 1).reshape(-1, len(both))
    best = np.min(worlds[:, len(pool) :], axis=1, initial=0.0)
    return [dict(pool[i]) for i in jointly_best(worlds[:, : len(pool)], best, n)]


def _predicted(models: Sequence[MetaModel], frame: pd.DataFrame) -> tuple[Matrix, Matrix]:
    """Mean and std `(m, k)` of the scores of all objectives."""
    told = [model.score(frame) for model in models]
    return np.column_stack([t.mean for t in told]), np.column_stack([t.std for t in told])


def _drawn(model: MetaModel, frame: pd.DataFrame, rng: np.random.Generator) -> Matrix:
    """Joint draws `(N_DRAWS, m)` of the scores, as far as the model is to be believed."""
    assert isinstance(model.regressor, JointSampler)
    drawn = model.regressor.sample(model.encoder.encode(frame), N_DRAWS, rng)
    return model.calibration.mean(drawn)
