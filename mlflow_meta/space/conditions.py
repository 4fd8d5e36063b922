"""Which params exist together, and under which values of which others, mined from a history.

A condition is a conjunction: the param exists where each of its parents has one of some values. The
rule that explains every run is taken; where there is none, because some runs have logged what they
did not use or have crashed before they logged what they did, one that explains nearly all.

rows:   the runs that may tell of a param: those that finished, of tasks where it is ever set
s:      `(n,)` whether it is set in a row
inside: `(n,)` whether the rule says that it is
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.space.params import Categorical, Integer, Param, When, same
from mlflow_meta.space.parts import in_words
from mlflow_meta.trials import ConfigValue

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]
Telling = Callable[[Counts, Counts], Mask]  # of runs that set the param, and of all, by value

MAX_PARENTS = 4  # of one param
MAX_VALUES = 20  # of a number that decides what exists, such as that of layers
ODD = 0.05  # share of runs that may be odd: that log what does not exist, or lack what does
MAX_OUTSIDE = 0.25  # of the runs that set a param, those that may do so where it does not exist
MIN_TO_ERR = 8  # runs from which one of them may be odd, whatever the share
MAX_CHANCE = 0.01  # that a rule is one of those which must be found in so many by chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A condition, and what speaks for it.

    Attributes:
        when: The condition.
        n_inside: Runs in which it holds.
        n_set_inside: Those of them that set the param.
        n_outside: Runs in which it does not.
        n_set_outside: Those of them that set the param anyway.
    """

    when: When
    n_inside: int
    n_set_inside: int
    n_outside: int
    n_set_outside: int

    @property
    def sentence(self) -> str:
        """The condition and its evidence, in words."""
        return (
            f"exists only where {in_words(self.when)}: set in {self.n_set_inside} of "
            f"{self.n_inside} runs there, and in {self.n_set_outside} of {self.n_outside} others"
        )


@dataclass(frozen=True, slots=True)
class _Parent:
    """A param that may decide whether others exist.

    Attributes:
        name: Its name.
        values: What it may be, in order.
        codes: `(N,)` the place of each run's value; -1 where it is not set.
        is_ordered: Whether only more, or only less, than some number makes a condition.
    """

    name: str
    values: tuple[ConfigValue, ...]
    codes: NDArray[np.int64]
    is_ordered: bool


class History:
    """What the runs have set, as it is asked again and again."""

    def __init__(
        self,
        found: Mapping[str, Param],
        columns: Mapping[str, pd.Series],
        tasks: pd.Series,
        is_finished: Mask,
    ) -> None:
        """Of the params `found`, whose `columns` are of one length.

        Args:
            found: The params that vary.
            columns: Their values, missing where unset.
            tasks: Which task each run is of.
            is_finished: `(N,)` runs that have come to their end, and so have logged all.
        """
        self._is_finished = is_finished
        self._tasks = pd.factorize(tasks)[0]
        self._n_set = {n: int((columns[n].notna() & is_finished).sum()) for n in found}
        self._parents = [p for name in found if (p := _parent(name, found[name], columns[name]))]

    def rule(self, name: str, is_set: Mask) -> Rule | None:
        """The condition under which a param exists that is set in the runs `is_set (N,)`."""
        n_set = int((is_set & self._is_finished).sum())
        sure = self._is_finished if n_set else np.ones_like(is_set)
        rows = np.flatnonzero(sure & np.isin(self._tasks, self._tasks[is_set]))
        s = is_set[rows]
        if s.all():
            return None
        # More runs set a parent than set its child: so conditions never go round in a circle.
        parents = [
            _Parent(p.name, p.values, p.codes[rows], p.is_ordered)
            for p in self._parents
            if p.name != name and self._n_set[p.name] > n_set
        ]
        for telling in (_any, _most, _some):
            allowed = [(p, a) for p in parents if (a := _allowed(p, s, telling)) is not None]
            rule = _conjunction(allowed, s, may_err=telling is not _any)
            if rule is not None:
                return rule
        return None


def _parent(name: str, param: Param, column: pd.Series) -> _Parent | None:
    if isinstance(param, Categorical):
        values = param.choices
    elif isinstance(param, Integer) and param.n_values <= MAX_VALUES:
        values = tuple(param.grid())
    else:
        return None
    codes, distinct = pd.factorize(column)
    plain = [v.item() if isinstance(v, np.generic) else v for v in distinct]
    places = [next((j for j, v in enumerate(values) if same(v, one)), -1) for one in plain]
    codes = np.array([*places, -1], dtype=np.int64)[codes]  # the last for what is missing
    return _Parent(name, values, codes, is_ordered=not isinstance(param, Categorical))


def _any(n_set: Counts, n: Counts) -> Mask:
    """Values under which the param is set, be it once."""
    return (n_set > 0) & (n > 0)


