"""From a model's formula to its surface over the levels of a space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.models.forms import Additive, Form, Relu, Trees
from mlflow_meta.search.levels import Levels, steepness
from mlflow_meta.search.surface import (
    AdditiveSurface,
    Box,
    ReluSurface,
    Surface,
    TreeSurface,
)

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cells:
    """Levels of each parameter that one cell stands for, as nothing tells them apart.

    Attributes:
        members: `members[p][c]` are the levels of cell c of parameter p, ascending.
    """

    members: tuple[tuple[Places, ...], ...]

    def representatives(self) -> Box:
        """The middle level of every cell."""
        return tuple(
            np.array([int(levels[len(levels) // 2]) for levels in cells], dtype=np.int64)
            for cells in self.members
        )


def surface_of(form: Form, levels: Levels) -> Surface:
    """The surface whose row of levels has the value that the model predicts for it."""
    if isinstance(form, Additive):
        return _additive(form, levels)
    if isinstance(form, Relu):
        return _relu(form, levels)
    return _trees(form, levels)


def slack(form: Form, levels: Levels) -> float:
    """How far below the surface the model may be between the levels of continuous parameters."""
    between = [p for p, gap in enumerate(levels.spacing) if gap > 0]
    if isinstance(form, Relu):
        return sum(steepness(form, levels.columns[p]) * levels.spacing[p] / 2 for p in between)
    if isinstance(form, Additive):
        return sum(_below(form, levels, p) for p in between)
    return 0.0


def _below(form: Additive, levels: Levels, p: int) -> float:
    """How far the vertex of a parameter's parabola is below the best of its levels."""
    total = 0.0
    for X, j in zip(levels.X[p].T, levels.columns[p], strict=True):
        w, q = form.linear[j], form.square[j]
        vertex = np.clip(-w / (2 * q), X.min(), X.max()) if q > 0 else X[0]
        total += float((w * X + q * X**2).min() - w * vertex - q * vertex**2)
    return max(total, 0.0)


def cells_of(surface: Surface, box: Box) -> Cells:
    """The cells of a box: levels that a tree model can't tell apart; elsewhere each level alone."""
    if not isinstance(surface, TreeSurface):
        return Cells(tuple(tuple(np.array([i]) for i in levels) for levels in box))
    members = []
    for p, levels in enumerate(box):
        asks = surface.goes_left[surface.param == p][:, levels]
        _, cell = np.unique(np.packbits(asks, axis=0), axis=1, return_inverse=True)
        cell = cell.ravel() if len(asks) else np.zeros(len(levels), dtype=np.int64)
        # In the order of their lowest level, so that a number's cells rise with it.
        first = np.unique(cell, return_index=True)[1]
        members.append(tuple(levels[cell == cell[i]] for i in np.sort(first)))
    return Cells(tuple(members))


def _decided_elsewhere(levels: Levels) -> Places:
    decided = np.concatenate([*levels.columns, np.empty(0, dtype=np.int64)]).astype(np.int64)
    return np.setdiff1d(np.arange(len(levels.given)), decided)


def _additive(form: Additive, levels: Levels) -> AdditiveSurface:
    given = _decided_elsewhere(levels)
    x = levels.given[given]
    constant = form.constant + form.linear[given] @ x + form.square[given] @ x**2
    tables = tuple(
        X @ form.linear[columns] + X**2 @ form.square[columns]
        for X, columns in zip(levels.X, levels.columns, strict=True)
    )
    return AdditiveSurface(constant=float(constant), tables=tables)


def _relu(form: Relu, levels: Levels) -> ReluSurface:
    given = _decided_elsewhere(levels)
    return ReluSurface(
        constant=form.constant,
        tables=tuple(
            X @ form.weights[columns] for X, columns in zip(levels.X, levels.columns, strict=True)
        ),
        bias=form.bias + levels.given[given] @ form.weights[given],
        out=form.out,
    )


def _trees(form: Trees, levels: Levels) -> TreeSurface:
    """What the context decides is followed at once; what is left asks about levels."""
    d, sizes = len(levels.given), tuple(len(X) for X in levels.X)
    param_of, place_of = np.full(d, -1), np.zeros(d, dtype=np.int64)
    for p, columns in enumerate(levels.columns):
        param_of[columns], place_of[columns] = p, np.arange(len(columns))
    asks = form.feature >= 0
    param = np.where(asks, param_of[np.maximum(form.feature, 0)], -1)
    goes_on = _followed(form, levels, asks & (param < 0))
    goes_left = np.zeros((len(form.feature), max(sizes)), dtype=bool)
    for p, X in enumerate(levels.X):
        nodes = np.flatnonzero(param == p)
        x = (X.astype(np.float32) if form.is_narrow else X)[:, place_of[form.feature[nodes]]].T
        goes_left[nodes, : sizes[p]] = x <= form.threshold[nodes, None]
    return _compact(
        TreeSurface(
            sizes=sizes,
            constant=form.constant,
            roots=goes_on[form.roots],
            param=param,
            goes_left=goes_left,
            left=goes_on[form.left],
            right=goes_on[form.right],
            value=form.value,
        )
    )


def _followed(form: Trees, levels: Levels, decided: NDArray[np.bool_]) -> Places:
    """Where one gets from each node `(m,)` while the context decides the way."""
    x = levels.given[np.maximum(form.feature, 0)]
    x = x.astype(np.float32) if form.is_narrow else x
    own = np.arange(len(form.feature))
    step = np.where(decided, np.where(x <= form.threshold, form.left, form.right), own)
    while not np.array_equal(further := step[step], step):
        step = further
    return step


def _compact(surface: TreeSurface) -> TreeSurface:
    """Without the nodes that no root leads to."""
    reached = np.zeros(len(surface.param), dtype=bool)
    front = np.unique(surface.roots)
    while len(front):
        reached[front] = True
        below = np.unique(np.concatenate([surface.left[front], surface.right[front]]))
        front = below[~reached[below]]
    new = np.cumsum(reached) - 1
    return TreeSurface(
        sizes=surface.sizes,
        constant=surface.constant,
        roots=new[surface.roots],
        param=surface.param[reached],
        goes_left=surface.goes_left[reached],
        left=new[surface.left[reached]],
        right=new[surface.right[reached]],
        value=surface.value[reached],
    )
