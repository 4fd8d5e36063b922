"""The search space: which configurations exist, as people write it and as a search walks it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import Any

import numpy as np

from mlflow_meta.errors import BadSpace
from mlflow_meta.space.params import (
    Categorical,
    Float,
    Integer,
    Param,
    allows,
    is_active,
    is_number,
    same,
)
from mlflow_meta.subsets import unfolded
from mlflow_meta.trials import Config, ConfigValue

_KINDS: dict[str, type[Float] | type[Integer] | type[Categorical]] = {
    "float": Float,
    "int": Integer,
    "categorical": Categorical,
}


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The parameters, each with its values and the conditions under which it exists.

    Attributes:
        params: Name -> parameter, parents before their children, otherwise in the order given.
    """

    params: Mapping[str, Param]

    def __post_init__(self) -> None:
        if not self.params:
            raise ValueError("A search space needs at least one parameter.")
        for name, param in self.params.items():
            _check_condition(name, param, self.params)
        object.__setattr__(self, "params", MappingProxyType(_parents_first(self.params)))

    def __reduce__(self) -> tuple[type[SearchSpace], tuple[dict[str, Param]]]:
        return SearchSpace, (dict(self.params),)  # a mapping proxy can be neither copied nor sent

    @property
    def names(self) -> list[str]:
        """The parameters' names, parents before their children."""
        return list(self.params)

    @property
    def n_configs(self) -> float:
        """How many configurations there are at most; inf where a parameter is continuous.

        Exact for spaces without conditions; with them an upper bound.
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
        return all(allows(self.params[name], value) for name, value in self.active(config).items())

    def sample(self, n: int, rng: np.random.Generator) -> list[dict[str, ConfigValue]]:
        """`n` configurations, every parameter uniform on its own scale."""
        columns = {name: param.sample(n, rng) for name, param in self.params.items()}
        return [self.active({name: columns[name][i] for name in columns}) for i in range(n)]

    def only(self, names: Collection[str]) -> SearchSpace | None:
        """The part over some params, less those whose parent is gone; None if nothing is left."""
        kept: dict[str, Param] = {}
        for name, param in self.params.items():
            if name in names and set(param.when) <= set(kept):
                kept[name] = param
        return SearchSpace(kept) if kept else None

    def complete(self, config: Config, rng: np.random.Generator) -> dict[str, ConfigValue]:
        """`config` without what is inactive, with random values for what is active but unset."""
        whole: dict[str, ConfigValue] = {}
        for name, param in self.params.items():
            if is_active(param.when, whole):
                whole[name] = config[name] if name in config else param.sample(1, rng)[0]
        return whole

    def nearest(self, config: Config, rng: np.random.Generator) -> dict[str, ConfigValue]:
        """The configuration of this space that is nearest to `config`, which may lie outside.

        Numbers are cut to the bounds and put on the grid; what has no neighbour, such as an
        unknown category, becomes random.
        """
        close: dict[str, ConfigValue] = {}
        for name, param in self.params.items():
            if name in config and (value := param.nearest(config[name])) is not None:
                close[name] = value
        return self.complete(close, rng)

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
        return found

    @staticmethod
    def key(config: Config) -> tuple[tuple[str, object], ...]:
        """What makes two configurations the same: names and values, floats to 12 digits."""
        return tuple(
            (name, f"{value:.12g}" if is_number(value) else value)
            for name, value in sorted(config.items())
        )

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The plain form that `from_dict` reads; defaults are left out."""
        return {name: _param_to_dict(param) for name, param in self.params.items()}

    @classmethod
    def from_dict(cls, spec: Mapping[str, Mapping[str, Any]]) -> SearchSpace:
        """Read `{name: {type: float|int|categorical, low, high, log, step, choices, when}}`.

        `when: {parent: [values]}` makes a parameter exist only under those values of its parent.
        `choices` that are all numbers are ordered.

        Raises:
            BadSpace: Naming every parameter that is wrong, up to five, and what is wrong with it.
        """
        if not isinstance(spec, Mapping) or not spec:
            raise BadSpace(f"A search space maps param names to their ranges, but got {spec!r}.")
        params: dict[str, Param] = {}
        wrong: list[str] = []
        for name, entry in spec.items():
            try:
                params[str(name)] = _param_from_dict(entry)
            except (ValueError, OverflowError) as error:
                wrong.append(f"{name}: {error}")
        if wrong:
            more = f" (+{len(wrong) - 5} more)" if len(wrong) > 5 else ""
            raise BadSpace("In the search space, " + "; ".join(wrong[:5]) + more)
        try:
            return cls(params)
        except ValueError as error:
            raise BadSpace(f"In the search space, {error}") from error


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


def _param_to_dict(param: Param) -> dict[str, Any]:
    kind = next(kind for kind, cls in _KINDS.items() if isinstance(param, cls))
    entry: dict[str, Any] = {"type": kind}
    for spec in fields(param):
        value = getattr(param, spec.name)
        if spec.name == "when":
            value = {parent: list(values) for parent, values in value.items()}
        if spec.name == "choices":
            value = list(value)
        if (value and value != spec.default) or spec.name in ("low", "high"):
            entry[spec.name] = value
    return entry


def _param_from_dict(entry: object) -> Param:
    if not isinstance(entry, Mapping):
        raise ValueError(f"expected `{{type: ..., ...}}`, but got {entry!r}.")
    kind = entry.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"`type` must be float, int or categorical, but got {kind!r}.")
    cls = _KINDS[kind]
    allowed = {spec.name for spec in fields(cls)}
    strange = sorted(str(key) for key in entry if key != "type" and key not in allowed)
    if strange:
        raise ValueError(f"`{strange[0]}` does not go with `type: {kind}` ({sorted(allowed)}).")
    values = {key: value for key, value in entry.items() if key != "type" and value is not None}
    if not isinstance(values.get("log", False), bool):
        raise ValueError(f"`log` must be true or false, but got {values['log']!r}.")
    values["when"] = _read_when(values.get("when"))
    if cls is Categorical:
        values["choices"] = _read_choices(values.get("choices"))
    else:
        for key in ("low", "high", "step"):
            if key != "step" or key in values:
                values[key] = _read_number(key, values.get(key), whole=cls is Integer)
    return cls(**values)


def _read_number(key: str, value: object, *, whole: bool) -> float:
    # Most YAML loaders read `1e-5`, without a dot, as a string: take it for the number that it is.
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"`{key}` must be a number, but got {value!r}.")
    if not whole:
        return float(value)
    if not float(value).is_integer():
        raise ValueError(f"`{key}` of an int must be a whole number, but got {value!r}.")
    return int(value)


def _read_choices(choices: object) -> tuple[ConfigValue, ...]:
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        raise ValueError(f"`choices` must be a list, but got {choices!r}.")
    for choice in choices:
        if not isinstance(choice, str | int | float | bool):
            raise ValueError(f"choices are texts, numbers or true/false, but got {choice!r}.")
    if all(is_number(choice) for choice in choices):
        return tuple(sorted(choices))
    return tuple(choices)


def _read_when(when: object) -> dict[str, tuple[ConfigValue, ...]]:
    if when is None:
        return {}
    if not isinstance(when, Mapping):
        raise ValueError(f"`when` must be `{{parent: [values]}}`, but got {when!r}.")
    return {
        str(parent): tuple(values)
        if isinstance(values, Sequence) and not isinstance(values, str)
        else (values,)
        for parent, values in when.items()
    }
