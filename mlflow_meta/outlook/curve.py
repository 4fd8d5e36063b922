"""A curve: what a training has shown of its metric, step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlflow_meta.trials import At

Vector = NDArray[np.float64]
Steps = NDArray[np.int64]

RECENT = 0.4  # of the steps so far, over which it is seen how far a curve has come lately


@dataclass(frozen=True, slots=True)
class Curve:
    """The history of a metric of one run.

    Attributes:
        steps: `(k,)`, k >= 1, each more than the one before.
        values: `(k,)` finite; minimised.
    """

    steps: Steps
    values: Vector

    def __post_init__(self) -> None:
        if not (self.steps.ndim == 1 and len(self.steps) and self.steps.shape == self.values.shape):
            raise ValueError(
                "A curve needs as many values as steps, and one at least, but got the shapes "
                f"{self.values.shape} and {self.steps.shape}."
            )
        if (self.steps[1:] <= self.steps[:-1]).any() or not np.isfinite(self.values).all():
            raise ValueError("A curve's steps must rise, and its values must be finite.")

    @classmethod
    def of(cls, steps: ArrayLike, values: ArrayLike) -> Curve:
        """From what was logged, in the order of time.

        Of several values at a step the last one counts; where all are logged at the same step,
        their order takes its place. What is not finite is no value.

        Args:
            steps: `(m,)` whole numbers, in any order.
            values: `(m,)`, minimised.

        Raises:
            ValueError: If no value is finite, or the shapes differ.
        """
        step, value = np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=float)
        if step.shape != value.shape or step.ndim != 1:
            raise ValueError(f"`steps` and `values` differ: {step.shape} and {value.shape}.")
        finite = np.isfinite(value)
        step, value = step[finite], value[finite]
        if len(step) > 1 and (step == step[0]).all():
            step = np.arange(len(step), dtype=np.int64)
        backwards, first = np.unique(step[::-1], return_index=True)
        return cls(backwards, value[::-1][first])

    @property
    def end(self) -> int:
        """The last step."""
        return int(self.steps[-1])

    def value(self, at: At) -> float:
        """The last value, or the best one."""
        return float(self.values.min() if at == "best" else self.values[-1])

    def n_until(self, step: int) -> int:
        """How many points it has until a step, that one included."""
        return int(np.searchsorted(self.steps, step, side="right"))

    def shown(self, step: int) -> Vector:
        """`(3,)`: its last value until a step, its best one, and how far it has fallen lately.

        Args:
            step: Not before the first one.
        """
        until = self.values[: self.n_until(step)]
        lately = self.steps[0] + (1 - RECENT) * (step - self.steps[0])
        before = self.values[max(self.n_until(int(lately)), 1) - 1]
        return np.array([until[-1], until.min(), before - until[-1]])
