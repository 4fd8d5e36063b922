"""Separable bounds of a surface, for branch and bound: exact for a sum, and a network's.

theta:  `(n_1 + ... + n_P,)`, for the levels of all parameters after each other
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.surface import AdditiveSurface, ReluSurface, Surface, TreeSurface

if TYPE_CHECKING:
    from mlflow_meta.search.branch import Relaxation

Vector = NDArray[np.float64]
Allowed = NDArray[np.bool_]

TOLERANCE = 1e-9  # what rounding may do to a bound, as a share of what the surface spans


def relaxation_of(surface: Surface) -> Relaxation:
    """The bounds that fit a surface."""
    if isinstance(surface, AdditiveSurface):
        return Sum(surface)
    if isinstance(surface, ReluSurface):
        return Units(surface)
    if isinstance(surface, TreeSurface):
        from mlflow_meta.search.relaxed_trees import Dual

        return Dual(surface)
    raise TypeError(f"There is no bound for {type(surface).__name__}.")


def struck(
    theta: Vector, constant: float, allowed: Allowed, offsets: NDArray[np.int64], cut: float
) -> float:
    """The bound; strikes out of `allowed` the levels that can't be part of a row below `cut`."""
    masked = np.where(allowed, theta, np.inf)
    lowest = np.minimum.reduceat(masked, offsets[:-1])
    bound = constant + float(lowest.sum())
    if bound < cut:
        regret = masked - np.repeat(lowest, np.diff(offsets))
        allowed &= bound + regret < cut
    return bound


class Sum:
    """An additive surface bounds itself."""

    is_in_order = is_unfinished = False

    def __init__(self, surface: AdditiveSurface) -> None:
        """The surface is kept."""
        self._offsets = np.concatenate([[0], np.cumsum(surface.sizes)])
        self._constant = surface.constant
        self.tolerance = TOLERANCE * sum(float(np.abs(table).max()) for table in surface.tables)
        self.floor = surface.constant + sum(float(table.min()) for table in surface.tables)
        self.theta = np.concatenate(surface.tables)

    def tighten(self, allowed: Allowed, cut: float, state: Any) -> tuple[float, Any]:
        """See `Relaxation`."""
        return struck(self.theta, self._constant, allowed, self._offsets, cut), state


class Units:
    """A network: each unit between its straight lines over the node.

    Over a node, what goes into unit h, z = bias + sum_p table_p[x_p], lies in [low, high]. Where it
    is never negative, max(z, 0) = z; where never positive, 0. Otherwise

        -max(z, 0) >= -high (z - low) / (high - low)      the chord, for a unit of negative weight
         max(z, 0) >= s z  with s in [0, 1]               a tangent, for one of positive weight

    with s = high / (high - low), the chord's slope (Zhang et al., 2018, and others since).
    """

    is_in_order = is_unfinished = False

    def __init__(self, surface: ReluSurface) -> None:
        """The surface is kept."""
        self._surface = surface
        self._table = np.concatenate(surface.tables)
        self._offsets = np.concatenate([[0], np.cumsum(surface.sizes)])
        self.theta = np.zeros(len(self._table))
        spans = [np.abs(table).max(axis=0) for table in surface.tables]
        reach = (np.abs(surface.bias) + sum(spans)) @ np.abs(surface.out)
        self.tolerance = TOLERANCE * float(reach)
        low = surface.bias + sum(table.min(axis=0) for table in surface.tables)
        high = surface.bias + sum(table.max(axis=0) for table in surface.tables)
        least = np.where(surface.out < 0, high, low)
        self.floor = surface.constant + float(np.maximum(least, 0.0) @ surface.out)

    def tighten(self, allowed: Allowed, cut: float, state: Any) -> tuple[float, Any]:
        """See `Relaxation`."""
        surface, starts = self._surface, self._offsets[:-1]
        while True:
            n_before = int(allowed.sum())
            if not np.logical_or.reduceat(allowed, starts).all():
                return np.inf, state
            least = np.where(allowed[:, None], self._table, np.inf)
            most = np.where(allowed[:, None], self._table, -np.inf)
            low = surface.bias + np.minimum.reduceat(least, starts).sum(axis=0)
            high = surface.bias + np.maximum.reduceat(most, starts).sum(axis=0)
            mixed = (low < 0) & (high > 0)
            width = np.where(mixed, high - low, 1.0)
            slope = np.where(mixed, high / width, low >= 0)
            lift = np.where(mixed & (surface.out < 0), -low * slope, 0.0)
            self.theta = self._table @ (slope * surface.out)
            constant = surface.constant + float(surface.out @ (slope * surface.bias + lift))
            bound = struck(self.theta, constant, allowed, self._offsets, cut)
            # What was struck out makes the units' ranges narrower, and so the bound higher.
            if bound >= cut or allowed.sum() > 0.8 * n_before:
                return bound, state
