"""A meta-model over the levels of a space: what the engines search.

P:      parameters
n_p:    levels of parameter p
row:    `(P,)` one level of every parameter: a configuration
value:  what the model predicts for it, to be minimised

A surface is defined on all rows, `n_1 * ... * n_P` of them; `restricted` gives the part over a box.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Places = NDArray[np.int64]
CHUNK_ROWS = 512

Box = tuple[Places, ...]  # the levels that are allowed, of each parameter


class Surface(Protocol):
    """Values of all rows, given by a formula."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """`n_p`, of each parameter."""
        ...

    def values(self, rows: Places) -> Vector:
        """Values `(n,)` of `rows (n, P)`."""
        ...

    def restricted(self, box: Box) -> Surface:
        """The surface over a box: its level i of p is level `box[p][i]` of this one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditiveSurface:
    """value(x) = constant + sum_p table_p[x_p].

    Attributes:
        constant: What is there without any parameter.
        tables: `(n_p,)` of each parameter.
    """

    constant: float
    tables: tuple[Vector, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """See `Surface`."""
        return tuple(len(table) for table in self.tables)

    def values(self, rows: Places) -> Vector:
        """See `Surface`."""
        found = np.full(len(rows), self.constant)
        for p, table in enumerate(self.tables):
            found += table[rows[:, p]]
        return found

    def restricted(self, box: Box) -> AdditiveSurface:
        """See `Surface`."""
        tables = tuple(table[levels] for table, levels in zip(self.tables, box, strict=True))
        return AdditiveSurface(constant=self.constant, tables=tables)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReluSurface:
    """value(x) = constant + sum_h out_h max(bias_h + sum_p table_p[x_p, h], 0).

    Attributes:
        constant: What is there without any unit.
        tables: `(n_p, h)` of each parameter.
        bias: `(h,)`.
        out: `(h,)`.
    """

    constant: float
    tables: tuple[Matrix, ...]
    bias: Vector
    out: Vector

    @property
    def sizes(self) -> tuple[int, ...]:
        """See `Surface`."""
        return tuple(len(table) for table in self.tables)

    def values(self, rows: Places) -> Vector:
        """See `Surface`."""
        found = np.full(len(rows), self.constant)
        for chunk in _chunks(len(rows)):
            hidden = np.tile(self.bias, (len(rows[chunk]), 1))
            for p, table in enumerate(self.tables):
                hidden += table[rows[chunk, p]]
            # Not by BLAS: the last digit of a row would hang on the rows beside it.
            found[chunk] += np.einsum("nh,h->n", np.maximum(hidden, 0.0, out=hidden), self.out)
        return found

    def restricted(self, box: Box) -> ReluSurface:
        """See `Surface`."""
        tables = tuple(table[levels] for table, levels in zip(self.tables, box, strict=True))
        return ReluSurface(constant=self.constant, tables=tables, bias=self.bias, out=self.out)


@dataclass(frozen=True, kw_only=True)  # no slots: `_walked` is kept
class TreeSurface:
    """value(x) = constant + sum of the leaves, one of each tree, that x falls into.

    m nodes of all trees together. In a node that is no leaf, x goes left where
    `goes_left[node, x[param[node]]]`.

    Attributes:
        sizes: `n_p`, of each parameter.
        constant: What is there without any tree.
        roots: `(t,)` the first node of every tree.
        param: `(m,)`; -1 in a leaf.
        goes_left: `(m, max n_p)`; false beyond the levels of the node's parameter.
        left: `(m,)` the next node; of a leaf the leaf itself.
        right: `(m,)`, likewise.
        value: `(m,)` what a leaf adds.
    """

    sizes: tuple[int, ...]
    constant: float
    roots: Places
    param: Places
    goes_left: NDArray[np.bool_]
    left: Places
    right: Places
    value: Vector

    def values(self, rows: Places) -> Vector:
        """See `Surface`."""
        from mlflow_meta.search.values import leaves  # a heavy import, for trees alone

        if np.any(rows < 0) or np.any(rows >= self.sizes):
            raise IndexError(f"A level lies outside of the sizes {self.sizes}.")
        found = np.full(len(rows), self.constant)
        for chunk in _chunks(len(rows)):
            levels = np.ascontiguousarray(rows[chunk].T, dtype=np.uint64)
            found[chunk] += leaves(*(levels, *self._walked)).sum(axis=1)
        return found

    @cached_property
    def _walked(self) -> tuple[Any, ...]:
        """What `values.leaves` takes, once for all rows."""
        return (
            self.roots.astype(np.uint64),
            np.maximum(self.param, 0).astype(np.uint64),
            self.goes_left.view(np.uint8),
            np.stack([self.right, self.left], axis=1).astype(np.uint64),
            self.value,
        )

    def restricted(self, box: Box) -> TreeSurface:
        """See `Surface`."""
        sizes = tuple(len(levels) for levels in box)
        goes_left = np.zeros((len(self.param), max(sizes)), dtype=bool)
        for p, levels in enumerate(box):
            nodes = np.flatnonzero(self.param == p)
            goes_left[nodes, : len(levels)] = self.goes_left[np.ix_(nodes, levels)]
        return TreeSurface(
            sizes=sizes,
            constant=self.constant,
            roots=self.roots,
            param=self.param,
            goes_left=goes_left,
            left=self.left,
            right=self.right,
            value=self.value,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Incumbent:
    """The best that an engine has found by now, and what it knows of the rest.

    Attributes:
        rows: `(n, P)`, all different.
        values: `(n,)` theirs, rising.
        rest: No row that is not among `rows` has a value below it; inf where there is no other,
            -inf where nothing is known.
        n_assessed: Rows that are accounted for by now: valued one by one, or ruled out together.
    """

    rows: Places
    values: Vector
    rest: float
    n_assessed: int

    @property
    def gap(self) -> float:
        """By how much the worst of `rows` may be beaten by another at most; 0 is a proof."""
        if not len(self.values):
            return 0.0 if self.rest == math.inf else math.inf
        return max(float(self.values[-1]) - self.rest, 0.0)


class Engine(Protocol):
    """Searches a surface for its `k` rows of lowest value.

    A generator: every step is an `Incumbent` no worse than the one before. It yields at least every
    tenth of a second or so, so that the caller can hold the clock, and ends when the gap is 0 or
    nothing more can be found out.
    """

    def __call__(self, surface: Surface, k: int, rng: np.random.Generator) -> Iterator[Incumbent]:
        """Search."""
        ...


def _chunks(n: int) -> Iterator[slice]:
    """Consecutive parts of `n` rows whose trees or units stay in a processor's cache."""
    return (slice(first, first + CHUNK_ROWS) for first in range(0, n, CHUNK_ROWS))


def n_rows(sizes: Sequence[int]) -> int:
    """How many rows there are, as an exact integer."""
    return math.prod(int(size) for size in sizes)
