"""The bound of a sum of trees: each tree gives away what it asks of its parameters.

theta:  `(n_1 + ... + n_P,)`, what all trees have given, for the levels after each other
lam:    what each tree has given to each of its parameters

    sum_t tree_t(x) = sum_t [tree_t(x) - sum_p lam_tp(x_p)] + sum_p theta_p(x_p)
                   >= sum_t min_x [...]                     + sum_p min_l theta_p(l)

holds for every lam. The best lam is the dual solution of a linear program (Misic, 2020, with the
sets of all leaves), which HiGHS finds at the root and, as long as it does not take more than half
of the time, for nodes far below it. From there, block coordinate ascent (a min-sum sweep over the
trees, Globerson & Jaakkola, 2007) adapts it to each node and never lowers the bound.

References:
    Misic. *Optimization of Tree Ensembles*. Operations Research 68, 2020.
    Globerson, Jaakkola. *Fixing Max-Product*. NIPS 2007.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array, hstack

from mlflow_meta.search.factors import Factors, factors_of
from mlflow_meta.search.relaxed import TOLERANCE, struck
from mlflow_meta.search.surface import TreeSurface
from mlflow_meta.search.sweep import sweep

Vector = NDArray[np.float64]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]

N_ROOT_SWEEPS = 5
MAX_LEAVES = 10_000  # of all trees together, up to which the linear program is solved
LP_DEPTH = 3  # nodes below the last one that it was solved for
MAX_LP_S = 5.0  # that one solution may take
MAX_LP_BYTES = 200_000_000  # of what its solutions take


@dataclass(frozen=True, slots=True)
class Given:
    """What the trees have given, and how many nodes ago a linear program said so."""

    theta: Vector
    lam: Vector
    depth: int


class Dual:
    """See above."""

    def __init__(self, surface: TreeSurface) -> None:
        """Takes the trees apart."""
        self._f = f = factors_of(surface)
        n_slots, n_trees = len(f.slot_param), len(f.tree_slot) - 1
        sets = [f.slot_set[f.tree_slot[t + 1]] - f.slot_set[f.tree_slot[t]] for t in range(n_trees)]
        self._room = (
            np.empty(max(sets, default=0)), np.empty(max(sets, default=0)),
            np.empty(max(surface.sizes)),
        )  # fmt: skip
        starts = [
            f.offsets[f.slot_param[s]] + np.arange(f.slot_lam[s + 1] - f.slot_lam[s])
            for s in range(n_slots)
        ]
        self._lam_level = np.concatenate([*starts, np.empty(0, dtype=np.int64)]).astype(np.int64)
        peaks = [
            np.abs(f.leaf_value[f.tree_leaf[t] : f.tree_leaf[t + 1]]).max() for t in range(n_trees)
        ]
        self._constant = f.constant
        self.tolerance = TOLERANCE * float(np.sum(peaks))
        self._program = Program(f) if 0 < len(f.leaf_value) <= MAX_LEAVES else None
        self._program_s, self._sweeps_s, self._n_solved = 0.0, 0.0, 0
        self.theta = np.zeros(f.offsets[-1])

    def tighten(self, allowed: Mask, cut: float, state: Any) -> tuple[float, Any]:
        """See `Relaxation`."""
        if state is None:
            return self._root(allowed, cut)
        started = time.monotonic()
        theta, lam = state.theta.copy(), state.lam.copy()
        bound = self._swept(allowed, theta, lam, cut, 1)
        self._sweeps_s += time.monotonic() - started
        depth = state.depth + 1
        if bound < cut and depth >= LP_DEPTH and self._may_solve():
            solved = self._solved(allowed)
            if solved is not None:
                theta, lam = solved
                bound = self._swept(allowed, theta, lam, cut, 1)
                state, depth = Given(theta.copy(), lam.copy(), 0), 0
        self.theta = theta
        return bound, Given(state.theta, state.lam, depth)

    def _root(self, allowed: Mask, cut: float) -> tuple[float, Given]:
        theta, lam = np.zeros(len(self.theta)), np.zeros(len(self._lam_level))
        bound = self._swept(allowed, theta, lam, cut, N_ROOT_SWEEPS)
        if bound < cut and self._program and (solved := self._solved(allowed)):
            theta, lam = solved
            bound = self._swept(allowed, theta, lam, cut, 1)
        self.theta = theta
        return bound, Given(theta.copy(), lam.copy(), 0)

    def _swept(self, allowed: Mask, theta: Vector, lam: Vector, cut: float, n: int) -> float:
        """Bound after `n` sweeps, and more as long as they strike out much."""
        starts = self._f.offsets[:-1]
        arrays: tuple[Any, ...] = (*self._f.arrays, allowed, theta, lam, *self._room)
        while True:
            n_before = int(allowed.sum())
            for _ in range(n):
                sweep(*arrays)
            bound = struck(theta, self._constant, allowed, self._f.offsets, cut)
            if bound >= cut or not np.logical_or.reduceat(allowed, starts).all():
                return np.inf if bound < cut else bound
            if allowed.sum() > 0.8 * n_before:
                return bound

    def _may_solve(self) -> bool:
        room = self._n_solved * len(self._lam_level) * 8 < MAX_LP_BYTES
        return self._program is not None and room and self._program_s < self._sweeps_s

    def _solved(self, allowed: Mask) -> tuple[Vector, Vector] | None:
        assert self._program is not None
        started = time.monotonic()
        lam = self._program.solve(allowed)
        self._program_s += time.monotonic() - started
        self._n_solved += 1
        if lam is None:
            return None
        theta = np.zeros(len(self.theta))
        np.add.at(theta, self._lam_level, lam)
        return theta, lam


class Program:
    """The linear program over the shares that levels and leaves have in a solution.

    min sum_leaf value share, where the shares of a parameter's levels sum to 1, those of a tree's
    leaves too, and the leaves within a set of levels have no more than the set:

        sum of leaves within the set <= sum of levels in the set    for every set of every slot.
    """

    def __init__(self, factors: Factors) -> None:
        """Writes the constraints down once; nodes use parts of them."""
        self._f = f = factors
        n_levels, n_leaves, n_sets = f.offsets[-1], len(f.leaf_value), len(f.set_level) - 1
        set_of = np.repeat(np.arange(n_sets), np.diff(f.set_level))
        self._members = csr_array((np.ones(len(set_of)), (set_of, f.level)), (n_sets, n_levels))
        self._leaf_of = np.repeat(np.arange(n_leaves), np.diff(f.leaf_entry))
        in_set = csr_array(
            (np.ones(len(self._leaf_of)), (f.entry, self._leaf_of)), (n_sets, n_leaves)
        )
        self._inequalities = hstack([-self._members, _within(f) @ in_set]).tocsr()
        param_of = np.repeat(np.arange(len(f.offsets) - 1), np.diff(f.offsets))
        tree_of = np.repeat(np.arange(len(f.tree_leaf) - 1), np.diff(f.tree_leaf))
        rows = np.concatenate([param_of, param_of[-1] + 1 + tree_of])
        self._sums = csr_array((np.ones(len(rows)), (rows, np.arange(len(rows))))).tocsc()
        self._cost = np.concatenate([np.zeros(n_levels), f.leaf_value])
        self._set_slot = np.repeat(np.arange(len(f.slot_param)), np.diff(f.slot_set))

    def solve(self, allowed: Mask) -> Vector | None:
        """What each tree is best to give, as `lam`; None where HiGHS does not find it in time."""
        f = self._f
        n_in = self._members @ allowed.astype(float)
        n_allowed = np.add.reduceat(allowed, f.offsets[:-1], dtype=float)
        is_cut_off = np.bincount(self._leaf_of, n_in[f.entry] == 0, minlength=len(f.leaf_value)) > 0
        rows = np.flatnonzero((n_in > 0) & (n_in < n_allowed[f.slot_param[self._set_slot]]))
        columns = np.flatnonzero(np.concatenate([allowed, ~is_cut_off]))
        if not len(rows):
            return None
        found = linprog(  # type: ignore[call-overload]  # its stubs know no sparse arrays
            self._cost[columns],
            A_ub=self._inequalities[rows][:, columns],
            b_ub=np.zeros(len(rows)),
            A_eq=self._sums[:, columns],
            b_eq=np.ones(self._sums.shape[0]),
            method="highs-ds",
            options={"time_limit": MAX_LP_S},
        )
        if found.status != 0:
            return None
        # What a set costs is taken from each of its levels.
        price = np.zeros(len(self._set_slot))
        price[rows] = np.maximum(-found.ineqlin.marginals, 0.0)
        set_of = np.repeat(np.arange(len(price)), np.diff(f.set_level))
        slot = self._set_slot[set_of]
        place = f.slot_lam[slot] + f.level - f.offsets[f.slot_param[slot]]
        lam = np.zeros(f.slot_lam[-1])
        np.subtract.at(lam, place, price[set_of])
        return lam


def _within(f: Factors) -> csr_array:
    """1 where the set of the column lies within that of the row, of one slot."""
    rows, columns = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for s in range(len(f.slot_param)):
        first, last = f.slot_set[s], f.slot_set[s + 1]
        masks = np.zeros((last - first, f.slot_lam[s + 1] - f.slot_lam[s]), dtype=np.float32)
        for q in range(first, last):
            places = f.level[f.set_level[q] : f.set_level[q + 1]] - f.offsets[f.slot_param[s]]
            masks[q - first, places] = 1.0
        holder, held = np.nonzero((1.0 - masks) @ masks.T == 0)
        rows.append(first + holder)
        columns.append(first + held)
    n = len(f.set_level) - 1
    pairs = (np.concatenate(rows), np.concatenate(columns))
    return csr_array((np.ones(len(pairs[0])), pairs), (n, n))
