"""The compiled part of the trees' bound; see `relaxed_trees`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.compiled import compiled
from mlflow_meta.search.factors import Arrays

Vector = NDArray[np.float64]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]


@compiled
def sweep(  # noqa: C901 - one pass over all arrays
    factors: Arrays,
    allowed: Mask,
    theta: Vector,
    lam: Vector,
    room: tuple[Vector, Vector, Vector],
) -> None:
    """One pass over all trees; changes `theta` and `lam` and keeps their promise.

    For each tree t in turn, with theta' = theta less what t has given, the min-marginals are

        M_p(l) = min over x with x_p = l of tree_t(x) + sum_q theta'_q(x_q),

    and each of its n parameters takes an equal share: theta_p(l) = M_p(l) / n. What is left of the
    tree is never negative, since the mean over p of M_p(x_p) is at most what M_p is the minimum of.

    Args:
        factors: `Factors.arrays`.
        allowed: `(n_1 + ... + n_P,)`; at least one level of each parameter.
        theta: As long; the sum of what the trees have given.
        lam: What each slot has given, `slot_lam` numbering.
        room: For a number of each set of a tree, twice, and of each level of a parameter.
    """
    offsets, tree_leaf, tree_slot, leaf_value, leaf_entry, entry = factors[:6]
    slot_param, slot_lam, slot_set, set_level, level = factors[6:]
    lowest, reached, marginal = room
    for t in range(len(tree_leaf) - 1):
        first, n = tree_slot[t], tree_slot[t + 1] - tree_slot[t]
        set0 = slot_set[first]
        for s in range(first, first + n):
            start, own = offsets[slot_param[s]], slot_lam[s]
            for i in range(slot_lam[s + 1] - own):
                theta[start + i] -= lam[own + i]
            for q in range(slot_set[s], slot_set[s + 1]):
                low = np.inf
                for e in range(set_level[q], set_level[q + 1]):
                    if allowed[level[e]] and theta[level[e]] < low:
                        low = theta[level[e]]
                lowest[q - set0] = low
                reached[q - set0] = np.inf
        for leaf in range(tree_leaf[t], tree_leaf[t + 1]):
            total, at = leaf_value[leaf], leaf_entry[leaf]
            for i in range(n):
                total += lowest[entry[at + i] - set0]
            if total < np.inf:
                for i in range(n):
                    q = entry[at + i] - set0
                    reached[q] = min(reached[q], total - lowest[q])
        for s in range(first, first + n):
            start, own = offsets[slot_param[s]], slot_lam[s]
            for i in range(slot_lam[s + 1] - own):
                marginal[i] = np.inf
            for q in range(slot_set[s], slot_set[s + 1]):
                for e in range(set_level[q], set_level[q + 1]):
                    i = level[e] - start
                    marginal[i] = min(marginal[i], reached[q - set0])
            for i in range(slot_lam[s + 1] - own):
                before = theta[start + i]
                if allowed[start + i] and marginal[i] < np.inf:
                    theta[start + i] = (marginal[i] + before) / n
                    lam[own + i] = theta[start + i] - before
                else:
                    theta[start + i] = before + lam[own + i]


@compiled
def gathered(
    slot_param: Places, slot_lam: Places, offsets: Places, lam: Vector, theta: Vector
) -> None:
    """Adds to `theta` what every slot has given."""
    for s in range(len(slot_param)):
        start = offsets[slot_param[s]]
        for i in range(slot_lam[s + 1] - slot_lam[s]):
            theta[start + i] += lam[slot_lam[s] + i]


@compiled
def bounded(  # noqa: PLR0913 - each is a plain array
    factors: Arrays,
    allowed: Mask,
    theta: Vector,
    lam: Vector,
    lowest: Vector,
    low: Vector,
    found: Vector,
) -> None:
    """A bound of each leaf, less the constant, when no tree's remainder is negative.

    The leaf with what all others have given of its tree's parameters, and `lowest` of the others.

    Args:
        factors: `Factors.arrays`.
        allowed: As `sweep` takes it.
        theta: As a sweep leaves it.
        lam: Likewise.
        lowest: `(P,)` the least of each parameter's `theta`.
        low: Room for a number of each set of a tree.
        found: `(L,)` the bounds.
    """
    offsets, tree_leaf, tree_slot, leaf_value, leaf_entry, entry = factors[:6]
    slot_param, slot_lam, slot_set, set_level, level = factors[6:]
    for t in range(len(tree_leaf) - 1):
        first, n = tree_slot[t], tree_slot[t + 1] - tree_slot[t]
        set0 = slot_set[first]
        others = lowest.sum()
        for s in range(first, first + n):
            others -= lowest[slot_param[s]]
            own = slot_lam[s] - offsets[slot_param[s]]
            for q in range(slot_set[s], slot_set[s + 1]):
                low[q - set0] = np.inf
                for e in range(set_level[q], set_level[q + 1]):
                    i = level[e]
                    if allowed[i]:
                        low[q - set0] = min(low[q - set0], theta[i] - lam[own + i])
        for leaf in range(tree_leaf[t], tree_leaf[t + 1]):
            found[leaf] = leaf_value[leaf] + others
            for i in range(n):
                found[leaf] += low[entry[leaf_entry[leaf] + i] - set0]
