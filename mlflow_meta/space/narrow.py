"""A part of a search space, as people name it: `model=mlp`, `batch!=64`, `lr=1e-4..1e-2`, `lr<1`.

A comparison is a range or what is outside of one: `lr<=1` is `lr=..1`, and `lr<1` all but `lr=1..`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from mlflow_meta.errors import BadSpace
from mlflow_meta.space.params import Categorical, Param, allows, is_number, same
from mlflow_meta.space.parts import (
    between,
    chosen,
    described,
    hint,
    in_words,
    listed,
    texts,
    without,
)
from mlflow_meta.space.search_space import SearchSpace
from mlflow_meta.trials import ConfigValue

_RELATION = re.compile(r"!=|<=|>=|==|=|<|>")


class Condition(NamedTuple):
    """A condition on one param, such as `lr<0.1`.

    Attributes:
        name: The param.
        relation: `=`, `!=`, `<`, `<=`, `>` or `>=`.
        values: What stands behind it.
    """

    name: str
    relation: str
    values: str

    def __str__(self) -> str:
        return f"{self.name}{self.relation}{self.values}"


def asked(text: str) -> Condition:
    """A condition as people write it: `NAME=VALUES`, `NAME!=VALUES`, or `NAME<NUMBER` and its like.

    Raises:
        ValueError: If it is none.
    """
    found = _RELATION.search(text)
    if found:
        name, values = text[: found.start()].strip(), text[found.end() :].strip()
    if not (found and name and values):
        raise ValueError(
            "A condition is NAME=VALUES, such as model=mlp or lr=1e-4..1e-2, or has !=, <, <=, > "
            f"or >= in place of =, but got {text!r}."
        )
    return Condition(name, found[0].replace("==", "="), values)


def narrowed(space: SearchSpace, where: Sequence[str]) -> SearchSpace:
    """The part of a space in which some conditions hold, each where its param exists.

    Args:
        space: The whole.
        where: Conditions `NAME=VALUES`, or `NAME!=VALUES` for all others. Values are texts or
            numbers with commas between, or a range of numbers `LOW..HIGH`, both ends included, one
            of which may be left out. Or one of `<`, `<=`, `>` and `>=` with a number.

    Returns:
        The part. A param with one value left is a choice of one, a grid with a hole a choice of
        what is left; a param whose own condition can hold no more is gone. `lr<x` ends one unit of
        the sixth digit below x where `lr` is continuous: searches use five.

    Raises:
        BadSpace: If the space has no such param, or nothing of it is left, or a hole in a range
            that can't have one.
        ValueError: If one is no condition.

    Example:
        >>> lr = {"type": "float", "low": 1e-4, "high": 1.0, "log": True}
        >>> narrowed(SearchSpace.from_dict({"lr": lr}), ["lr<=0.01"]).params["lr"].high
        0.01
    """
    params = dict(space.params)
    conditions = [asked(text) for text in where]
    for condition in conditions:
        name = condition.name
        if name not in params:
            raise BadSpace(
                f"The search space has no param {name!r}{hint(name, space.names)}; it has "
                f"{', '.join(space.names)}."
            )
        left = left_of(params[name], condition, space.params[name])
        if left is None:
            raise BadSpace(
                f"Nothing is left of {name} where {condition}: it is {described(params[name])}"
                f"{hint(condition.values, texts(params[name]))}. To go beyond that, edit the file "
                "that `mlflow-meta space` writes, and pass it with --space."
            )
        params[name] = left
    kept = reachable(params)
    for condition in conditions:
        if condition.name not in kept:
            under = in_words(space.params[condition.name].when)
            raise BadSpace(f"Nothing is left of {condition.name}: it exists only where {under}.")
    return space.part(kept)


def left_of(param: Param, condition: Condition, whole: Param) -> Param | None:
    """What is left of a param where a condition holds; None for nothing.

    Args:
        param: What other conditions have left.
        condition: Of this param.
        whole: What it was before any condition.

    Raises:
        BadSpace: If the condition compares what has no order, or excludes what never was there, or
            would leave a hole in a range that can't have one.
    """
    if condition.relation == "=":
        return _inside(param, condition.values)
    if condition.relation == "!=":
        return _outside(param, condition, whole)
    name, number = condition.name, number_or_nan(condition.values)
    if isinstance(whole, Categorical) and not whole.is_ordered:
        raise BadSpace(
            f"{condition} says more or less of {name}, which is {described(whole)}: write {name}="
            f"... or {name}!=..."
        )
    if math.isnan(number):
        raise BadSpace(f"{condition} compares {name} with {condition.values!r}, no number.")
    low, high = (number, math.inf) if condition.relation in ("<", ">=") else (-math.inf, number)
    if condition.relation in ("<", ">"):
        return without(param, low, high, name)
    return between(param, low, high)


def _inside(param: Param, text: str) -> Param | None:
    """The values of `param` that `text` names; None if they are not all there."""
    if isinstance(param, Categorical) and (places := _named(param, text)):
        return chosen(param, [param.choices[i] for i in sorted(places)])
    if ".." in text:
        return between(param, *_ends(text))
    numbers = [number_or_nan(piece) for piece in text.split(",")]
    if isinstance(param, Categorical) or not all(allows(param, number) for number in numbers):
        return None
    near = [param.nearest(number) for number in numbers]
    return listed(param, sorted({value for value in near if is_number(value)}))


def _outside(param: Param, condition: Condition, whole: Param) -> Param | None:
    """The values of `param` that a condition does not name; it must name some of the `whole`."""
    text = condition.values
    if isinstance(whole, Categorical) and (places := _named(whole, text)):
        gone = [whole.choices[i] for i in places]
        return chosen(param, [c for c in param.grid() if not any(same(c, g) for g in gone)])
    ranges = (
        [_ends(text)] if ".." in text else [(n, n) for n in map(number_or_nan, text.split(","))]
    )
    has_range = not isinstance(whole, Categorical) or (whole.is_ordered and ".." in text)
    if not has_range or any(math.isnan(end) for ends in ranges for end in ends):
        raise BadSpace(
            f"{condition} names no value of {condition.name}, which is {described(whole)}"
            f"{hint(text, texts(whole))}."
        )
    left: Param | None = param
    for low, high in ranges:
        left = without(left, low, high, condition.name) if left else None
    return left


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
    return text == str(choice) or (is_number(choice) and number_or_nan(text) == choice)


def _ends(text: str) -> tuple[float, float]:
    """The ends of a range, infinite where left out; nan where it is none."""
    low, _, high = (end.strip() for end in text.partition(".."))
    if not (low or high):
        return math.nan, math.nan
    return number_or_nan(low or "-inf"), number_or_nan(high or "inf")


def number_or_nan(text: str) -> float:
    """A text as a number, nan where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def reachable(params: Mapping[str, Param]) -> dict[str, Param]:
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
