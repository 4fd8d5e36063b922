"""Parts of a param: numbers between two ends, numbers outside of them, some choices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches

from mlflow_meta.errors import BadSpace
from mlflow_meta.space.params import Categorical, Float, Integer, Param, When, is_number
from mlflow_meta.trials import ConfigValue

MAX_LISTED = 1000  # numbers of a grid that may be left around a hole, since each becomes a choice
_ROUNDING = 1e-9  # of a step, by which a number may miss the grid


def between(param: Param, low: float, high: float) -> Param | None:
    """The numbers from `low` to `high`, both included; None for nothing, or where one is nan."""
    if math.isnan(low) or math.isnan(high):
        return None
    if isinstance(param, Categorical):
        numbers = param.choices if param.is_ordered else ()
        return chosen(param, [n for n in numbers if is_number(n) and low <= n <= high])
    low, high = max(low, param.low), min(high, param.high)
    if low > high:
        return None
    if isinstance(param, Float) and param.step is None:
        return replace(param, low=low, high=high) if low < high else listed(param, [low])
    return _on_grid(param, *_span(param, low, high))


def without(param: Param, low: float, high: float, name: str) -> Param | None:
    """A param without the numbers from `low` to `high`, both included; None for nothing.

    Raises:
        BadSpace: If that is a hole in a range that can't have one; says so of the param `name`.
    """
    if isinstance(param, Categorical):
        kept = [c for c in param.choices if not (is_number(c) and low <= c <= high)]
        return chosen(param, kept)
    if low > high or high < param.low or low > param.high:
        return param
    if isinstance(param, Float) and param.step is None:
        return _cut(param, low, high, name)
    first, last = _span(param, low, high)
    n = int(param.n_values)
    if first > last:
        return param
    if first == 0:
        return _on_grid(param, last + 1, n - 1)
    if last == n - 1:
        return _on_grid(param, 0, first - 1)
    if n - (last - first + 1) > MAX_LISTED:
        raise _hole(param, low, high, name)
    return _numbers(param, [*range(first), *range(last + 1, n)])


def _cut(param: Float, low: float, high: float, name: str) -> Param | None:
    """What is left of a continuum beside the numbers from `low` to `high`."""
    if low > param.low and high < param.high:
        raise _hole(param, low, high, name)
    if low > param.low:
        return between(param, param.low, max(param.low, _next_to(low, param, -1)))
    if high < param.high:
        return between(param, min(param.high, _next_to(high, param, 1)), param.high)
    return None


def _hole(param: Float | Integer, low: float, high: float, name: str) -> BadSpace:
    return BadSpace(
        f"{name} is {described(param)}, which can't have a hole at {low:g}"
        f"{f'..{high:g}' if high > low else ''}: write {name}<{low:g} or {name}>{high:g}."
    )


def _next_to(end: float, param: Float, side: int) -> float:
    """The number beside `end`, 1 unit of the sixth digit off: `from_unit` gives five."""
    if param.log and param.high > 10 * param.low:
        digit = math.floor(math.log10(end))
    else:
        digit = math.ceil(math.log10(param.high - param.low))
    near = float(f"{end + side * 10.0 ** (digit - 6):.12g}")
    return near if side * (near - end) > 0 else math.nextafter(end, side * math.inf)


def _span(param: Float | Integer, low: float, high: float) -> tuple[int, int]:
    """Places of the first and the last number of a grid from `low` to `high`, which it meets."""
    step = param.step or 1
    low, high = max(low, param.low), min(high, param.high)
    first = math.ceil((low - param.low) / step - _ROUNDING)
    last = math.floor((high - param.low) / step + _ROUNDING)
    return first, min(last, int(param.n_values) - 1)


def _on_grid(param: Float | Integer, first: int, last: int) -> Param | None:
    """The part of a grid between two places, both included; None for nothing."""
    if first > last:
        return None
    if last - first < 2:  # too few for a grid
        return _numbers(param, range(first, last + 1))
    low, high = _numbers(param, [first, last]).choices
    if isinstance(param, Integer):
        return replace(param, low=int(low), high=int(high))
    return replace(param, low=float(low), high=float(high))


def _numbers(param: Float | Integer, places: Iterable[int]) -> Categorical:
    """The numbers at some places of a grid, as choices."""
    near = [param.nearest(param.low + i * (param.step or 1)) for i in places]
    return listed(param, [number for number in near if is_number(number)])


def chosen(param: Param, choices: Sequence[ConfigValue]) -> Categorical | None:
    """Some of the choices of a categorical param; None for nothing."""
    assert isinstance(param, Categorical)
    return replace(param, choices=tuple(choices)) if choices else None


def listed(param: Float | Integer, numbers: Sequence[float]) -> Categorical:
    """Some of its numbers, in ascending order, as choices."""
    return Categorical(choices=tuple(numbers), log=param.log, when=param.when)


def described(param: Param) -> str:
    """What a param may be, in words."""
    if isinstance(param, Categorical):
        return f"one of {', '.join(texts(param))}"
    kind = "a whole number" if isinstance(param, Integer) else "a number"
    steps = f" in steps of {param.step:g}" if param.step not in (None, 1) else ""
    return f"{kind} from {param.low:g} to {param.high:g}{steps}"


def in_words(when: When) -> str:
    """The condition under which a param exists, in words."""
    return " and ".join(
        f"{parent} is {' or '.join(str(value) for value in values)}"
        for parent, values in when.items()
    )


def has_grid(param: Float | Integer) -> bool:
    """Whether it takes not every number of its kind between its ends."""
    return param.step != (1 if isinstance(param, Integer) else None)


def texts(param: Param) -> list[str]:
    """The choices as texts; none where it has no list of them."""
    return [str(choice) for choice in param.choices] if isinstance(param, Categorical) else []


def wrong_space(wrong: Sequence[str]) -> BadSpace:
    """The error of a space of which all this is wrong; tells the first five."""
    more = f" (+{len(wrong) - 5} more)" if len(wrong) > 5 else ""
    return BadSpace("In the search space, " + "; ".join(wrong[:5]) + more)


def hint(text: str, known: Sequence[str], *, likeness: float = 0.5) -> str:
    """What was meant, where one of `known` is near (0: all are, 1: only itself); or nothing."""
    near = get_close_matches(text, known, n=1, cutoff=likeness)
    return f" (did you mean {near[0]}?)" if near and near[0] != text else ""
