"""ConfigSpace's spaces as ours, and back: with conditions, without priors and forbidden clauses.

What one of the two can't say is an error that names the param, never a space that is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_meta.errors import BadSpace
from mlflow_meta.space.params import Categorical, Float, Integer, Param, is_number, same
from mlflow_meta.space.parts import has_grid
from mlflow_meta.space.plain import in_order
from mlflow_meta.space.search_space import SearchSpace
from mlflow_meta.trials import ConfigValue

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace
    from ConfigSpace.conditions import Condition, ConditionLike
    from ConfigSpace.hyperparameters import Hyperparameter

_LOG = "mlflow_meta.log"  # in the meta data of an ordinal, which has no scale of its own

Values = tuple[ConfigValue, ...]


def to_configspace(space: SearchSpace) -> ConfigurationSpace:
    """The same space for ConfigSpace.

    Ordered choices are an ordinal, a choice of one is a constant.

    Raises:
        BadSpace: If a param can't be said there (a grid, an end of more digits than are kept);
            names it.
    """
    from ConfigSpace import AndConjunction, ConfigurationSpace, EqualsCondition, InCondition

    made = ConfigurationSpace()
    for name, param in space.params.items():
        made.add(_hyperparameter(name, param))
    for name, param in space.params.items():
        conditions = [
            EqualsCondition(made[name], made[parent], values[0])
            if len(values) == 1
            else InCondition(made[name], made[parent], list(values))
            for parent, values in param.when.items()
        ]
        if conditions:
            made.add(conditions[0] if len(conditions) == 1 else AndConjunction(*conditions))
    return made


def from_configspace(configspace: ConfigurationSpace) -> SearchSpace:
    """The same space as ours.

    Raises:
        BadSpace: If a hyperparameter can't be said here (a prior that is not uniform, an order of
            texts, a condition by less or more on a range, alternatives over several parents), or
            if there are forbidden clauses; names the params.
    """
    if configspace.forbidden_clauses:
        raise BadSpace(
            f"{configspace.forbidden_clauses[0]}: a search space has no forbidden clauses."
        )
    plain = {name: _param(name, configspace[name]) for name in configspace}
    params: dict[str, Param] = {}
    for name in configspace:
        when: dict[str, Values] = {}
        for condition in configspace.parent_conditions_of[name]:
            for parent, values in _when(name, condition, plain).items():
                when[parent] = _both(when[parent], values) if parent in when else values
        params[name] = replace(plain[name], when=when)
    try:
        return SearchSpace(params)
    except ValueError as error:
        raise BadSpace(f"In the space of ConfigSpace, {error}") from error


def _hyperparameter(name: str, param: Param) -> Hyperparameter[Any, Any]:
    from ConfigSpace.hyperparameters import (
        CategoricalHyperparameter,
        Constant,
        OrdinalHyperparameter,
        UniformFloatHyperparameter,
        UniformIntegerHyperparameter,
    )

    if isinstance(param, Categorical):
        if len(param.choices) == 1:
            return Constant(name, param.choices[0])
        if param.is_ordered:
            return OrdinalHyperparameter(name, param.choices, meta={_LOG: param.log})
        return CategoricalHyperparameter(name, param.choices)
    if has_grid(param):
        raise BadSpace(f"{name}: ConfigSpace has no grid. Drop its `step`, or list its choices.")
    if isinstance(param, Integer):
        return UniformIntegerHyperparameter(name, param.low, param.high, log=param.log)
    try:
        made = UniformFloatHyperparameter(name, param.low, param.high, log=param.log)
    except ValueError as error:
        raise BadSpace(f"{name}: ConfigSpace does not take it: {error}") from error
    if (made.lower, made.upper) != (param.low, param.high):
        raise BadSpace(
            f"{name}: ConfigSpace keeps {made.lower!r} and {made.upper!r} of the ends "
            f"{param.low!r} and {param.high!r}. Give them fewer digits, or another unit."
        )
    return made


def _param(name: str, hyperparameter: Hyperparameter[Any, Any]) -> Param:
    """The param of a hyperparameter, without its conditions."""
    from ConfigSpace.hyperparameters import (
        CategoricalHyperparameter,
        Constant,
        OrdinalHyperparameter,
        UniformFloatHyperparameter,
        UniformIntegerHyperparameter,
    )

    try:
        match hyperparameter:
            case UniformFloatHyperparameter(lower=low, upper=high, log=log):
                return Float(low=float(low), high=float(high), log=log)
            case UniformIntegerHyperparameter(lower=low, upper=high, log=log):
                return Integer(low=int(low), high=int(high), log=log)
            case Constant(value=value):
                return Categorical(choices=(_value(value),))
            case OrdinalHyperparameter(sequence=sequence, meta=meta):
                values = _values(sequence)
                if not all(is_number(value) for value in values):
                    raise ValueError("an order of texts can't be said")
                return Categorical(choices=values, log=bool((meta or {}).get(_LOG)))
            case CategoricalHyperparameter(choices=choices, probabilities=shares):
                if not np.allclose(shares, shares[0]):
                    raise ValueError("weights of choices can't be said")
                return Categorical(choices=in_order(_values(choices)))
            case _:
                raise ValueError(f"{type(hyperparameter).__name__} can't be said")
    except (TypeError, ValueError) as error:
        raise BadSpace(f"{name}: {error}") from error


def _values(values: Sequence[object]) -> Values:
    return tuple(_value(value) for value in values)


def _value(value: object) -> ConfigValue:
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, str | int | float | bool):
        raise ValueError(f"a value is a text, a number or true/false, but got {plain!r}")
    return plain


def _when(name: str, condition: ConditionLike, params: dict[str, Param]) -> dict[str, Values]:
    """Parent -> its values under which a param exists, of one condition or several together."""
    from ConfigSpace.conditions import AndConjunction, Condition

    if isinstance(condition, Condition):
        return {condition.parent.name: _allowed(name, condition, params[condition.parent.name])}
    parts = [_when(name, part, params) for part in condition.components]
    together = isinstance(condition, AndConjunction)
    if not together and len({parent for part in parts for parent in part}) > 1:
        raise BadSpace(f"{name}: alternatives over several parents can't be said.")
    found: dict[str, Values] = {}
    for part in parts:
        for parent, values in part.items():
            join = _both if together else _either
            found[parent] = join(found[parent], values) if parent in found else values
    return found


def _allowed(name: str, condition: Condition, parent: Param) -> Values:
    """The parent's values that meet one condition."""
    from ConfigSpace.conditions import EqualsCondition, InCondition

    whose = condition.parent.name
    if isinstance(parent, Categorical):
        met = [c for c in parent.choices if condition.satisfied_by_value({whose: c})]
        return tuple(met)
    match condition:
        case EqualsCondition(value=value):
            return (_value(value),)
        case InCondition(values=values):
            return _values(values)
        case _:
            raise BadSpace(f"{name}: a part of the range of {whose} as condition can't be said.")


def _both(one: Values, other: Values) -> Values:
    return tuple(value for value in one if any(same(value, v) for v in other))


def _either(one: Values, other: Values) -> Values:
    return one + tuple(value for value in other if not any(same(value, v) for v in one))
