"""The search space: which configurations exist, as people write it and as a search walks it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.errors import BadSpace
from mlflow_meta.space.constraints import Constraint, check_constraint, read_constraints
from mlflow_meta.space.params import Param, allows, is_active, is_number, same
from mlflow_meta.space.parts import wrong_space
from mlflow_meta.space.plain import param_from_dict, param_to_dict
from mlflow_meta.space.satisfy import repaired, sampled
from mlflow_meta.subsets import unfolded
from mlflow_meta.trials import Config, ConfigValue

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The parameters, each with its values and the conditions under which it exists.

    Attributes:
        params: Name -> parameter, parents before their children, otherwise in the order given.
        constraints: What has to hold between them; each where all params that it names exist.
    """

    params: Mapping[str, Param]
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        if not self.params:
            raise ValueError("A search space needs at least one parameter.")
        for name, param in self.params.items():
            _check_condition(name, param, self.params)
        for constraint in self.constraints:
            check_constraint(constraint, self.params)
        object.__setattr__(self, "params", MappingProxyType(_parents_first(self.params)))

    def __reduce__(
        self,
    ) -> tuple[type[SearchSpace], tuple[dict[str, Param], tuple[Constraint, ...]]]:
        # A mapping proxy can be neither copied nor sent.
        return SearchSpace, (dict(self.params), self.constraints)

    @property
    def names(self) -> list[str]:
        """The parameters' names, parents before their children."""
        return list(self.params)

    @property
    def n_configs(self) -> float:
        """How many configurations there are at most; inf where a parameter is continuous.

        Exact for spaces without conditions and constraints; with them an upper bound.
        """
        return math.prod(param.n_values for param in self.params.values())

    def active(self, config: Config) -> dict[str, ConfigValue]:
        """The part of `config` that exists under its own choices, in the space's order."""
        kept: dict[str, ConfigValue] = {}
        for name, param in self.params.items():
            if name in config and is_active(param.when, kept):
                kept[name] = config[name]
        return kept

    def holds(self, config: Config) -> bool:
        """Whether what `config` sets lies in this space; other params may be missing, or more."""
        active = self.active(config)
        return all(
            allows(self.params[name], value) for name, value in active.items()
        ) and self.satisfied(active)

    def satisfied(self, config: Config) -> bool:
        """Whether a configuration, each value of which is in this space, meets the constraints."""
        return not self.constraints or bool(self.satisfying([config])[0])

    def satisfying(self, configs: Sequence[Config]) -> Mask:
        """Which configurations, each value of which is in this space, meet the constraints."""
        found = np.ones(len(configs), dtype=bool)
        for constraint in self.constraints:
            found &= constraint.allows(configs)
        return found

    def sample(self, n: int, rng: np.random.Generator) -> list[dict[str, ConfigValue]]:
        """`n` configurations, every parameter uniform on its own scale.

        Under constraints those of the uniform ones that meet them; where hardly any does, some are
        drawn more than once.

        Raises:
            BadSpace: If no configuration that was drawn meets the constraints.
        """
        return sampled(self, n, rng) if self.constraints else self.unconstrained(n, rng)

    def unconstrained(self, n: int, rng: np.random.Generator) -> list[dict[str, ConfigValue]]:
        """`n` configurations as `sample` draws them, whatever the constraints say."""
        columns = {name: param.sample(n, rng) for name, param in self.params.items()}
        return [self.active({name: columns[name][i] for name in columns}) for i in range(n)]

    def only(self, names: Collection[str]) -> SearchSpace | None:
        """The part over some params, less those whose parent is gone; None if nothing is left."""
        kept: dict[str, Param] = {}
        for name, param in self.params.items():
            if name in names and set(param.when) <= set(kept):
                kept[name] = param
        return self.part(kept) if kept else None

    def part(self, params: Mapping[str, Param]) -> SearchSpace:
        """The part that has these params, with the constraints that can still say something."""
        kept = tuple(c for c in self.constraints if c.names <= set(params))
        return SearchSpace(params, kept)

    def complete(self, config: Config, rng: np.random.Generator) -> dict[str, ConfigValue]:
        """`config` without what is inactive, with random values for what is active but unset.

        The constraints are not asked: see `satisfied`.
        """
        whole: dict[str, ConfigValue] = {}
        for name, param in self.params.items():
            if is_active(param.when, whole):
                whole[name] = config[name] if name in config else param.sample(1, rng)[0]
        return whole

    def nearest(self, config: Config, rng: np.random.Generator) -> dict[str, ConfigValue]:
        """The configuration of this space that is nearest to `config`, which may lie outside.

        Numbers are cut to the bounds and put on the grid; what has no neighbour, such as an
        unknown category, becomes random. What does not meet the constraints then is changed until
        it does: of some hundred ways that are tried, the one that changes least.
        """
        close: dict[str, ConfigValue] = {}
        for name, param in self.params.items():
            if name in config and (value := param.nearest(config[name])) is not None:
                close[name] = value
        whole = self.complete(close, rng)
        return whole if self.satisfied(whole) else repaired(self, whole, rng)

    def parse(self, texts: Mapping[str, object]) -> dict[str, ConfigValue]:
        """The configuration that MLflow keeps as `texts`; what is no value of ours is left out."""
        texts = unfolded(texts, self.params)
        parsed = {
            name: param.parse(str(texts[name]))
            for name, param in self.params.items()
            if name in texts
        }
        return self.active({name: value for name, value in parsed.items() if value is not None})

    def enumerate(self) -> list[dict[str, ConfigValue]]:
        """Every configuration there is; only for finite spaces."""
        if not math.isfinite(self.n_configs):
            raise ValueError("A continuous space can't be enumerated.")
        found: list[dict[str, ConfigValue]] = [{}]
        for name, param in self.params.items():
            active = [config for config in found if is_active(param.when, config)]
            inactive = [config for config in found if not is_active(param.when, config)]
            found = [{**c, name: value} for c in active for value in param.grid()] + inactive
        if self.constraints:
            found = [found[i] for i in np.flatnonzero(self.satisfying(found))]
        return found

    @staticmethod
    def key(config: Config) -> tuple[tuple[str, object], ...]:
        """What makes two configurations the same: names and values, floats to 12 digits."""
        return tuple(
            (name, f"{value:.12g}" if is_number(value) else value)
            for name, value in sorted(config.items())
        )

    def to_dict(self) -> dict[str, Any]:
        """The plain form that `from_dict` reads; defaults are left out."""
        params = {name: param_to_dict(param) for name, param in self.params.items()}
        if not self.constraints:
            return params
        return {"parameters": params, "constraints": [c.text for c in self.constraints]}

    @classmethod
    def from_dict(cls, spec: Mapping[str, Any]) -> SearchSpace:
        """Read `{name: {type: float|int|categorical, low, high, log, step, choices, when}}`.

        `when: {parent: [values]}` makes a parameter exist only under those values of its parent.
        `choices` that are all numbers are ordered. Or `{parameters: such, constraints: [texts]}`,
        where each text is an expression such as `batch_size * accumulate <= 4096`.

        Raises:
            BadSpace: Naming every parameter that is wrong, up to five, and what is wrong with it.
        """
        if is_document(spec):
            space = cls.from_dict(spec["parameters"])
            texts = spec.get("constraints") or []
            return replace(space, constraints=read_constraints(texts, space.params))
        if not isinstance(spec, Mapping) or not spec:
            raise BadSpace(f"A search space maps param names to their ranges, but got {spec!r}.")
        params: dict[str, Param] = {}
        wrong: list[str] = []
        for name, entry in spec.items():
            try:
                params[str(name)] = param_from_dict(entry)
            except (ValueError, OverflowError) as error:
                wrong.append(f"{name}: {error}")
        if wrong:
            raise wrong_space(wrong)
        try:
            return cls(params)
        except ValueError as error:
            raise BadSpace(f"In the search space, {error}") from error


