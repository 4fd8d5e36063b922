"""Trees over a node, taken apart: which levels each leaf is reached from.

leaf:   reached by the rows whose every parameter lies in the leaf's set for it
slot:   one tree and one of the parameters that it asks about
set:    levels of a slot's parameter from which some leaf is reached; several leaves may share it
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.compiled import compiled

Vector = NDArray[np.float64]
Places = NDArray[np.int64]
Words = NDArray[np.uint64]
Arrays = tuple[
    Places, Places, Places, Vector, Places, Places, Places, Places, Places, Places, Places
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """All trees that ask about anything, as flat arrays.

    Attributes:
        constant: What the others add.
        offsets: `(P + 1,)` where each parameter's levels begin, after each other.
        tree_leaf: `(t + 1,)` where each tree's leaves begin.
        tree_slot: `(t + 1,)` where each tree's slots begin.
        leaf_value: `(leaves,)`.
        leaf_entry: `(leaves + 1,)` where each leaf's sets begin in `entry`, one a slot of its tree.
        entry: Sets, as numbers in the order of `set_level`.
        slot_param: `(slots,)`.
        slot_lam: `(slots + 1,)` where the levels of each slot's parameter begin, after each other.
        slot_set: `(slots + 1,)` where each slot's sets begin.
        set_level: `(sets + 1,)` where each set's levels begin in `level`.
        level: Levels in `offsets`' numbering.
    """

    constant: float
    offsets: Places
    tree_leaf: Places
    tree_slot: Places
    leaf_value: Vector
    leaf_entry: Places
    entry: Places
    slot_param: Places
    slot_lam: Places
    slot_set: Places
    set_level: Places
    level: Places

    @property
    def arrays(self) -> Arrays:
        """All of them, for compiled functions."""
        return (
            self.offsets, self.tree_leaf, self.tree_slot, self.leaf_value, self.leaf_entry,
            self.entry, self.slot_param, self.slot_lam, self.slot_set, self.set_level, self.level,
        )  # fmt: skip


@compiled
def within(slot_set: Places, set_level: Places, level: Places) -> tuple[Places, Places]:
    """Sets, and those that lie within them, of the same slot: each set within itself too."""
    total, widest = 0, 0
    for s in range(len(slot_set) - 1):
        total += (slot_set[s + 1] - slot_set[s]) ** 2
    if len(level):
        widest = level.max() + 1
    holder, held, n = np.empty(total, np.int64), np.empty(total, np.int64), 0
    marked = np.zeros(widest, np.bool_)
    for s in range(len(slot_set) - 1):
        for q in range(slot_set[s], slot_set[s + 1]):
            marked[level[set_level[q] : set_level[q + 1]]] = True
            for r in range(slot_set[s], slot_set[s + 1]):
                if np.all(marked[level[set_level[r] : set_level[r + 1]]]):
                    holder[n], held[n] = q, r
                    n += 1
            marked[level[set_level[q] : set_level[q + 1]]] = False
    return holder[:n].copy(), held[:n].copy()


@compiled
def _same(a: Words, b: Words, start: int, end: int) -> bool:
    return bool(np.all(a[start:end] == b[start:end]))


@compiled
def taken_apart(  # noqa: C901 - one pass over all arrays
    first: Places, words: Words, full: Words, word_first: Places, offsets: Places
) -> tuple[Places, Places, Places, Places, Places, Places, Places, Places]:
    """The arrays of `Factors` from `tree_slot` on, less `leaf_value`, of leaves that are boxes.

    Args:
        first: Where each tree's leaves begin.
        words: The boxes, and the node they lie in as `full`; see `boxes`, as for `word_first`.
        full: The node.
        word_first: Where each parameter's words begin.
        offsets: Where each parameter's levels begin.
    """
    n_factors, n_leaves, n_params = len(first) - 1, len(words), len(offsets) - 1
    tree_slot = np.zeros(n_factors + 1, np.int64)
    leaf_entry = np.zeros(n_leaves + 1, np.int64)
    slot_param = np.empty(n_factors * n_params, np.int64)
    n_slots, n_entries = 0, 0
    for t in range(n_factors):
        for p in range(n_params):
            asked = False
            for leaf in range(first[t], first[t + 1]):
                if not _same(words[leaf], full, word_first[p], word_first[p + 1]):
                    asked = True
                    break
            if asked:
                slot_param[n_slots] = p
                n_slots += 1
        tree_slot[t + 1] = n_slots
        for leaf in range(first[t], first[t + 1]):
            n_entries += n_slots - tree_slot[t]
            leaf_entry[leaf + 1] = n_entries
    slot_lam = np.zeros(n_slots + 1, np.int64)
    slot_set = np.zeros(n_slots + 1, np.int64)
    entry = np.empty(n_entries, np.int64)
    of_set = np.empty(n_entries, np.int64)  # a leaf that has it
    set_slot = np.empty(n_entries, np.int64)
    n_sets, n_levels = 0, 0
    for t in range(n_factors):
        for s in range(tree_slot[t], tree_slot[t + 1]):
            p = slot_param[s]
            start, end = word_first[p], word_first[p + 1]
            slot_lam[s + 1] = slot_lam[s] + offsets[p + 1] - offsets[p]
            for leaf in range(first[t], first[t + 1]):
                q = slot_set[s]
                while q < n_sets and not _same(words[leaf], words[of_set[q]], start, end):
                    q += 1
                if q == n_sets:
                    of_set[q], set_slot[q] = leaf, s
                    n_sets += 1
                    for level in range(offsets[p + 1] - offsets[p]):
                        n_levels += _has(words[leaf], start, level)
                entry[leaf_entry[leaf] + s - tree_slot[t]] = q
            slot_set[s + 1] = n_sets
    set_level = np.zeros(n_sets + 1, np.int64)
    members = np.empty(n_levels, np.int64)
    n = 0
    for q in range(n_sets):
        p = slot_param[set_slot[q]]
        for level in range(offsets[p + 1] - offsets[p]):
            if _has(words[of_set[q]], word_first[p], level):
                members[n] = offsets[p] + level
                n += 1
        set_level[q + 1] = n
    return (
        tree_slot, leaf_entry, entry, slot_param[:n_slots].copy(), slot_lam, slot_set, set_level,
        members,
    )  # fmt: skip


@compiled
def _has(box: Words, start: int, level: int) -> bool:
    word = box[start + level // 64]
    return bool((word >> np.uint64(level % 64)) & np.uint64(1))
