"""The heart: past trials and a search space in, the configurations to try next out. No MLflow.

A search under the expected improvement finds candidates. A model that has a formula is searched by
it too, exactly where that is feasible, and so are draws of what it holds for possible. Of all these
the batch is chosen one by one, by what each is expected to add to the task's best trials and to the
choices before it; the best prediction that there is belongs to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.acquisition import expected_improvement
from mlflow_meta.batch import covering, jointly_best, worthy_and_apart
from mlflow_meta.columns import CONTEXT, columns_with, config_of, frame_of
from mlflow_meta.errors import Exhausted, NothingToLearn
from mlflow_meta.features import Encoder
from mlflow_meta.models import ZOO, JointSampler, MetaModel
from mlflow_meta.models.failures import Failures
from mlflow_meta.search import Found, Progress, Spread, TopK, form_of, local_search, thompson
from mlflow_meta.search.local import Worth
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Config, ConfigValue, Searched

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

N_ELITES = 10  # best trials of each task from which the search also starts
MAX_ELITES = 300  # of all tasks together
N_RIVALS = 20  # incumbents, of lowest expected score, that a batch has to beat
N_DRAWS = 256  # joint draws on which a batch is chosen
MAX_CHANCE = 0.5  # of failing, up to which a configuration is suggested where there are others
N_WORTHIEST = 150  # configurations, of greatest worth, that may enter a batch
N_OTHERS = 350  # others that may
POOL = 500  # random configurations that stand for the space where it is to be covered evenly


def propose(
    trials: pd.DataFrame,
    space: SearchSpace,
    *,
    task: str,
    n: int,
    rng: np.random.Generator,
) -> list[dict[str, ConfigValue]]:
    """The `n` configurations to try next on `task`, best first.

    Args:
        trials: What is known, of all tasks: a frame with `task`, `value` (minimised) and
            `params.<name>` (missing where inactive); `hardware.*`, `dataset.*` and `tags.*` are
            taken for context. May be empty.
        space: The configurations that may be tried.
        task: Which task they are for; it may have no trials yet.
        n: How many, at least 1.
        rng: Equal generators give equal proposals.

    Returns:
        Up to `n` configurations, none tried on the task before; fewer only where the space has no
        more. Inactive parameters are left out. With too few trials to learn from they fill the
        space evenly.

    Raises:
        Exhausted: If every configuration of the space has been tried on the task.
        ValueError: If `n < 1`, or `trials` lacks a column or has values that are not finite.

    Example:
        >>> lr = {"type": "float", "low": 1e-4, "high": 1.0, "log": True}
        >>> space = SearchSpace.from_dict({"lr": lr})
        >>> trials = pd.DataFrame({"task": [], "value": [], "params.lr": []})
        >>> len(propose(trials, space, task="mnist", n=3, rng=np.random.default_rng(0)))
        3
    """
    if n < 1:
        raise ValueError(f"`n >= 1` must hold, but got {n}.")
    if missing := {"task", "value"} - set(trials):
        raise ValueError(
            f"Trials need the columns task and value, but {sorted(missing)} is missing."
        )
    tried = tried_on(trials, task)
    model = ZOO["transfer"]()
    try:
        model.learn(trials, space)
    except NothingToLearn:
        return spread_out(space, n, tried=tried, rng=rng)
    configs, _ = choose_batch(model, space, trials, task=task, n=n, tried=tried, rng=rng)
    return configs


def choose_batch(  # noqa: PLR0913 - what is known, where, and how many are all independent
    model: MetaModel,
    space: SearchSpace,
    trials: pd.DataFrame,
    *,
    task: str,
    n: int,
    tried: Sequence[Config],
    rng: np.random.Generator,
    budget_s: float | None = None,
    spread: Spread | None = None,
    progress: Progress | None = None,
    failures: Failures | None = None,
) -> tuple[list[dict[str, ConfigValue]], Searched | None]:
    """Up to `n` configurations that `model` finds most promising on `task`, best first.

    A model that could not tell good from bad on trials it had not seen is not asked: then they
    cover the space evenly.

    Args:
        model: Fitted.
        space: Where to search; need not be the one that the model was fitted with.
        trials: Past trials, for the context of the task and as points to start from.
        task: Which task the configurations are for.
        n: How many.
        tried: Configurations to leave out.
        rng: Equal generators give equal batches, as long as the budget lasts.
        budget_s: Seconds for the search of a model that has a formula, as `search.thompson` takes
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
        Exhausted: If nothing is left of the space.
    """
    context = context_of(trials, space, task)

    def chance(configs: Sequence[Config]) -> Vector:
        if failures is None or not failures.has_signal:
            return np.zeros(len(configs))
        return failures.chance(in_context(configs, space, task, context))

    if not model.has_signal:
        return spread_out(space, n, tried=tried, rng=rng, chance=chance), None
    first: Sequence[Config] = []
    searched = None
    if form_of(model) is not None:
        first, best = thompson(
            model, space, n, context={"task": task, **context}, tried=tried, rng=rng,
            budget_s=budget_s, spread=spread, progress=progress,
        )  # fmt: skip
        if best.is_interrupted and not first:
            raise KeyboardInterrupt
        # Where constraints are hard to meet, the time may end before any that does is found.
        if not first and (best.is_exact or not space.constraints):
            raise _exhausted(best.n_configs, is_complete=True)
        searched = _searched(best) if first else None
        if best.is_interrupted:
            return [dict(config) for config in first], searched

    first = [c for c, risk in zip(first, chance(first), strict=True) if risk <= MAX_CHANCE]
    configs, found = _expected_best(
        model, space, trials, context, task, n, tried, first, rng, chance
    )
    predicted = model.score(in_context(configs, space, task, context)).mean
    order = np.argsort(predicted, kind="stable")
    return [dict(configs[i]) for i in order], searched or found


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


def _expected_best(  # noqa: PLR0913 - as `choose_batch`
    model: MetaModel,
    space: SearchSpace,
    trials: pd.DataFrame,
    context: Mapping[str, object],
    task: str,
    n: int,
    tried: Sequence[Config],
    first: Sequence[Config],
    rng: np.random.Generator,
    chance: Worth,
) -> tuple[Sequence[Config], Searched]:
    """Those of greatest expected improvement, the first of `first` and maybe others of it too.

    Each times its chance of success: 1 - `chance` of a failure.
    """
    started = time.monotonic()

    def frame(configs: Sequence[Config]) -> pd.DataFrame:
        return in_context(configs, space, task, context)

    def worth(configs: Sequence[Config]) -> Vector:
        prediction = model.score(frame(configs))
        gain = expected_improvement(prediction.mean, prediction.std, best)
        return np.asarray(gain * (1 - chance(configs)))

    near = [space.nearest(c, rng) for c in _elites(trials, task)] or space.sample(100, rng)
    # What waits to be run counts as tried: its value is not known, but what it adds is no news.
    expected = model.score(frame(tried or near)).mean
    best = float(expected.min())
    found = _without(local_search(space, worth, start=near, rng=rng), space, tried)
    found = _likely(found, chance(found.configs))
    configs: Sequence[Config]
    if isinstance(sampler := model.regressor, JointSampler):

        def draw(configs: Sequence[Config]) -> Matrix:
            drawn = sampler.sample(model.encoder.encode(frame(configs)), N_DRAWS, rng)
            risk = chance(configs)
            if not risk.any():
                return drawn
            # In the worlds where it fails it brings nothing. What was tried has not failed.
            risk[len(pool) :] = 0.0
            return np.where(rng.random(drawn.shape) < risk, drawn.max(), drawn)

        lowest = [tried[i] for i in np.argsort(expected, kind="stable")[:N_RIVALS]] if tried else []
        pool = _candidates(found, near, n, rng)
        configs = _joint_batch(draw, pool, lowest, n)
    else:
        found = found.led_by(first, worth(first)) if first else found
        apart = worthy_and_apart(found.worth, _positions(space, found.configs), n)
        configs = [found.configs[i] for i in apart]
    reached = float(model.predict(frame(configs)).mean.min())
    return configs, Searched(
        n_configs=len(found.configs) if found.is_complete else space.n_configs,
        n_assessed=len(found.configs),
        best=reached,
        bound=-np.inf,
        engine="local",
        seconds=time.monotonic() - started,
    )


def spread_out(
    space: SearchSpace,
    n: int,
    *,
    tried: Sequence[Config],
    rng: np.random.Generator,
    chance: Worth = lambda configs: np.zeros(len(configs)),
) -> list[dict[str, ConfigValue]]:
    """Up to `n` configurations that, with those tried, cover the space evenly: nothing is known.

    But what fails, perhaps: those that do with a `chance (n,)` of more than a half are left out.
    """
    anywhere = local_search(space, lambda configs: np.zeros(len(configs)), start=[], rng=rng)
    found = _without(anywhere, space, tried)
    found = _likely(found, chance(found.configs))
    order = rng.permutation(len(found.configs))[: max(POOL, 2 * n)]
    pool = [found.configs[i] for i in order]
    places = _positions(space, [*pool, *tried])
    chosen = covering(places[: len(pool)], places[len(pool) :], n)
    return [dict(pool[i]) for i in chosen]


def tried_on(trials: pd.DataFrame, task: str) -> list[dict[str, ConfigValue]]:
    """The configurations that were tried on `task`."""
    rows = trials[trials["task"].astype(str) == task]
    return [config_of(row) for row in rows.to_dict("records")]


def context_of(trials: pd.DataFrame, space: SearchSpace, task: str) -> dict[str, object]:
    """What is given for `task`: the context of its best trial, among those that are most alike.

    A task's runs may come from several programs; the trial that sets most of the space's
    parameters belongs to the one that is being searched.
    """
    rows = trials[trials["task"].astype(str) == task]
    columns = columns_with(trials, *CONTEXT)
    if rows.empty or not columns:
        return {}
    known = [f"params.{name}" for name in space.names if f"params.{name}" in rows]
    n_set = rows[known].notna().sum(axis=1) if known else pd.Series(0, index=rows.index)
    typical = rows[n_set >= n_set.median()]
    best = typical.iloc[int(np.argmin(typical["value"].to_numpy(float)))]
    return {column: best[column] for column in columns if not pd.isna(best[column])}


def in_context(
    configs: Sequence[Config], space: SearchSpace, task: str, context: Mapping[str, object]
) -> pd.DataFrame:
    """`configs` as rows that a meta-model reads: each on `task`, in the same context."""
    frame = frame_of(configs, space.names)
    given = pd.DataFrame({"task": task, **context}, index=frame.index)
    return pd.concat([frame, given], axis=1)


def _elites(trials: pd.DataFrame, task: str) -> list[dict[str, ConfigValue]]:
    """The best configurations of every task: `task`'s first, then the others' by their turns."""
    ranked = trials.sort_values("value")
    turn = ranked.groupby("task", sort=False).cumcount()
    own = ranked["task"].astype(str) == task
    order = np.lexsort([turn.to_numpy(), ~own.to_numpy()])
    best = ranked.iloc[order[turn.to_numpy()[order] < N_ELITES][:MAX_ELITES]]
    return [config_of(row) for row in best.to_dict("records")]


def _without(found: Found, space: SearchSpace, tried: Sequence[Config]) -> Found:
    """What a search has found, less what was tried before."""
    # A trial also has params that are no part of the space, such as a constant or a seed, and
    # some programs log those that were inactive too.
    gone = {space.key(space.active(config)) for config in tried}
    kept = [i for i, config in enumerate(found.configs) if space.key(config) not in gone]
    if not kept:
        raise _exhausted(len(found.configs), is_complete=found.is_complete)
    return Found([found.configs[i] for i in kept], found.worth[kept], found.is_complete)


def _exhausted(n: int, *, is_complete: bool) -> Exhausted:
    whose = "of the search space" if is_complete else "found in the search space"
    return Exhausted(
        f"All {n} configurations {whose} have been run or suggested already. "
        "Widen the space (see `mlflow-meta space`) to go on."
    )


def _likely(found: Found, chance: Vector) -> Found:
    """Less those that rather fail than not, by their `chance (n,)`, unless all do."""
    kept = np.flatnonzero(chance <= MAX_CHANCE)
    if len(kept) in (0, len(chance)):
        return found
    return Found([found.configs[i] for i in kept.tolist()], found.worth[kept], is_complete=False)


def _candidates(
    found: Found, elites: Sequence[Config], n: int, rng: np.random.Generator
) -> list[Config]:
    """Of what a search has found, what may enter a batch of `n`: more than can be drawn jointly.

    The worthiest are neighbours of one another: the elites and some others keep the batch broad.
    """
    known = {SearchSpace.key(config) for config in elites}
    places = range(len(found.configs))
    best = [i for i in places if i < N_WORTHIEST or SearchSpace.key(found.configs[i]) in known]
    rest = np.setdiff1d(places, best)
    others = rng.permutation(rest)[: max(N_OTHERS, 2 * n - len(best))]
    return [found.configs[i] for i in [*best, *others.tolist()]]


def _joint_batch(
    draw: Callable[[Sequence[Config]], Matrix],
    pool: Sequence[Config],
    incumbents: Sequence[Config],
    n: int,
) -> list[Config]:
    """Up to `n` of the pool that, with the incumbents, are expected lowest."""
    draws = draw([*pool, *incumbents])
    reached = np.min(draws[:, len(pool) :], axis=1, initial=np.inf)
    return [pool[i] for i in jointly_best(draws[:, : len(pool)], reached, n)]


def _positions(space: SearchSpace, configs: Sequence[Config]) -> Matrix:
    """Where the configurations lie in the unit cube, `(n, d)`."""
    frame = frame_of(configs, space.names)
    return Encoder.learn(frame.assign(task=""), space).encode(frame)