def is_document(spec: object) -> bool:
    """Whether this has the params under `parameters`, rather than a param of that name."""
    inner = spec.get("parameters") if isinstance(spec, Mapping) else None
    is_param = isinstance(inner, Mapping) and isinstance(inner.get("type"), str)
    return isinstance(spec, Mapping) and "parameters" in spec and not is_param


def _check_condition(name: str, param: Param, params: Mapping[str, Param]) -> None:
    for parent, values in param.when.items():
        if parent not in params:
            raise ValueError(f"{name}: `when` names {parent!r}, which is not a parameter here.")
        if not values:
            raise ValueError(f"{name}: `when: {parent}` lists no value, so it would never exist.")
        choices = getattr(params[parent], "choices", None)
        strange = [
            value
            for value in values
            if choices is not None and not any(same(value, choice) for choice in choices)
        ]
        if strange:
            raise ValueError(
                f"{name}: `when: {parent}` names {strange[0]!r}, but {parent} is one of "
                f"{list(choices or ())!r}."
            )


def _parents_first(params: Mapping[str, Param]) -> dict[str, Param]:
    """`params` in the order given or, if a child stands before its parent, in a possible one."""
    seen: set[str] = set()
    for name, param in params.items():
        if not seen.issuperset(param.when):
            break
        seen.add(name)
    else:
        return dict(params)
    try:
        order = TopologicalSorter({name: param.when for name, param in params.items()})
        return {name: params[name] for name in order.static_order()}
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ValueError(f"conditions must not go round in a circle: {circle}.") from error
