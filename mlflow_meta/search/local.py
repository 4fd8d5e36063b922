"""Broad to narrow: random configurations first, then ever smaller steps away from the best.

It asks nothing of what it searches, and so proves nothing either. Spaces that are small enough are
enumerated whole instead.

worth: `(n,)`, to be maximised
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.space import Categorical, SearchSpace
from mlflow_meta.trials import Config, ConfigValue

Vector = NDArray[np.float64]
Worth = Callable[[Sequence[Config]], Vector]

N_RANDOM = 3000  # configurations scored before the first step
N_PARENTS = 30  # the best ones, from which each round steps away
N_CHILDREN = 20  # steps from each of them
STEPS = (0.3, 0.15, 0.08, 0.04, 0.02)  # standard deviation of a step, on the unit scale, by round
N_TRIES = 10  # steps of which the first is taken that meets a space's constraints
MAX_ENUMERATED = 5000  # configurations up to which a finite space is enumerated


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has seen, the worthiest first.

    Attributes:
        configs: `n` configurations, all different.
        worth: `(n,)`, falling.
        is_complete: Whether these are all the configurations that the space has.
    """

    configs: Sequence[Config]
    worth: Vector
    is_complete: bool

    def led_by(self, first: Sequence[Config], worth: Vector) -> Found:
        """`first`, of `worth`, before all others, and its first the worthiest of all."""
        known = {SearchSpace.key(config) for config in first}
        kept = [i for i, c in enumerate(self.configs) if SearchSpace.key(c) not in known]
        worth = np.concatenate([worth, self.worth[kept]])
        worth[0] = worth.max()
        return Found([*first, *(self.configs[i] for i in kept)], worth, self.is_complete)


def local_search(
    space: SearchSpace, worth: Worth, *, start: Sequence[Config], rng: np.random.Generator
) -> Found:
    """Search `space` for the configurations of greatest worth.

    Args:
        space: Where to search.
        worth: Worth of each of `n` configurations, `(n,)`, to be maximised.
        start: Configurations to begin with beside the random ones; may lie outside the space.
        rng: Equal generators give equal results.

    Returns:
        All configurations that were scored, the worthiest first.
    """
    if space.n_configs <= MAX_ENUMERATED:
        everything = space.enumerate()
        return _sorted(everything, worth(everything), is_complete=True)
    seen: dict[object, Config] = {}
    fresh: list[Config] = [
        *(space.nearest(config, rng) for config in start),
        *space.sample(N_RANDOM, rng),
    ]
    configs: list[Config] = []
    values = np.empty(0)
    for step in (*STEPS, 0.0):
        fresh = _unseen(fresh, seen)
        if fresh:
            configs += fresh
            values = np.concatenate([values, worth(fresh)])
        parents = [configs[i] for i in np.argsort(-values, kind="stable")[:N_PARENTS]]
        fresh = [step_from(p, space, step, rng) for p in parents for _ in range(N_CHILDREN) if step]
    return _sorted(configs, values, is_complete=False)


def step_from(
    config: Config, space: SearchSpace, step: float, rng: np.random.Generator
) -> dict[str, ConfigValue]:
    """A neighbour of `config`: about two parameters moved, numbers by about `step`.

    Where constraints refuse all that is tried, `config` itself.
    """
    for _ in range(N_TRIES if space.constraints else 1):
        child = _stepped(config, space, step, rng)
        if space.satisfied(child):
            return child
    return dict(config)


def _stepped(
    config: Config, space: SearchSpace, step: float, rng: np.random.Generator
) -> dict[str, ConfigValue]:
    names = [name for name in space.names if name in config and space.params[name].n_values > 1]
    names = names or list(config)
    moved = rng.random(len(names)) < 2.0 / len(names)
    moved[rng.integers(len(names))] = True
    child = dict(config)
    for name in (name for name, move in zip(names, moved, strict=True) if move):
        param = space.params[name]
        if isinstance(param, Categorical):
            child[name] = _other_choice(param, config[name], rng)
        else:
            unit = param.to_unit(np.array([float(config[name])])) + rng.normal(0.0, step)
            child[name] = param.from_unit(unit)[0]
    return space.complete(child, rng)


def _other_choice(param: Categorical, now: ConfigValue, rng: np.random.Generator) -> ConfigValue:
    if not param.is_ordered:
        return param.sample(1, rng)[0]
    place = param.choices.index(now) + int(rng.choice([-1, 1]))
    return param.choices[min(max(place, 0), len(param.choices) - 1)]


def _unseen(configs: Sequence[Config], seen: dict[object, Config]) -> list[Config]:
    fresh: list[Config] = []
    for config in configs:
        key = SearchSpace.key(config)
        if key not in seen:
            seen[key] = config
            fresh.append(config)
    return fresh


def _sorted(configs: Sequence[Config], values: Vector, *, is_complete: bool) -> Found:
    order = np.argsort(-values, kind="stable")
    return Found([configs[i] for i in order], values[order], is_complete)
