"""Configurations that meet a space's constraints: drawn until some do, changed until one does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_meta.errors import BadSpace
from mlflow_meta.space.params import Categorical, Param, is_number, same
from mlflow_meta.trials import Config, ConfigValue

if TYPE_CHECKING:
    from mlflow_meta.space.search_space import SearchSpace

MAX_DRAWN = 100_000  # random configurations, of which one at least has to meet the constraints
MAX_AT_ONCE = 20_000  # of them that are looked at together
N_WAYS = 256  # in which a configuration is changed, to meet the constraints
N_NEAR = 200  # random configurations of which the nearest is taken where none of these ways does
MAX_LISTED = 5_000  # configurations up to which all are looked at
_STEP = 0.2  # standard deviation of a step that changes a number, on the unit scale


def sampled(space: SearchSpace, n: int, rng: np.random.Generator) -> list[dict[str, ConfigValue]]:
    """`n` of the random configurations that meet the constraints; see `SearchSpace.sample`."""
    if n < 1:
        return []
    found: list[dict[str, ConfigValue]] = []
    n_drawn, size = 0, max(n, 100)
    while len(found) < n and n_drawn < MAX_DRAWN:
        drawn = space.unconstrained(min(size, MAX_AT_ONCE), rng)
        found += [drawn[i] for i in np.flatnonzero(space.satisfying(drawn))]
        n_drawn += len(drawn)
        size = 2 * int((n - len(found)) * n_drawn / max(len(found), 1)) + 100
    if not found and space.n_configs <= MAX_LISTED:
        found = space.enumerate()  # what is rare is found where all can be looked at
    if not found:
        raise _nothing(space, drawn)
    if len(found) < n:
        found += [dict(found[i]) for i in rng.integers(len(found), size=n - len(found))]
    return found[:n]


def _nothing(space: SearchSpace, drawn: list[dict[str, ConfigValue]]) -> BadSpace:
    """Says which constraints are hard to meet."""
    refused = [
        (1 - float(constraint.allows(drawn).mean()), constraint.text)
        for constraint in space.constraints
    ]
    refused.sort(reverse=True)
    most = ", ".join(f"`{text}` refuses {share:.0%}" for share, text in refused[:3])
    which = "No configuration of the space" if space.n_configs <= MAX_LISTED else (
        f"None of {MAX_DRAWN:,} random configurations"
    )  # fmt: skip
    return BadSpace(
        f"{which} meets the constraints: {most}. Loosen them, or let the ranges of their params "
        "say the same."
    )


def repaired(
    space: SearchSpace, config: Config, rng: np.random.Generator
) -> dict[str, ConfigValue]:
    """The nearest to `config` of some configurations that meet the constraints.

    Tried are changes of the params that the constraints name: of few of them or all, by a step or
    to any value.

    Args:
        space: With constraints.
        config: Complete, each value in the space.
        rng: Equal generators give equal results.

    Raises:
        BadSpace: If nothing meets the constraints.
    """
    names = sorted(set().union(*(c.names for c in space.constraints)) & set(config))
    ways = [_changed(space, config, names, rng) for _ in range(N_WAYS)] if names else []
    good = [ways[i] for i in np.flatnonzero(space.satisfying(ways))]
    good = good or sampled(space, N_NEAR, rng)
    return min(good, key=lambda way: _distance(space, config, way))


def _changed(
    space: SearchSpace, config: Config, names: list[str], rng: np.random.Generator
) -> dict[str, ConfigValue]:
    """`config` with some of the params `names` changed."""
    changed = dict(config)
    n = int(rng.integers(1, len(names) + 1))
    for i in rng.permutation(len(names))[:n]:
        name = names[i]
        param, value = space.params[name], config[name]
        if rng.random() < 0.5 and not isinstance(param, Categorical) and is_number(value):
            unit = param.to_unit(np.array([float(value)])) + rng.normal(0.0, _STEP)
            changed[name] = param.from_unit(unit)[0]
        else:
            changed[name] = param.sample(1, rng)[0]
    return space.complete(changed, rng)


def _distance(space: SearchSpace, one: Config, other: Config) -> float:
    """The sum over params of how far they are apart on the unit scale; 1 where one is unset."""
    return sum(
        _apart(param, one[name], other[name]) if name in one and name in other else 1.0
        for name, param in space.params.items()
        if name in one or name in other
    )


def _apart(param: Param, one: ConfigValue, other: ConfigValue) -> float:
    if same(one, other):
        return 0.0
    if not (is_number(one) and is_number(other)):
        return 1.0
    places = param.to_unit(np.array([float(one), float(other)]))
    return float(abs(places[1] - places[0]))
