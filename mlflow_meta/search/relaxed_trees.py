"""The bound of a sum of trees: each tree gives away what it asks of its parameters.

theta:  `(n_1 + ... + n_P,)`, what all trees have given, for the levels after each other
lam:    what each tree has given to each of its parameters

    sum_t tree_t(x) = sum_t [tree_t(x) - sum_p lam_tp(x_p)] + sum_p theta_p(x_p)
                   >= sum_t min_x [...]                     + sum_p min_l theta_p(l)

holds for every lam. The best lam is the dual solution of a linear program (Misic, 2020, with the
sets of all leaves), which HiGHS finds at the root and, as long as it does not take more than half
of the time, for nodes below it. It is solved again with the cliques that its solution violates
(`cliques`), without the leaves that a row below the cut can't fall into: on what boosting makes of
some thousand rows, the bound is then often that of the best row. From there, block coordinate
ascent (a min-sum sweep over the trees, Globerson & Jaakkola, 2007) adapts it to each node and
never lowers the bound.

References:
    Misic. *Optimization of Tree Ensembles*. Operations Research 68, 2020.
    Globerson, Jaakkola. *Fixing Max-Product*. NIPS 2007.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.boxes import Boxes, Cliques, boxes_of
from mlflow_meta.search.cliques import violated
from mlflow_meta.search.factors import Factors
from mlflow_meta.search.program import solved
from mlflow_meta.search.relaxed import TOLERANCE, struck
from mlflow_meta.search.surface import TreeSurface
from mlflow_meta.search.sweep import bounded, gathered, sweep

Vector = NDArray[np.float64]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]

N_ROOT_SWEEPS = 5
MAX_LEAVES = 10_000  # of all trees together, up to which the linear program is solved
MAX_LEVELS = 5_000  # likewise, of all parameters
N_ROUNDS = 8  # of the linear program at the root, with ever more cliques
N_ROUNDS_BELOW = 3
SHRINKS = 0.7  # share of the leaves of which no more may be left for another round
LP_DEPTH = 2  # nodes below the last one that it was solved for
MAX_LP_BYTES = 200_000_000  # of what its solutions take


class Part:
    """The factors of a node and of all below it, as the sweeps take them."""

    def __init__(self, factors: Factors, boxes: Boxes | None) -> None:
        """`boxes` are what the factors were made from; None where they are not to be solved."""
        f = self.factors = factors
        self.boxes = boxes
        sets = np.diff(f.slot_set[f.tree_slot])
        most, widest = int(sets.max(initial=0)), int(np.diff(f.offsets).max())
        self._room = (np.empty(most), np.empty(most), np.empty(widest))
        self._arrays = f.arrays
        self.n_bytes = sum(array.nbytes for array in self._arrays) + 2 * f.leaf_value.nbytes

    def sweep(self, allowed: Mask, theta: Vector, lam: Vector) -> None:
        """See `sweep`."""
        sweep(self._arrays, allowed, theta, lam, self._room)

    def leaf_bounds(self, allowed: Mask, theta: Vector, lam: Vector) -> Vector:
        """`(L,)` below all rows of a leaf; `theta` and `lam` are a sweep's."""
        lowest = np.minimum.reduceat(np.where(allowed, theta, np.inf), self.factors.offsets[:-1])
        found = np.empty_like(self.factors.leaf_value)
        bounded(self._arrays, allowed, theta, lam, lowest, self._room[0], found)
        return np.asarray(found + self.factors.constant)

    def finds(self, share: Vector) -> bool:
        """Whether there are cliques that the shares `(L + l,)` violate; they are kept."""
        boxes = self.boxes
        assert boxes is not None
        more = Cliques(*violated(boxes.all_words, share, boxes.group, boxes.word_first))
        self.boxes = replace(boxes, cliques=boxes.cliques.and_those(more))
        return len(more.first) > 1

    def theta(self, lam: Vector) -> Vector:
        """What all factors give together."""
        f = self.factors
        theta = np.zeros(f.offsets[-1])
        gathered(f.slot_param, f.slot_lam, f.offsets, lam, theta)
        return theta


@dataclass(frozen=True, slots=True)
class Given:
    """What the factors have given, how many nodes ago a linear program said so, and its rounds."""

    theta: Vector
    lam: Vector
    part: Part
    depth: int
    rounds: int
    is_unfinished: bool = False


