"""The trees of a surface, taken apart: which levels each leaf is reached from.

leaf:   reached by the rows whose every parameter lies in the leaf's set for it
slot:   one tree and one of the parameters that it asks about
set:    levels of a slot's parameter from which some leaf is reached; several leaves may share it
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.compiled import compiled
from mlflow_meta.search.surface import TreeSurface

Vector = NDArray[np.float64]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]


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
    def arrays(self) -> tuple[Places | Vector, ...]:
        """All of them, for compiled functions."""
        return (
            self.offsets, self.tree_leaf, self.tree_slot, self.leaf_value, self.leaf_entry,
            self.entry, self.slot_param, self.slot_lam, self.slot_set, self.set_level, self.level,
        )  # fmt: skip


def factors_of(surface: TreeSurface) -> Factors:
    """Walk every tree once."""
    offsets = np.concatenate([[0], np.cumsum(surface.sizes)])
    constant, values, entries, leaf_entry = surface.constant, [], [], [0]
    tree_leaf, tree_slot, slot_param, slot_set, set_level = [0], [0], [], [0], [0]
    levels: list[Places] = []
    for root in surface.roots:
        leaves = _leaves(surface, int(root))
        params = sorted({p for _, sets in leaves for p in sets})
        if not params:
            constant += leaves[0][0]
            continue
        numbers: list[dict[bytes, int]] = [{} for _ in params]
        kept: list[list[Places]] = [[] for _ in params]
        of_leaf = np.empty((len(leaves), len(params)), dtype=np.int64)
        for row, (_, sets) in enumerate(leaves):
            for i, p in enumerate(params):
                mask = sets.get(p)
                key = b"" if mask is None else mask.tobytes()
                if key not in numbers[i]:
                    numbers[i][key] = len(kept[i])
                    whole = np.arange(surface.sizes[p])
                    kept[i].append(offsets[p] + (whole if mask is None else np.flatnonzero(mask)))
                of_leaf[row, i] = numbers[i][key]
        counts = np.array([len(sets) for sets in kept])
        entries.append((of_leaf + slot_set[-1] + np.cumsum(counts) - counts).ravel())
        values += [value for value, _ in leaves]
        leaf_entry += [leaf_entry[-1] + len(params) * (i + 1) for i in range(len(leaves))]
        slot_set += (slot_set[-1] + np.cumsum(counts)).tolist()
        slot_param += params
        for members in (members for sets in kept for members in sets):
            levels.append(members)
            set_level.append(set_level[-1] + len(members))
        tree_leaf.append(len(values))
        tree_slot.append(len(slot_param))
    widths = [surface.sizes[p] for p in slot_param]
    return Factors(
        constant=float(constant),
        offsets=offsets,
        tree_leaf=np.array(tree_leaf),
        tree_slot=np.array(tree_slot),
        leaf_value=np.array(values, dtype=float),
        leaf_entry=np.array(leaf_entry),
        entry=np.concatenate([*entries, np.empty(0, dtype=np.int64)]).astype(np.int64),
        slot_param=np.array(slot_param, dtype=np.int64),
        slot_lam=np.concatenate([[0], np.cumsum(widths)]).astype(np.int64),
        slot_set=np.array(slot_set),
        set_level=np.array(set_level),
        level=np.concatenate([*levels, np.empty(0, dtype=np.int64)]).astype(np.int64),
    )


def _leaves(surface: TreeSurface, root: int) -> list[tuple[float, dict[int, Mask]]]:
    """The leaves of a tree that any row reaches: what each adds, and its sets."""
    found = []
    waiting: list[tuple[int, dict[int, Mask]]] = [(root, {})]
    while waiting:
        node, sets = waiting.pop()
        p = int(surface.param[node])
        if p < 0:
            found.append((float(surface.value[node]), sets))
            continue
        goes_left = surface.goes_left[node, : surface.sizes[p]]
        now = sets.get(p)
        for below, side in ((surface.left, goes_left), (surface.right, ~goes_left)):
            mask = side if now is None else now & side
            if mask.any():
                waiting.append((int(below[node]), {**sets, p: mask}))
    return found


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
