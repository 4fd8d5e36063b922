"""What may enter a batch: of what a search has found, and where nothing is known of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.batch import covering
from mlflow_meta.columns import frame_of
from mlflow_meta.errors import Exhausted
from mlflow_meta.features import Encoder
from mlflow_meta.search import Found, local_search
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Config, ConfigValue

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

N_WORTHIEST = 150  # configurations, of greatest worth, that may enter a batch
N_OTHERS = 350  # others that may
MAX_CHANCE = 0.5  # of failing, up to which a configuration is suggested where there are others
POOL = 500  # random configurations that stand for the space where it is to be covered evenly


def spread_out(
    space: SearchSpace,
    n: int,
    *,
    tried: Sequence[Config],
    rng: np.random.Generator,
    among: Callable[[Found], Found] = lambda found: found,
) -> list[dict[str, ConfigValue]]:
    """Up to `n` configurations that, with those tried, cover the space evenly: nothing is known.

    But what fails, perhaps, or how long it takes: of all that there is, `among` says what may be.
    """
    anywhere = local_search(space, lambda configs: np.zeros(len(configs)), start=[], rng=rng)
    found = among(without(anywhere, space, tried))
    order = rng.permutation(len(found.configs))[: max(POOL, 2 * n)]
    pool = [found.configs[i] for i in order]
    places = positions(space, [*pool, *tried])
    chosen = covering(places[: len(pool)], places[len(pool) :], n)
    return [dict(pool[i]) for i in chosen]


def without(found: Found, space: SearchSpace, tried: Sequence[Config]) -> Found:
    """What a search has found, less what was tried before."""
    # A trial also has params that are no part of the space, such as a constant or a seed, and
    # some programs log those that were inactive too.
    gone = {space.key(space.active(config)) for config in tried}
    kept = [i for i, config in enumerate(found.configs) if space.key(config) not in gone]
    if not kept:
        raise exhausted(len(found.configs), is_complete=found.is_complete)
    return Found([found.configs[i] for i in kept], found.worth[kept], found.is_complete)


def exhausted(n: int, *, is_complete: bool) -> Exhausted:
    """The error that says that nothing is left."""
    whose = "of the search space" if is_complete else "found in the search space"
    return Exhausted(
        f"All {n} configurations {whose} have been run or suggested already. "
        "Widen the space (see `mlflow-meta space`) to go on."
    )


def likely(found: Found, chance: Vector) -> Found:
    """Less those that rather fail than not, by their `chance (n,)`, unless all do."""
    kept = np.flatnonzero(chance <= MAX_CHANCE)
    if len(kept) in (0, len(chance)):
        return found
    return Found([found.configs[i] for i in kept.tolist()], found.worth[kept], is_complete=False)


def candidates(
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


def positions(space: SearchSpace, configs: Sequence[Config]) -> Matrix:
    """Where the configurations lie in the unit cube, `(n, d)`."""
    frame = frame_of(configs, space.names)
    return Encoder.learn(frame.assign(task=""), space).encode(frame)
