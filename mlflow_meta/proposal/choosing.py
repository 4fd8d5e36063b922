"""A batch by a fitted model: what it finds most promising, and what the search has found out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mlflow_meta import shown
from mlflow_meta.acquisition import expected_improvement
from mlflow_meta.batch import jointly_best, jointly_best_by_cost, worthy_and_apart
from mlflow_meta.effort import Effort
from mlflow_meta.errors import Exhausted
from mlflow_meta.models import JointSampler, MetaModel
from mlflow_meta.models.failures import Failures
from mlflow_meta.proposal.candidates import (
    MAX_CHANCE,
    candidates,
    exhausted,
    likely,
    positions,
    spread_out,
    without,
)
from mlflow_meta.proposal.sparing import spared
from mlflow_meta.proposal.task import context_of, elites, in_context
from mlflow_meta.search import Found, Progress, Spread, TopK, form_of, local_search, thompson
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Config, ConfigValue, Searched

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

N_RIVALS = 20  # incumbents, of lowest expected score, that a batch has to beat
N_DRAWS = 256  # joint draws on which a batch is chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """What is searched, by what, and for how many."""

    model: MetaModel
    space: SearchSpace
    task: str
    context: Mapping[str, object]
    tried: Sequence[Config]
    n: int
    effort: Effort | None
    failures: Failures | None
    rng: np.random.Generator

    def frame(self, configs: Sequence[Config]) -> pd.DataFrame:
        """`configs` as rows that the model reads."""
        return in_context(configs, self.space, self.task, self.context)

    def chance(self, configs: Sequence[Config]) -> Vector:
        """The chance `(n,)` that each fails; 0 where nothing tells."""
        if self.failures is None or not self.failures.has_signal:
            return np.zeros(len(configs))
        return self.failures.chance(self.frame(configs))

    def open(self, found: Found) -> Found:
        """What may be suggested of it: what does not rather fail than not, nor takes too long.

        Raises:
            Exhausted: If all of it takes too long.
        """
        found = likely(found, self.chance(found.configs))
        return found if self.effort is None else _lasting(found, self, self.effort)


def choose_batch(  # noqa: PLR0913 - what is known, where, and how many are all independent
    model: MetaModel,
    space: SearchSpace,
    trials: pd.DataFrame,
    *,
    task: str,
    n: int,
    tried: Sequence[Config],
    rng: np.random.Generator,
    given: Mapping[str, object] | None = None,
    effort: Effort | None = None,
    search_s: float | None = None,
    spread: Spread | None = None,
    progress: Progress | None = None,
    failures: Failures | None = None,
) -> tuple[list[dict[str, ConfigValue]], Searched | None]:
    """Up to `n` configurations that `model` finds most promising on `task`, best first.

    Of lists of columns, the first has no more than it needs: see `proposal.sparing`.

    A model that could not tell good from bad on trials it had not seen is not asked: then they
    cover the space evenly.

    Args:
        model: Fitted.
        space: Where to search; need not be the one that the model was fitted with.
        trials: Past trials, for the context of the task and as points to start from.
        task: Which task the configurations are for.
        n: How many.
        tried: Configurations to leave out.
        rng: Equal generators give equal batches, as long as the time lasts.
        given: Context to suppose instead of the task's own, such as `hardware.gpu_model`.
        effort: What may be spent on them; None where time does not count. A model that has a
            formula is then not searched by it: what counts is more than it says.
        search_s: Seconds for the search of a model that has a formula, as `search.thompson` takes
            it.
        spread: As `search.thompson` takes it.
        progress: Called with what is known by then, as `search.thompson` does.
        failures: Which configurations fail, and so bring nothing; None for none. A configuration's
            worth is what it brings times the chance that it does not fail (Gardner et al., 2014);
            those that rather fail than not are left out where there are others.

    Returns:
        The configurations, and what the search for the best of them has found out, in predicted
        values to be minimised; None where the model was not asked.

    Raises:
        Exhausted: If nothing is left of the space, or all of it would take too long.
    """
    context = {**context_of(trials, space, task), **(given or {})}
    it = _Search(
        model=model, space=space, task=task, context=context, tried=tried, n=n, effort=effort,
        failures=failures, rng=rng,
    )  # fmt: skip
    if not model.has_signal:
        return _affordable(it, spread_out(space, n, tried=tried, rng=rng, among=it.open)), None
    first: Sequence[Config] = []
    searched = None
    if form_of(model) is not None and effort is None:
        first, best = thompson(
            model, space, n, context={"task": task, **context}, tried=tried, rng=rng,
            budget_s=search_s, spread=spread, progress=progress,
        )  # fmt: skip
        if best.is_interrupted and not first:
            raise KeyboardInterrupt
        # Where constraints are hard to meet, the time may end before any that does is found.
        if not first and (best.is_exact or not space.constraints):
            raise exhausted(best.n_configs, is_complete=True)
        searched = _searched(best) if first else None
        if best.is_interrupted:
            return [dict(config) for config in first], searched
    first = [c for c, risk in zip(first, it.chance(first), strict=True) if risk <= MAX_CHANCE]
    with threadpool_limits(1):  # many small products: several threads would wait for one another
        configs, found = _expected_best(it, trials, first)
    if effort is not None and effort.limits.weighs:  # in the order of what they gain for the time
        return [dict(config) for config in configs], found
    predicted = model.score(it.frame(configs)).mean
    ranked = [dict(configs[i]) for i in np.argsort(predicted, kind="stable")]
    batch, searched = _spared(it, trials, ranked), searched or found
    if batch[0] != ranked[0]:  # what is proven of the best holds for it by what it lacks to that
        searched = replace(searched, best=float(model.predict(it.frame(batch[:1])).mean[0]))
    return batch, searched


def _affordable(it: _Search, batch: list[dict[str, ConfigValue]]) -> list[dict[str, ConfigValue]]:
    """Of a batch, in its order, what fits into the budget."""
    costs, left = _costs(it, batch)
    kept = []
    for config, cost in zip(batch, costs, strict=True):
        if cost <= left:
            kept.append(config)
            left -= cost
    return kept


def _spared(
    it: _Search, trials: pd.DataFrame, batch: list[dict[str, ConfigValue]]
) -> list[dict[str, ConfigValue]]:
    """`batch` with its first as `spared` has it, where that is new, and as open as all of it."""
    own = trials[trials["task"].astype(str) == it.task]
    steps = spared(batch[0], it.model, it.space, own, it.frame)
    tried = {it.space.key(it.space.active(config)) for config in it.tried}
    open_ = it.open(Found(steps, np.zeros(len(steps)), is_complete=False)).configs
    new = [dict(step) for step in open_ if it.space.key(step) not in tried]
    fewest = new[-1] if new else batch[0]
    rest = [config for config in batch if it.space.key(config) != it.space.key(fewest)]
    return [fewest, *(rest if len(rest) < len(batch) else batch[1:])]


def _searched(best: TopK) -> Searched:
    return Searched(
        n_configs=best.n_configs,
        n_assessed=best.n_assessed,
        best=float(best.values[0]),
        bound=best.bound,
        engine=best.engine,
        seconds=best.seconds,
        is_interrupted=best.is_interrupted,
    )


def _expected_best(
    it: _Search, trials: pd.DataFrame, first: Sequence[Config]
) -> tuple[Sequence[Config], Searched]:
    """Those of greatest expected improvement, the first of `first` and maybe others of it too.

    Each times its chance of success: 1 - the chance of a failure.
    """
    started = time.monotonic()

    def worth(configs: Sequence[Config]) -> Vector:
        frame = it.frame(configs)
        prediction = it.model.score(frame)
        gain = expected_improvement(prediction.mean, prediction.std, best)
        gain = gain * (1 - it.chance(configs))
        return gain if it.effort is None else it.effort.worth(gain, frame)

    space, tried = it.space, it.tried
    near = [space.nearest(c, it.rng) for c in elites(trials, it.task)] or space.sample(100, it.rng)
    # What waits to be run counts as tried: its value is not known, but what it adds is no news.
    expected = it.model.score(it.frame(tried or near)).mean
    best = float(expected.min())
    found = it.open(without(local_search(space, worth, start=near, rng=it.rng), space, tried))
    configs: Sequence[Config]
    if isinstance(it.model.regressor, JointSampler):
        order = np.argsort(expected, kind="stable").tolist()
        lowest = [tried[i] for i in order[:N_RIVALS]] if tried else []
        configs = _joint_batch(it, candidates(found, near, it.n, it.rng), lowest)
    else:
        found = found.led_by(first, worth(first)) if first else found
        costs, budget = _costs(it, found.configs)
        apart = worthy_and_apart(
            found.worth, positions(space, found.configs), it.n, costs=costs, budget=budget
        )
        configs = [found.configs[i] for i in apart]
    reached = float(it.model.predict(it.frame(configs)).mean.min())
    return configs, Searched(
        n_configs=len(found.configs) if found.is_complete else space.n_configs,
        n_assessed=len(found.configs),
        best=reached,
        bound=-np.inf,
        engine="local",
        seconds=time.monotonic() - started,
    )


def _lasting(found: Found, it: _Search, effort: Effort) -> Found:
    """What a search has found, less what would take too long."""
    seconds = effort.durations.seconds(it.frame(found.configs))
    kept = np.flatnonzero(seconds <= effort.limits.limit_s)
    if not len(kept):
        most = shown.duration(effort.limits.limit_s)
        raise Exhausted(
            f"No configuration is predicted to take at most {most}: the shortest of "
            f"{len(seconds)} that were looked at takes {shown.duration(seconds.min())}. Allow more "
            "time, or widen the space (see `mlflow-meta space`)."
        )
    return Found([found.configs[i] for i in kept.tolist()], found.worth[kept], found.is_complete)


def _costs(it: _Search, configs: Sequence[Config]) -> tuple[Vector, float]:
    """Predicted seconds `(m,)`, and how many there are; nothing of nothing where time is free."""
    if it.effort is None or not it.effort.limits.weighs:
        return np.zeros(len(configs)), np.inf
    budget_s = it.effort.limits.budget_s
    seconds = it.effort.durations.seconds(it.frame(configs))
    return seconds, np.inf if budget_s is None else budget_s


def _joint_batch(it: _Search, pool: Sequence[Config], incumbents: Sequence[Config]) -> list[Config]:
    """Up to `n` of the pool that, with the incumbents, are expected lowest."""
    sampler = it.model.regressor
    assert isinstance(sampler, JointSampler)
    X = it.model.encoder.encode(it.frame([*pool, *incumbents]))
    draws = sampler.sample(X, N_DRAWS, it.rng)
    risk = it.chance(pool)
    if risk.any():  # in the worlds where it fails it brings nothing; what was tried has not failed
        fails = it.rng.random((len(draws), len(pool))) < risk
        draws[:, : len(pool)][fails] = draws.max()
    reached = np.min(draws[:, len(pool) :], axis=1, initial=np.inf)
    if it.effort is not None and it.effort.limits.weighs:
        costs, budget = _costs(it, pool)
        chosen = jointly_best_by_cost(draws[:, : len(pool)], reached, it.n, costs, budget)
    else:
        chosen = jointly_best(draws[:, : len(pool)], reached, it.n)
    return [pool[i] for i in chosen]