def _most(n_set: Counts, n: Counts) -> Mask:
    """Values under which the param is usually set."""
    return 2 * n_set > n


def _some(n_set: Counts, n: Counts) -> Mask:
    """Values under which the param is set more often than runs are odd."""
    return np.asarray(n_set > np.maximum(ODD * n, n >= MIN_TO_ERR))


def _allowed(parent: _Parent, s: Mask, telling: Telling) -> Mask | None:
    """The values `(k,)` of a parent under which the param exists; None for no condition."""
    k = len(parent.values)
    known = parent.codes >= 0
    n = np.bincount(parent.codes[known], minlength=k)
    n_set = np.bincount(parent.codes[known & s], minlength=k)
    allowed = telling(n_set, n)
    seen = n > 0
    if not allowed.any() or allowed[seen].all():
        return None
    if not parent.is_ordered:
        return allowed
    places, others = np.flatnonzero(allowed), np.flatnonzero(seen & ~allowed)
    if places[0] > others[-1]:  # from some number on
        return np.asarray(np.arange(k) > others[-1])
    return np.asarray(np.arange(k) < others[0]) if places[-1] < others[0] else None


def _conjunction(allowed: Sequence[tuple[_Parent, Mask]], s: Mask, *, may_err: bool) -> Rule | None:
    """The shortest conjunction that is found greedily, and is no work of chance."""
    holds = {p.name: _where(p, a) for p, a in allowed}
    lacks = {p.name: int((p.codes < 0).sum()) for p, _ in allowed}
    chosen: list[str] = []
    inside = np.ones(len(s), dtype=bool)
    while not _is_clean(~s[inside], may_err=may_err):
        gains = {name: int((inside & ~where & ~s).sum()) for name, where in holds.items()}
        best = max(gains, key=lambda name: (gains[name], -lacks[name]), default=None)
        if best is None or not gains[best] or len(chosen) == MAX_PARENTS:
            return None
        chosen.append(best)
        inside &= holds[best]
    for name in list(chosen):
        rest = [holds[other] for other in chosen if other != name]
        wider = np.logical_and.reduce(rest) if rest else np.ones_like(inside)
        if _is_clean(~s[wider], may_err=may_err):
            chosen.remove(name)
            inside = wider
    if not chosen or not inside.any() or not _is_clean(s[~inside], may_err=may_err):
        return None
    if s[~inside].sum() > MAX_OUTSIDE * s.sum():
        return None
    taken = [(p, a) for p, a in allowed if p.name in chosen]
    if not _is_told(taken, inside, s, n_parents=len(allowed)):
        return None
    return Rule(
        when={p.name: tuple(p.values[i] for i in np.flatnonzero(a)) for p, a in taken},
        n_inside=int(inside.sum()),
        n_set_inside=int(s[inside].sum()),
        n_outside=int((~inside).sum()),
        n_set_outside=int(s[~inside].sum()),
    )


def _where(parent: _Parent, allowed: Mask) -> Mask:
    """The rows in which a parent has one of the values."""
    return np.asarray(np.where(parent.codes >= 0, allowed[parent.codes], False))


def _is_clean(odd: Mask, *, may_err: bool) -> bool:
    """Whether of some rows `(n,)` none is odd, or so few that they may err."""
    n_odd = int(odd.sum())
    return n_odd <= may_err * max(ODD * len(odd), float(len(odd) >= MIN_TO_ERR))


def _is_told(
    taken: Sequence[tuple[_Parent, Mask]], inside: Mask, s: Mask, *, n_parents: int
) -> bool:
    """Whether a rule is surely not one that only fits by chance.

    One choice that decides is what programs have, and is believed. Of several, or of a number, many
    more rules are thinkable: that one of all these fits so well must be unlikely, were the param
    set in as many runs at random (Fisher's exact test, Bonferroni's correction).
    """
    if len(taken) == 1 and not taken[0][0].is_ordered:
        return True
    from scipy.stats import hypergeom  # slow to import, and of no use to a fitted model

    n_rules = math.log(math.comb(n_parents, len(taken)))
    n_rules += sum(
        math.log(2 * len(p.values)) if p.is_ordered else len(p.values) * math.log(2)
        for p, _ in taken
    )
    chance = hypergeom.logsf(int(s[inside].sum()) - 1, len(s), int(s.sum()), int(inside.sum()))
    return bool(chance + n_rules <= math.log(MAX_CHANCE))


def unexplained(is_set: Mask, tasks: pd.Series) -> str:
    """What is to be said of a param without a condition that not every run of its tasks sets."""
    concerned = tasks.isin(tasks[is_set].unique()).to_numpy()
    if is_set[concerned].all():
        return ""
    return (
        f"is set in {is_set.sum()} of {concerned.sum()} runs, and no other param tells in which: "
        "it is searched as if it always existed"
    )
