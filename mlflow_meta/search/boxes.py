"""The leaves of trees over a node, as boxes; and cliques of them.

factor: one tree; a row falls into one of its leaves
box:    the levels of each parameter from which a leaf is reached, as bits
clique: boxes, of leaves or single levels, of which no two have a row in common
W:      words of 64 bits that the levels of all parameters take, each parameter in words of its own
L:      leaves of all factors together
l:      levels of all parameters together
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.compiled import compiled
from mlflow_meta.search.factors import Factors, taken_apart
from mlflow_meta.search.leaves import leaves_of
from mlflow_meta.search.surface import TreeSurface

Vector = NDArray[np.float64]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]
Words = NDArray[np.uint64]

PER_WORD = 64


@dataclass(frozen=True, slots=True)
class Cliques:
    """Sets of boxes, each number that of a leaf, or `L` and that of a level.

    Attributes:
        first: `(c + 1,)` where each clique begins in `member`.
        member: The boxes.
    """

    first: Places
    member: Places

    def kept(self, new: Places) -> Cliques:
        """Without boxes that are gone; `new[box]` is a box's number from now on, or -1."""
        member = new[self.member]
        clique = np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))[member >= 0]
        n = np.bincount(clique, minlength=len(self.first) - 1)
        return Cliques(np.cumsum([0, *n[n > 1]]), member[member >= 0][n[clique] > 1])

    def of(self, chosen: Mask) -> Cliques:
        """Those that are chosen `(c,)`."""
        n = np.diff(self.first)
        return Cliques(np.cumsum([0, *n[chosen]]), self.member[np.repeat(chosen, n)])

    def and_those(self, more: Cliques) -> Cliques:
        """All of both."""
        first = np.concatenate([self.first, self.first[-1] + more.first[1:]])
        return Cliques(first, np.concatenate([self.member, more.member]))


NONE = Cliques(np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int64))


@dataclass(frozen=True, kw_only=True)  # no slots: properties are kept
class Boxes:
    """The leaves of all factors over a node.

    Attributes:
        sizes: `n_p`, of each parameter.
        allowed: `(l,)` the node.
        constant: What the trees add that are no factor.
        first: `(factors + 1,)` where each factor's leaves begin.
        value: `(L,)`.
        words: `(L, W)` the boxes.
        cliques: That were found by now.
    """

    sizes: tuple[int, ...]
    allowed: Mask
    constant: float
    first: Places
    value: Vector
    words: Words
    cliques: Cliques = NONE

    @cached_property
    def word_first(self) -> Places:
        """`(P + 1,)` where each parameter's words begin."""
        return _word_first(self.sizes)

    @cached_property
    def group(self) -> Places:
        """`(L + l,)` of each leaf its factor, of each level its parameter."""
        n = len(self.first) - 1
        levels = n + np.repeat(np.arange(len(self.sizes)), self.sizes)
        return np.concatenate([np.repeat(np.arange(n), np.diff(self.first)), levels])

    @cached_property
    def all_words(self) -> Words:
        """`(L + l, W)` the boxes of the leaves, and after them of the levels."""
        param = np.repeat(np.arange(len(self.sizes)), self.sizes)
        has = (param[:, None] != param) | np.eye(len(param), dtype=bool)
        return np.concatenate([self.words, packed(has, self.sizes)])

    def narrowed(self, allowed: Mask, is_kept: Mask) -> Boxes:
        """Over a smaller node, without leaves that no row which counts falls into.

        Factors that have one leaf left become part of the constant, and the node is within it.

        Args:
            allowed: The node; some level of each parameter.
            is_kept: `(L,)`.
        """
        full = packed(allowed[None], self.sizes)[0]
        first, origin, words, constant, full = _narrowed(
            self.first, self.value, self.words, is_kept, full, self.word_first
        )
        bits = np.unpackbits(full.view(np.uint8), bitorder="little")
        new = np.full(len(self.value) + len(allowed), -1)
        new[origin] = np.arange(len(origin))
        left = bits[_places(self.sizes)].astype(bool)
        level = np.flatnonzero(left)
        new[len(self.value) + level] = len(origin) + level
        return Boxes(
            sizes=self.sizes, allowed=left, constant=self.constant + constant, first=first,
            value=self.value[origin], words=words, cliques=self.cliques.kept(new),
        )  # fmt: skip

    def factors(self) -> Factors:
        """As the sweeps and the linear program take them."""
        offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        full = packed(self.allowed[None], self.sizes)[0]
        arrays: tuple[Any, ...] = taken_apart(
            self.first, self.words, full, self.word_first, offsets
        )
        tree_slot, leaf_entry, entry, slot_param, slot_lam, slot_set, set_level, level = arrays
        return Factors(
            constant=self.constant, offsets=offsets, tree_leaf=self.first, tree_slot=tree_slot,
            leaf_value=self.value, leaf_entry=leaf_entry, entry=entry, slot_param=slot_param,
            slot_lam=slot_lam, slot_set=slot_set, set_level=set_level, level=level,
        )  # fmt: skip


