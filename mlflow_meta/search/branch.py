"""Branch and bound: the k best of any surface that has a separable bound, with a certificate.

A node is a set of allowed levels of each parameter. A relaxation gives it a bound from below,

    value(x) >= constant + sum_p theta_p(x_p)    for every x of the node,

whose minimum is found parameter by parameter. Levels that can't be part of a row better than the
k-th best are struck out; the row of the minimum is valued, and if it is good the rows around it,
which is where good rows are found; and the node is split in two by the parameter whose levels
differ most. The node of the lowest bound is next, so that the bound on all that is open rises as
fast as it can. When no open node is below the k-th best, that is the proof.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.best import Best, Weight, all_rows, one
from mlflow_meta.search.relaxed import relaxation_of
from mlflow_meta.search.seen import Seen, descended
from mlflow_meta.search.surface import Box, Incumbent, Surface, n_rows

Vector = NDArray[np.float64]
Places = NDArray[np.int64]
Allowed = NDArray[np.bool_]  # `(n_1 + ... + n_P,)`, the levels of all parameters after each other

N_STARTS = 8  # random rows of a box from which coordinate descent starts
MAX_VALUED = 64  # rows up to which a node is valued whole
MAX_WIDENED = 50_000  # rows around the best that a node values
N_AT_ONCE = 8  # of the best whose neighbours are valued together
STEP_S = 0.1  # about how often the caller gets to see where the search stands
MAX_OPEN_BYTES = 400_000_000  # of open nodes; beyond it the search ends with the bound it has


class Relaxation(Protocol):
    """Bounds nodes of one surface from below."""

    theta: Vector
    """`(n_1 + ... + n_P,)` of the node that was tightened last; its minima sum to the bound."""

    tolerance: float
    """What rounding may do to a bound."""

    floor: float
    """A bound of all rows that takes no work."""

    is_in_order: bool
    """Whether a run of neighbouring levels is bounded better than as many of the lowest `theta`."""

    is_unfinished: bool
    """Whether the last call could be told to go on: with the same node, and the state it gave."""

    def tighten(self, allowed: Allowed, cut: float, state: Any) -> tuple[float, Any]:
        """The bound of a node, after striking out of `allowed` what can't be below `cut`.

        Args:
            allowed: Changed in place; where nothing is left of a parameter, the bound is inf.
            cut: The value to be beaten.
            state: What the parent's call gave, None for a root.

        Returns:
            The bound, and what the children's calls are to be given.
        """
        ...


def branch_and_bound(
    surface: Surface,
    k: int,
    rng: np.random.Generator,
    *,
    boxes: Sequence[Box] | None = None,
    weight: Weight = one,
    cut: float = np.inf,
) -> Iterator[Incumbent]:
    """See `Engine`; of the rows in `boxes`, which must not overlap, those of some weight.

    Where better rows are known elsewhere, only those below `cut` are searched for: there may be
    fewer than `k`.
    """
    boxes = boxes or [tuple(np.arange(size) for size in surface.sizes)]
    used = tuple(np.unique(np.concatenate(levels)) for levels in zip(*boxes, strict=True))

    def weight_used(row: Places) -> int:
        return weight(_taken(used, row[None])[0])

    steps = _steps(
        surface.restricted(used), k, rng,
        [tuple(map(np.searchsorted, used, box)) for box in boxes],
        one if weight is one else weight_used, cut,
    )  # fmt: skip
    for found in steps:
        yield replace(found, rows=_taken(used, found.rows))


def _taken(box: Box, rows: Places) -> Places:
    """The rows of a box `(n, P)` as levels of what it is a box of."""
    return np.stack([levels[i] for levels, i in zip(box, rows.T, strict=True)], axis=1)


def _steps(
    surface: Surface,
    k: int,
    rng: np.random.Generator,
    boxes: Sequence[Box],
    weight: Weight,
    cut: float,
) -> Iterator[Incumbent]:
    """See `branch_and_bound`; every level is in some box."""
    sizes = surface.sizes
    search = _Search(surface, Best(k, len(sizes), weight, cut), n_rows_in(boxes))
    shown_s = time.monotonic()
    for box in boxes:
        seen = Seen(surface.restricted(box), k)
        starts = np.stack([rng.integers(len(levels), size=N_STARTS) for levels in box], axis=1)
        for found in descended(seen, starts, rng):
            if time.monotonic() - shown_s > STEP_S:
                search.take(box, found)
                yield search.incumbent()
                shown_s = time.monotonic()
        search.take(box, seen.best)
    search.open([_mask(sizes, box) for box in boxes])
    yield search.incumbent()
    while search.heap and search.n_bytes < MAX_OPEN_BYTES:
        search.expand()
        if time.monotonic() - shown_s > STEP_S:
            yield search.incumbent()
            shown_s = time.monotonic()
    yield search.incumbent()


def n_rows_in(boxes: Sequence[Box]) -> int:
    """How many rows there are in boxes that do not overlap."""
    return sum(n_rows([len(levels) for levels in box]) for box in boxes)


class _Search:
    """The open nodes, and the best rows by now."""

    def __init__(self, surface: Surface, best: Best, n_rows: int) -> None:
        self.surface, self.best, self.n_rows = surface, best, n_rows
        self.relaxation: Relaxation = relaxation_of(surface)
        self.offsets = np.concatenate([[0], np.cumsum(surface.sizes)])
        self.heap: list[tuple[float, int, Allowed, Any]] = []
        self.is_begun = False
        self.n_valued = 0
        self._widened: set[bytes] = set()
        self._numbers = itertools.count()
        self._open_rows = 0.0

    @property
    def cut(self) -> float:
        """The bound from which a node is of no use: no row of it is below the k-th best."""
        return self.best.cut - self.relaxation.tolerance

    @property
    def n_bytes(self) -> int:
        return len(self.heap) * (int(self.offsets[-1]) + 200)

    def take(self, box: Box, found: Incumbent) -> None:
        """Rows that were found in a box, as levels of the box."""
        self.best.offer(_taken(box, found.rows), found.values)
        self.n_valued += len(found.rows)

    def open(self, nodes: Sequence[Allowed]) -> None:
        self.is_begun = True
        for allowed in nodes:
            self._push(self.relaxation.floor, allowed, None)

    def incumbent(self) -> Incumbent:
        if not self.is_begun:
            rest = min(self.relaxation.floor - self.relaxation.tolerance, self.best.cut)
            return self.best.incumbent(rest, self.n_valued)
        lowest = self.heap[0][0] - self.relaxation.tolerance if self.heap else np.inf
        complete = len(self.best.values) == self.n_rows
        rest = np.inf if complete else min(lowest, self.best.cut)
        n_open = min(int(self._open_rows), self.n_rows) if self.heap else 0
        return self.best.incumbent(rest, max(self.n_rows - n_open, min(self.n_valued, self.n_rows)))

    def expand(self) -> None:
        lower, _, allowed, state = heapq.heappop(self.heap)
        self._open_rows -= self._count(allowed)
        if lower >= self.cut:
            self.heap.clear()  # it was the lowest of them all
            return
        if state is None:
            self._widen(allowed)
        bound, state = self.relaxation.tighten(allowed, self.cut, state)
        if max(bound, lower) >= self.cut:
            return
        theta = np.where(allowed, self.relaxation.theta, np.inf)
        box = [np.flatnonzero(allowed[a:b]) for a, b in itertools.pairwise(self.offsets)]
        n = n_rows([len(levels) for levels in box])
        if n <= MAX_VALUED:
            self._value(all_rows(tuple(box)))
            return
        low = [int(np.argmin(theta[a:b])) for a, b in itertools.pairwise(self.offsets)]
        if self._value(np.array([low])):
            self._widen(allowed)
        if self.relaxation.is_unfinished:
            self._push(max(bound, lower), allowed, state)
            return
        self._split(allowed, theta, lower, bound, state, box)

    def _split(
        self,
        allowed: Allowed,
        theta: Vector,
        parents: float,
        bound: float,
        state: Any,
        box: Sequence[Places],
    ) -> None:
        """In two: halves of one parameter's levels, the better and the worse, or in their order.

        A half is bounded by what bounded its parents, and by `theta` with its own `bound`.
        """
        parts = [theta[self.offsets[p] + levels] for p, levels in enumerate(box)]
        regrets = [float((t - t.min()).mean()) if len(t) > 1 else -1.0 for t in parts]
        p = int(np.argmax(regrets))
        if regrets[p] <= 0:
            p = int(np.argmax([len(t) for t in parts]))
        order = np.argsort(parts[p], kind="stable")
        if self.relaxation.is_in_order:
            order = np.arange(len(order))
        half = len(order) // 2
        for side in (order[:half], order[half:]):
            child = allowed.copy()
            child[self.offsets[p] : self.offsets[p + 1]] = False
            child[self.offsets[p] + box[p][side]] = True
            lower = max(parents, bound + float(parts[p][side].min() - parts[p].min()))
            if lower < self.cut:
                self._push(lower, child, state)

    def _push(self, lower: float, allowed: Allowed, state: Any) -> None:
        self._open_rows += self._count(allowed)
        heapq.heappush(self.heap, (lower, next(self._numbers), allowed, state))

    def _value(self, rows: Places) -> bool:
        """Whether any is one of the best."""
        values, cut = self.surface.values(rows), self.best.cut
        self.n_valued += len(rows)
        self.best.offer(rows, values)
        return bool(values.min() < cut)

    def _widen(self, allowed: Allowed) -> None:
        """Values the neighbours within a node of the best rows there, and theirs, best first."""
        starts = self.offsets[:-1]
        level = np.flatnonzero(allowed)
        param = np.searchsorted(self.offsets, level, side="right") - 1
        limit = self.n_valued + MAX_WIDENED
        while self.n_valued < limit:
            rows = self.best.rows
            inside = rows[allowed[starts + rows].all(axis=1)]
            fresh = [row for row in inside if row.tobytes() not in self._widened][:N_AT_ONCE]
            if not fresh:
                return
            self._widened.update(row.tobytes() for row in fresh)
            near = np.repeat(np.stack(fresh), len(level), axis=0)
            near[np.arange(len(near)), np.tile(param, len(fresh))] = np.tile(
                level - starts[param], len(fresh)
            )
            self._value(near)

    def _count(self, allowed: Allowed) -> float:
        return float(np.prod(np.add.reduceat(allowed, self.offsets[:-1], dtype=float)))


def _mask(sizes: Sequence[int], box: Box) -> Allowed:
    parts = []
    for size, levels in zip(sizes, box, strict=True):
        part = np.zeros(size, dtype=bool)
        part[levels] = True
        parts.append(part)
    return np.concatenate(parts)
