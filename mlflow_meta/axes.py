"""Axes: how numbers are laid out, the same in a picture as on a page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDE = 30.0  # highest to lowest, from where a scale is logarithmic
_MARGIN = 0.04  # of an axis, at either end
_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))
_MIN_UNITS = 2.0  # of a unit of time that an axis must have to be labelled with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What an axis shows.

    Attributes:
        low: Its lower end.
        high: Its upper end, above `low`.
        log: Whether its scale is logarithmic; `low` is then positive.
    """

    low: float
    high: float
    log: bool


def is_wide(values: ArrayLike) -> bool:
    """Whether numbers, `(n,)`, are positive and so far apart that a linear scale hides most."""
    known = _finite(values)
    return bool(len(known) and known.min() > 0 and known.max() / known.min() >= WIDE)


def value_range(points: ArrayLike, ends: ArrayLike) -> Range:
    """The axis of a metric: all points are on it, and the intervals around them where they fit.

    An interval much wider than the others would flatten all that is to be compared, so an end of
    it may lie outside: beyond the points by more than half their span, and by more than twice what
    is usual for ends.

    Args:
        points: What was got and what was predicted, `(n,)`; NaN for what is not known.
        ends: Of the intervals, `(m,)`.
    """
    known, reach = _finite(points), _finite(ends)
    if not len(known):
        return Range(low=0.0, high=1.0, log=False)
    log = is_wide(known)
    if log:
        known, reach = np.log10(known), np.log10(reach[reach > 0])
    low, high = known.min(), known.max()
    usual = np.median(np.abs(reach - np.median(known))) if len(reach) else 0.0
    room = max((high - low) / 2, 2 * usual)
    low, high = (
        max(low - room, reach.min(initial=low)),
        min(high + room, reach.max(initial=high)),
    )
    margin = _MARGIN * (high - low) or abs(low) / 10 or 1.0
    low, high = low - margin, high + margin
    return Range(low=float(10**low if log else low), high=float(10**high if log else high), log=log)


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit in which an axis of so many seconds has readable numbers, and its seconds."""
    return next(((name, size) for name, size in _UNITS if seconds >= _MIN_UNITS * size), _UNITS[-1])


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=float).ravel()
    return np.asarray(numbers[np.isfinite(numbers)])