def boxes_of(surface: TreeSurface) -> Boxes:
    """Every tree as a factor."""
    n, values, words = (
        [0],
        [np.empty(0)],
        [packed(np.empty((0, sum(surface.sizes)), dtype=bool), surface.sizes)],
    )
    for root in surface.roots:  # one by one: a byte for each level of all leaves would be much
        leaves = leaves_of(replace(surface, roots=np.array([root])))
        n.append(len(leaves.value))
        values.append(leaves.value)
        words.append(packed(leaves.allowed, surface.sizes))
    everywhere, value = np.ones(sum(surface.sizes), dtype=bool), np.concatenate(values)
    whole = Boxes(
        sizes=surface.sizes, allowed=everywhere, constant=surface.constant, first=np.cumsum(n),
        value=value, words=np.concatenate(words),
    )  # fmt: skip
    return whole.narrowed(everywhere, np.ones(len(value), dtype=bool))


def packed(allowed: Mask, sizes: Sequence[int]) -> Words:
    """`(n, W)` of `allowed (n, l)`."""
    room = np.zeros((len(allowed), int(_word_first(sizes)[-1]) * PER_WORD), dtype=bool)
    room[:, _places(sizes)] = allowed
    return np.packbits(room, axis=1, bitorder="little").view(np.uint64)


def _places(sizes: Sequence[int]) -> Places:
    """`(l,)` the bit of each level."""
    starts = zip(_word_first(sizes), sizes, strict=False)
    return np.concatenate([first * PER_WORD + np.arange(n) for first, n in starts])


def _word_first(sizes: Sequence[int]) -> Places:
    return np.concatenate([[0], np.cumsum([-(-n // PER_WORD) for n in sizes])]).astype(np.int64)


@compiled
def meets(a: Words, b: Words, word_first: Places) -> bool:
    """Whether any row is in both boxes `(W,)`."""
    for p in range(len(word_first) - 1):
        met = False
        for w in range(word_first[p], word_first[p + 1]):
            met = met or (a[w] & b[w]) != 0
        if not met:
            return False
    return True


@compiled
def _narrowed(
    first: Places, value: Vector, words: Words, is_kept: Mask, full: Words, word_first: Places
) -> tuple[Places, Places, Words, float, Words]:
    kept, full = _closed(first, words, is_kept, full, word_first)
    firsts, origin = np.zeros_like(first), np.empty(len(value), np.int64)
    n_factors, n, constant = 0, 0, 0.0
    for t in range(len(first) - 1):
        start = n
        for leaf in range(first[t], first[t + 1]):
            if kept[leaf]:
                origin[n] = leaf
                n += 1
        if n == start + 1:
            n = start
            constant += value[origin[n]]
        elif n > start:
            n_factors += 1
            firsts[n_factors] = n
    left = np.empty((n, words.shape[1]), np.uint64)
    for i in range(n):
        left[i] = words[origin[i]] & full
    return firsts[: n_factors + 1].copy(), origin[:n].copy(), left, constant, full


@compiled
def _closed(
    first: Places, words: Words, is_kept: Mask, full: Words, word_first: Places
) -> tuple[Mask, Words]:
    """The leaves that meet the node, and of the node what some leaf of every factor holds."""
    full, kept = full.copy(), is_kept.copy()
    while True:  # what makes the node smaller may take leaves from it
        before = full.copy()
        for t in range(len(first) - 1):
            either = np.zeros_like(full)
            for leaf in range(first[t], first[t + 1]):
                kept[leaf] = kept[leaf] and meets(words[leaf], full, word_first)
                if kept[leaf]:
                    either |= words[leaf]
            full &= either
        if np.all(before == full):
            return kept, full
