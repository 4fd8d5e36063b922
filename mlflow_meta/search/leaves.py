"""Trees as boxes of levels, and what is left of them once some parameters are known.

l:      levels of all parameters together, parameter by parameter
L:      leaves that a row can fall into
piece:  at most 64 leaves of one tree that are beside one another, as the bits of a word
state:  a word: those leaves of a piece that the levels of some parameters allow
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.surface import Places, TreeSurface, Vector
from mlflow_meta.search.walk import Split

Words = NDArray[np.uint64]
Mask = NDArray[np.bool_]

PER_WORD = 64
PER_LEAF = 4  # states that a piece may end in for each of its leaves; of more, it is cut in two


@dataclass(frozen=True, slots=True)
class Leaves:
    """The leaves of all trees, tree by tree, from the left to the right.

    Attributes:
        tree: `(L,)`.
        value: `(L,)`.
        allowed: `(L, l)` the levels that lead there.
    """

    tree: Places
    value: Vector
    allowed: Mask


@dataclass(frozen=True, slots=True)
class Piece:
    """How the prefix decides between the leaves from `first` on, and the suffix thereafter.

    Attributes:
        first: The leaf of bit 0.
        following: Of each prefix parameter, `(states before it, n_p)`: the state after it.
        states: `(r,)` after the last one.
        suffix: `(n,)` the leaves that each suffix allows.
    """

    first: int
    following: Sequence[Places]
    states: Words
    suffix: Words

    def leaf(self) -> Places:
        """`(r, n)` the one leaf that state and suffix allow; -1 for none of the piece."""
        allowed = (self.states[:, None] & self.suffix).astype(np.float64)  # a power of 2, or 0
        bit = np.frexp(allowed)[1].astype(np.int64) - 1
        return np.where(bit < 0, -1, bit + self.first)


def leaves_of(surface: TreeSurface) -> Leaves:
    """All leaves, by going down all trees at once."""
    of_level = np.repeat(np.arange(len(surface.sizes)), surface.sizes)
    starts = np.cumsum([0, *surface.sizes[:-1]])
    level = np.arange(len(of_level)) - starts[of_level]
    node, tree = surface.roots, np.arange(len(surface.roots))
    key, width = np.zeros(len(node)), 1.0
    allowed = np.ones((len(node), len(of_level)), dtype=bool)
    found = []
    while len(node):
        ends = surface.param[node] < 0
        found.append((tree[ends], key[ends], surface.value[node[ends]], allowed[ends]))
        node, tree, key, allowed = node[~ends], tree[~ends], key[~ends], allowed[~ends]
        other = surface.param[node][:, None] != of_level
        left = surface.goes_left[node[:, None], level]
        width /= 2.0
        node = np.concatenate([surface.left[node], surface.right[node]])
        tree, key = np.tile(tree, 2), np.concatenate([key, key + width])
        allowed = np.concatenate([allowed & (other | left), allowed & (other | ~left)])
        alive = np.logical_or.reduceat(allowed, starts, axis=1).all(axis=1)
        node, tree, key, allowed = node[alive], tree[alive], key[alive], allowed[alive]
    tree, key, value, allowed = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort([key, tree])
    return Leaves(tree=tree[order], value=value[order], allowed=allowed[order])


def pieces_of(leaves: Leaves, sizes: Sequence[int], split: Split) -> list[Piece]:
    """All leaves in pieces that have few states for a prefix."""
    edges = np.flatnonzero(np.diff(leaves.tree, prepend=-1, append=-1)).tolist()
    found = []
    for first, last in itertools.pairwise(edges):
        found += list(_cut(leaves, sizes, split, first, last))
    return found


def _cut(
    leaves: Leaves, sizes: Sequence[int], split: Split, first: int, last: int
) -> Iterator[Piece]:
    n = last - first
    if n <= PER_WORD:
        piece = _piece(leaves, sizes, split, first, last)
        if n == 1 or len(piece.states) <= PER_LEAF * n:
            yield piece
            return
    yield from _cut(leaves, sizes, split, first, first + n // 2)
    yield from _cut(leaves, sizes, split, first + n // 2, last)


def _piece(leaves: Leaves, sizes: Sequence[int], split: Split, first: int, last: int) -> Piece:
    bits = np.left_shift(np.uint64(1), np.arange(last - first, dtype=np.uint64))
    words = np.bitwise_or.reduce(np.where(leaves.allowed[first:last], bits[:, None], 0), axis=0)
    of_param = np.split(words.astype(np.uint64), np.cumsum(sizes)[:-1])
    states = np.array([np.bitwise_or.reduce(bits)])
    following = []
    for p in split.prefix:
        after, place = np.unique(states[:, None] & of_param[p], return_inverse=True)
        following.append(place.reshape(len(states), sizes[p]))
        states = after
    suffix = np.full(len(split.block), np.iinfo(np.uint64).max, dtype=np.uint64)
    for column, p in enumerate(split.suffix):
        suffix &= of_param[p][split.block[:, column]]
    return Piece(first=first, following=following, states=states, suffix=suffix)
