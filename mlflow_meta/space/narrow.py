"""A part of a search space, as people name it: `model=mlp`, `batch=32,64`, `lr=1e-4..1e-2`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

from mlflow_meta.errors import BadSpace
from mlflow_meta.space.params import Categorical, Float, Integer, Param, allows, is_number
from mlflow_meta.space.search_space import SearchSpace
from mlflow_meta.trials import ConfigValue

_ROUNDING = 1e-9  # of a step, by which a number may miss the grid


def asked(condition: str) -> tuple[str, str]:
    """The param and the values of a condition `NAME=VALUES`.

    Raises:
        ValueError: If it is none.
    """
    name, _, values = (part.strip() for part in condition.partition("="))
    if not (name and values):
        raise ValueError(
            f"A condition is NAME=VALUES, such as model=mlp or lr=1e-4..1e-2, but got "
            f"{condition!r}."
        )
    return name, values


def narrowed(space: SearchSpace, where: Sequence[str]) -> SearchSpace:
    """The part of a space in which some conditions hold, each where its param exists.

    Args:
        space: The whole.
        where: Conditions `NAME=VALUES`. Values are texts or numbers with commas between, or a range
            of numbers `LOW..HIGH`, both ends included, one of which may be left out.

    Returns:
        The part. A param with one value left is a choice of one; a param whose own condition can
        hold no more is gone.

    Raises:
        BadSpace: If the space has no such param, or nothing of it is left.
        ValueError: If one is not `NAME=VALUES`.

    Example:
        >>> lr = {"type": "float", "low": 1e-4, "high": 1.0, "log": True}
        >>> narrowed(SearchSpace.from_dict({"lr": lr}), ["lr=..0.01"]).params["lr"].high
        0.01
    """
    params = dict(space.params)
    conditions: dict[str, str] = {}
    for condition in where:
        name, values = asked(condition)
        if name not in params:
            raise BadSpace(
                f"The search space has no param {name!r}{_hint(name, space.names)}; it has "
                f"{', '.join(space.names)}."
            )
        left = _part(params[name], values)
        if left is None:
            raise BadSpace(
                f"Nothing is left of {name} where {condition}: it is {_described(params[name])}"
                f"{_hint(values, _texts(params[name]))}. To go beyond that, edit the file that "
                "`mlflow-meta space` writes, and pass it with --space."
            )
        params[name], conditions[name] = left, condition
    kept = _reachable(params)
    for name in conditions.keys() - kept.keys():
        under = " and ".join(
            f"{parent} is {' or '.join(str(value) for value in values)}"
            for parent, values in space.params[name].when.items()
        )
        raise BadSpace(f"Nothing is left of {name}: it exists only where {under}.")
    return SearchSpace(kept)


def _part(param: Param, text: str) -> Param | None:
    """The values of `param` that `text` names; None if they are not all there."""
    if isinstance(param, Categorical):
        places = _named(param, text)
        if not places and param.is_ordered and ".." in text:
            low, high = _ends(text)
            places = {i for i, n in enumerate(param.choices) if low <= float(n) <= high}
        choices = tuple(param.choices[i] for i in sorted(places))
        return replace(param, choices=choices) if choices else None
    if ".." in text:
        return _between(param, *_ends(text))
    numbers = [_number(piece) for piece in text.split(",")]
    if not all(allows(param, number) for number in numbers):
        return None
    near = [param.nearest(number) for number in numbers]
    return _listed(param, sorted({value for value in near if is_number(value)}))


def _named(param: Categorical, text: str) -> set[int]:
    """Places of the choices that `text` lists; none if one is no choice of `param`."""
    pieces, places = text.split(","), set()
    while pieces:
        for n in range(len(pieces), 0, -1):  # a choice may have commas itself
            found = [
                i
                for i, choice in enumerate(param.choices)
                if _means(",".join(pieces[:n]).strip(), choice)
            ]
            if found:
                break
        else:
            return set()
        places.update(found)
        pieces = pieces[n:]
    return places


def _means(text: str, choice: ConfigValue) -> bool:
    if isinstance(choice, bool):
        return text in (str(choice), str(choice).lower())
    return text == str(choice) or (is_number(choice) and _number(text) == choice)


def _ends(text: str) -> tuple[float, float]:
    """The ends of a range, infinite where left out; nan where it is none."""
    low, _, high = (end.strip() for end in text.partition(".."))
    if not (low or high):
        return math.nan, math.nan
    return _number(low or "-inf"), _number(high or "inf")


def _number(text: str) -> float:
    """A text as a number, nan where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _between(param: Float | Integer, low: float, high: float) -> Param | None:
    if math.isnan(low) or math.isnan(high):
        return None
    low, high = max(low, param.low), min(high, param.high)
    if low > high:
        return None
    if isinstance(param, Float) and param.step is None:
        return replace(param, low=low, high=high) if low < high else _listed(param, [low])
    step = param.step or 1
    first = math.ceil((low - param.low) / step - _ROUNDING)
    last = math.floor((high - param.low) / step + _ROUNDING)
    if first > last:
        return None
    near = [param.nearest(param.low + i * step) for i in sorted({first, last})]
    ends = [end for end in near if is_number(end)]
    if last - first < 2:  # too few for a grid
        return _listed(param, ends)
    if isinstance(param, Integer):
        return replace(param, low=int(ends[0]), high=int(ends[1]))
    return replace(param, low=ends[0], high=ends[1])


def _listed(param: Float | Integer, numbers: Sequence[float]) -> Categorical:
    return Categorical(choices=tuple(numbers), log=param.log, when=param.when)


def _reachable(params: Mapping[str, Param]) -> dict[str, Param]:
    """Less those whose condition can't hold; the others' conditions name what is left."""
    kept: dict[str, Param] = {}
    for name, param in params.items():
        when = {
            parent: tuple(v for v in values if parent in kept and allows(kept[parent], v))
            for parent, values in param.when.items()
        }
        if all(when.values()):
            kept[name] = replace(param, when=when)
    return kept


def _described(param: Param) -> str:
    if isinstance(param, Categorical):
        return f"one of {', '.join(_texts(param))}"
    kind = "a whole number" if isinstance(param, Integer) else "a number"
    steps = f" in steps of {param.step:g}" if param.step not in (None, 1) else ""
    return f"{kind} from {param.low:g} to {param.high:g}{steps}"


def _texts(param: Param) -> list[str]:
    return [str(choice) for choice in param.choices] if isinstance(param, Categorical) else []


def _hint(text: str, known: Sequence[str]) -> str:
    near = get_close_matches(text, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near and near[0] != text else ""
