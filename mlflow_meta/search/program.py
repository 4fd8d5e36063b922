"""The linear program of trees over a node, by HiGHS."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array, hstack, vstack

from mlflow_meta.search.boxes import Boxes, Cliques
from mlflow_meta.search.factors import Factors, within

Vector = NDArray[np.float64]

MAX_LP_S = 8.0  # that one solution may take
SIMPLEX_LEAVES = 1000  # up to which the simplex method is faster than an interior point's
SIMPLEX_ALONE = 4000  # likewise, where there are no cliques


@dataclass(frozen=True, slots=True)
class Solution:
    """What the linear program says.

    Attributes:
        factors: The trees, their leaves dearer by what cliques cost, and the constant lower.
        theta: `(l,)` what cliques cost levels.
        lam: What each slot is best to give.
        share: `(L + l,)` of each leaf and level.
        cliques: Those that cost anything.
    """

    factors: Factors
    theta: Vector
    lam: Vector
    share: Vector
    cliques: Cliques


def solved(boxes: Boxes) -> Solution | None:
    """Solve.

    min sum_leaf value share, where the shares of a parameter's levels sum to 1, those of a factor's
    leaves too, and the leaves within a set of levels have no more than the set:

        sum of leaves within the set <= sum of levels in the set    for every set of every slot,
        sum of leaves and levels in the clique <= 1                 for every clique.

    A row falls into one box of a clique at most. So if the boxes of a clique cost c more, a row's
    value less c is a bound of what it was.

    Returns:
        None where HiGHS does not find it in time.
    """
    f, allowed, cliques = boxes.factors(), boxes.allowed, boxes.cliques
    n_levels, n_leaves, n_sets = len(allowed), len(f.leaf_value), len(f.set_level) - 1
    n_allowed = np.add.reduceat(allowed, f.offsets[:-1], dtype=np.int64)
    set_slot = np.repeat(np.arange(len(f.slot_param)), np.diff(f.slot_set))
    rows = np.flatnonzero(np.diff(f.set_level) < n_allowed[f.slot_param[set_slot]])
    if not len(rows):
        return None
    set_of = np.repeat(np.arange(n_sets), np.diff(f.set_level))
    members = csr_array((np.ones(len(set_of)), (set_of, f.level)), (n_sets, n_levels))
    leaf_of = np.repeat(np.arange(n_leaves), np.diff(f.leaf_entry))
    in_set = csr_array((np.ones(len(leaf_of)), (f.entry, leaf_of)), (n_sets, n_leaves))
    holder, held = within(f.slot_set, f.set_level, f.level)
    inside = csr_array((np.ones(len(holder)), (holder, held)), (n_sets, n_sets))
    in_clique = csr_array(
        (np.ones(len(cliques.member)), cliques.member, cliques.first),
        (len(cliques.first) - 1, n_leaves + n_levels),
    )
    inequalities = vstack([hstack([inside[rows] @ in_set, -members[rows]]), in_clique]).tocsr()
    columns = np.flatnonzero(np.concatenate([np.ones(n_leaves, dtype=bool), allowed]))
    n_in_group = np.bincount(boxes.group[columns])
    is_quick = n_leaves <= (SIMPLEX_LEAVES if len(cliques.member) else SIMPLEX_ALONE)
    found = linprog(  # type: ignore[call-overload]  # its stubs know no sparse arrays
        np.concatenate([f.leaf_value, np.zeros(n_levels)])[columns],
        A_ub=inequalities[:, columns],
        b_ub=np.repeat([0.0, 1.0], [len(rows), len(cliques.first) - 1]),
        A_eq=csr_array((np.ones(len(columns)), (boxes.group[columns], np.arange(len(columns))))),
        b_eq=np.ones(len(n_in_group)),
        method="highs-ds" if is_quick else "highs-ipm",
        options={"time_limit": MAX_LP_S},
    )
    if found.status != 0:
        return None
    price = np.maximum(-found.ineqlin.marginals, 0.0)
    # What a set costs is taken from each of its levels.
    of_set = np.zeros(n_sets)
    of_set[rows] = price[: len(rows)]
    slot = set_slot[set_of]
    place = f.slot_lam[slot] + f.level - f.offsets[f.slot_param[slot]]
    lam = np.zeros(f.slot_lam[-1])
    np.subtract.at(lam, place, of_set[set_of])
    price = price[len(rows) :]
    of_box = in_clique.T @ price
    share = np.zeros(n_leaves + n_levels)
    share[columns] = found.x
    return Solution(
        factors=replace(
            f, constant=f.constant - float(price.sum()), leaf_value=f.leaf_value + of_box[:n_leaves]
        ),
        theta=of_box[n_leaves:],
        lam=lam,
        share=share,
        cliques=cliques.of(price > 0),
    )