class Dual:
    """See above."""

    is_in_order = True

    def __init__(self, surface: TreeSurface) -> None:
        """Takes the trees apart."""
        n_leaves, n_levels = int((surface.param < 0).sum()), sum(surface.sizes)
        is_small = n_leaves <= MAX_LEAVES and n_levels <= MAX_LEVELS
        boxes = boxes_of(surface)
        f = boxes.factors()
        self._part = Part(f, boxes if is_small and len(f.leaf_value) else None)
        starts = f.tree_leaf[:-1] if len(f.leaf_value) else np.empty(0, dtype=np.int64)
        self.tolerance = TOLERANCE * float(np.maximum.reduceat(np.abs(f.leaf_value), starts).sum())
        self.floor = f.constant + float(np.minimum.reduceat(f.leaf_value, starts).sum())
        self._program_s, self._sweeps_s, self._n_bytes = 0.0, 0.0, 0
        self._starts = f.offsets[:-1]
        self.is_unfinished = False
        self.theta = np.zeros(f.offsets[-1])

    def tighten(self, allowed: Mask, cut: float, state: Any) -> tuple[float, Any]:
        """See `Relaxation`."""
        if state is None:
            return self._root(allowed, cut)
        if state.is_unfinished:
            return self._round(allowed, cut, state)
        self.is_unfinished = False
        started = time.monotonic()
        theta, lam = state.theta.copy(), state.lam.copy()
        bound = self._swept(state.part, allowed, theta, lam, cut, 1)
        self._sweeps_s += time.monotonic() - started
        self.theta = theta
        depth = state.depth + 1
        if bound >= cut or depth < LP_DEPTH or not self._may_solve(state.part):
            return bound, replace(state, depth=depth)
        started = time.monotonic()
        given = Given(theta, lam, state.part, depth, 0, is_unfinished=True)
        while given.is_unfinished and given.rounds < N_ROUNDS_BELOW:
            bound, given = self._round(allowed, cut, given)
        given = replace(given, is_unfinished=False)
        self.is_unfinished = False
        self._n_bytes += given.part.n_bytes
        self._program_s += time.monotonic() - started
        return bound, given

    def _root(self, allowed: Mask, cut: float) -> tuple[float, Given]:
        part = self._part
        theta, lam = np.zeros(len(self.theta)), np.zeros(part.factors.slot_lam[-1])
        bound = self._swept(part, allowed, theta, lam, cut, N_ROOT_SWEEPS)
        self.theta = theta
        self.is_unfinished = bound < cut and part.boxes is not None
        return bound, Given(theta, lam, part, 0, 0, self.is_unfinished)

    def _swept(
        self, part: Part, allowed: Mask, theta: Vector, lam: Vector, cut: float, n: int
    ) -> float:
        """Bound after `n` sweeps, and more as long as they strike out much."""
        f = part.factors
        while True:
            n_before = int(allowed.sum())
            for _ in range(n):
                part.sweep(allowed, theta, lam)
            bound = struck(theta, f.constant, allowed, f.offsets, cut)
            if bound >= cut or not self._has_rows(allowed):
                return np.inf if bound < cut else bound
            if allowed.sum() > 0.8 * n_before:
                return bound

    def _has_rows(self, allowed: Mask) -> bool:
        return bool(np.logical_or.reduceat(allowed, self._starts).all())

    def _may_solve(self, part: Part) -> bool:
        room = self._n_bytes < MAX_LP_BYTES
        return part.boxes is not None and room and self._program_s < self._sweeps_s

    def _round(self, allowed: Mask, cut: float, given: Given) -> tuple[float, Given]:
        """After the linear program over the leaves that are left, and its cliques by now."""
        boxes, part = given.part.boxes, given.part
        assert boxes is not None
        self.theta, self.is_unfinished = given.theta, False
        is_kept = part.leaf_bounds(allowed, given.theta, given.lam) < cut
        boxes = boxes.narrowed(allowed, is_kept)
        allowed &= boxes.allowed
        if not self._has_rows(allowed):
            return np.inf, replace(given, is_unfinished=False)
        solution = solved(boxes)
        if solution is None:
            lowest = np.minimum.reduceat(np.where(allowed, self.theta, np.inf), self._starts)
            bound = part.factors.constant + float(lowest.sum())
            return bound, replace(given, is_unfinished=False)
        part = Part(solution.factors, replace(boxes, cliques=solution.cliques))
        theta, lam = part.theta(solution.lam) + solution.theta, solution.lam
        bound = self._swept(part, allowed, theta, lam, cut, 1)
        self.theta = theta
        if bound < cut and given.rounds + 1 < N_ROUNDS:
            n_left = int((part.leaf_bounds(allowed, theta, lam) < cut).sum())
            finds = part.finds(solution.share)
            self.is_unfinished = finds or n_left <= SHRINKS * len(boxes.value)
        return bound, Given(theta, lam, part, 0, given.rounds + 1, self.is_unfinished)
