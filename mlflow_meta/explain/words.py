"""What importance and curves come to, in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlflow_meta.metrics import spearman
from mlflow_meta.space import Categorical, Param, SearchSpace
from mlflow_meta.trials import Direction

_MONOTONE = 0.9  # rank correlation from which a curve is told as rising or falling
_FLAT = 0.05  # of the largest curve's range, below which a curve says nothing


def effect(curve: pd.DataFrame, param: Param, name: str, direction: Direction) -> str:
    """What a curve says, as half a sentence whose subject is the metric."""
    means = curve["mean"].to_numpy(float)
    best = int(np.argmin(direction.sign * means))
    if isinstance(param, Categorical) and not param.is_ordered:
        return f"is best with {name} = {curve['at'][best]}"
    trend = spearman(np.arange(len(means), dtype=float), means) if np.ptp(means) > 0 else 0.0
    ends = f"({means[0]:.3g} at {_short(curve['at'].iloc[0])}, {means[-1]:.3g} at " \
           f"{_short(curve['at'].iloc[-1])})"  # fmt: skip
    if abs(trend) >= _MONOTONE:
        return f"{'rises' if trend > 0 else 'falls'} with {name} {ends}"
    return f"is best with {name} near {_short(curve['at'][best])}"


def sentence(
    curves: Mapping[str, pd.DataFrame],
    space: SearchSpace,
    metric: str,
    direction: Direction,
    n: int = 3,
) -> str:
    """What the first `n` params do, in one sentence; of flat curves, nothing."""
    ranges = {name: float(np.ptp(curve["mean"])) for name, curve in curves.items()}
    most = max(ranges.values(), default=0.0)
    told = [
        effect(curves[name], space.params[name], name, direction)
        for name, width in ranges.items()
        if most > 0 and width >= _FLAT * most
    ][:n]
    if not told:
        return f"{metric} is expected to be the same whatever the params are."
    return f"{metric} {', '.join(told[:-1])}{' and ' if told[:-1] else ''}{told[-1]}."


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
