"""What may be spent on the runs that are suggested, and whether it counts what each takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.models.durations import Durations

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is asked of time and hardware.

    Attributes:
        longest_s: Seconds that no run may be predicted to exceed; None for any.
        budget_s: Seconds that all of them together may be predicted to take; None for any.
        is_per_hour: Whether what a run is expected to gain counts per hour that it takes.
        hardware: What they would run on, as `hardware.<name>` -> value; what is not said is as it
            was for the task's best run.
    """

    longest_s: float | None = None
    budget_s: float | None = None
    is_per_hour: bool = False
    hardware: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("longest_s", "budget_s"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds < math.inf:
                raise ValueError(f"`0 < {name} < inf` must hold, but got {seconds}.")

    @property
    def limit_s(self) -> float:
        """Seconds beyond which a run is out of the question; inf where there is no such limit."""
        return min(self.longest_s or math.inf, self.budget_s or math.inf)

    @property
    def weighs(self) -> bool:
        """Whether of two equal gains the one that takes less time is worth more."""
        return self.is_per_hour or self.budget_s is not None

    @property
    def is_any(self) -> bool:
        """Whether time is asked about at all."""
        return self.weighs or self.longest_s is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; `Limits(**data)` is its inverse."""
        return {**asdict(self), "hardware": dict(self.hardware)}


ANY = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What may be spent on a batch, and what tells how long each run takes."""

    limits: Limits
    durations: Durations

    def worth(self, gain: Vector, frame: pd.DataFrame) -> Vector:
        """What each of the rows is worth `(n,)`, to be maximised, for its expected gain `(n,)`.

        Those that would take too long are all worth less than nothing: the longer, the less, so
        that a search finds out of where they are.
        """
        seconds = self.durations.seconds(frame)
        weighed = gain / seconds if self.limits.weighs else gain
        return np.asarray(np.where(seconds <= self.limits.limit_s, weighed, -np.log1p(seconds)))
