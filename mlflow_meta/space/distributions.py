"""Optuna's distributions as params, and back.

Optuna writes a distribution as JSON or as its repr, and MLflow keeps either: these texts are read
here without Optuna, which need not be installed where runs are harvested. A distribution knows no
condition: under what a param exists is the objective's program.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlflow_meta.errors import BadSpace
from mlflow_meta.space.params import Categorical, Float, Integer, Param
from mlflow_meta.space.parts import has_grid
from mlflow_meta.space.plain import in_order
from mlflow_meta.space.search_space import SearchSpace
from mlflow_meta.trials import ConfigValue

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def read_distribution(text: str) -> Param:
    """The param that a distribution's text is about, of Optuna's JSON or its repr.

    A choice that is no number, truth or text becomes the text that MLflow keeps of it, such as
    `None`. Where only one value is possible it is a choice of one.

    Raises:
        ValueError: If it is no distribution of Optuna's, or one that can't be told as a param.
    """
    name, attributes = _parsed(text)
    if name not in _READERS:
        raise ValueError(f"A distribution must be one of {sorted(_READERS)}, but got {name!r}.")
    try:
        return _READERS[name](attributes)
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{name} lacks what it needs: {error!r}.") from error


def written_distribution(text: str) -> BaseDistribution:
    """The distribution itself: its choices in their order and of their types.

    Raises:
        ValueError: If `read_distribution` does, or Optuna has none of this name any more.
    """
    from optuna.distributions import json_to_distribution  # the extra

    read_distribution(text)
    name, attributes = _parsed(text)
    return json_to_distribution(json.dumps({"name": name, "attributes": attributes}))


def from_distributions(distributions: Mapping[str, BaseDistribution]) -> SearchSpace:
    """The search space of some distributions, as `read_distribution` tells each.

    Raises:
        BadSpace: If one can't be told as a param; names it.

    Example:
        >>> from optuna.distributions import FloatDistribution
        >>> from_distributions({"lr": FloatDistribution(1e-4, 1.0, log=True)}).to_dict()
        {'lr': {'type': 'float', 'low': 0.0001, 'high': 1.0, 'log': True}}
    """
    from optuna.distributions import distribution_to_json  # the extra

    params: dict[str, Param] = {}
    for name, distribution in distributions.items():
        try:
            params[name] = read_distribution(distribution_to_json(distribution))
        except (TypeError, ValueError) as error:
            raise BadSpace(f"{name}: {distribution} can't be told as a param: {error}") from error
    if not params:
        raise BadSpace("A search space needs at least one distribution, but got none.")
    return SearchSpace(params)


def to_distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The distribution of each param, without its condition.

    Raises:
        BadSpace: If a param is no distribution of Optuna's; names it.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    made: dict[str, BaseDistribution] = {}
    for name, param in space.params.items():
        if isinstance(param, Categorical):
            made[name] = CategoricalDistribution(param.choices)
            continue
        if param.log and has_grid(param):
            raise BadSpace(
                f"{name}: Optuna has no grid on a logarithmic scale. Drop its `step` or its `log`."
            )
        if isinstance(param, Integer):
            made[name] = IntDistribution(param.low, _end(param), log=param.log, step=param.step)
        else:
            # Cut to the grid, or Optuna does that with a warning.
            high = float(param.grid()[-1]) if param.step is not None else param.high
            made[name] = FloatDistribution(param.low, high, log=param.log, step=param.step)
    return made


def _end(param: Integer) -> int:
    """The last value of the grid, which Optuna wants to end there."""
    return param.high - (param.high - param.low) % param.step


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    """Name and attributes of a distribution."""
    try:
        if text.lstrip().startswith("{"):
            found = json.loads(text)
            return str(found["name"]), dict(found["attributes"])
        call = ast.parse(text.strip(), mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            return call.func.id, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"No distribution can be read of {text[:80]!r}: {error}.") from error
    raise ValueError(f"No distribution can be read of {text[:80]!r}.")


def _real(*, log: bool = False, step: str = "step") -> Callable[[Mapping[str, Any]], Param]:
    def read(attributes: Mapping[str, Any]) -> Param:
        low, high = float(attributes["low"]), float(attributes["high"])
        if low == high:
            return Categorical(choices=(low,))
        grid = attributes.get(step)
        return Float(
            low=low,
            high=high,
            log=log or bool(attributes.get("log")),
            step=None if grid is None else float(grid),
        )

    return read


def _whole(*, log: bool = False) -> Callable[[Mapping[str, Any]], Param]:
    def read(attributes: Mapping[str, Any]) -> Param:
        low, high = int(attributes["low"]), int(attributes["high"])
        if low == high:
            return Categorical(choices=(low,))
        step = int(attributes.get("step") or 1)
        return Integer(low=low, high=high, log=log or bool(attributes.get("log")), step=step)

    return read


def _listed(attributes: Mapping[str, Any]) -> Param:
    return Categorical(choices=in_order([plain_choice(c) for c in attributes["choices"]]))


def plain_choice(choice: object) -> ConfigValue:
    """A choice as it is or, where that is no number, truth or text, as MLflow keeps it."""
    if isinstance(choice, float) and not math.isfinite(choice):
        return str(choice)
    return choice if isinstance(choice, str | int | float | bool) else str(choice)


_READERS: dict[str, Callable[[Mapping[str, Any]], Param]] = {
    "FloatDistribution": _real(),
    "IntDistribution": _whole(),
    "CategoricalDistribution": _listed,
    # Optuna before 3.0 wrote these.
    "UniformDistribution": _real(),
    "LogUniformDistribution": _real(log=True),
    "DiscreteUniformDistribution": _real(step="q"),
    "IntUniformDistribution": _whole(),
    "IntLogUniformDistribution": _whole(log=True),
}
