"""The values that travel: what was tried, what is sought, what comes next.

A *run* is MLflow's record; a *trial* is the part of it that a meta-model may see. `store` is the
only module that turns one into the other, so nothing else knows how MLflow spells it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

ConfigValue = str | int | float | bool
Config = Mapping[str, ConfigValue]


class Direction(str, Enum):
    """Which values of a metric are better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"

    @property
    def sign(self) -> int:
        """+1 or -1: `sign * metric` is always to be minimised."""
        return 1 if self is Direction.MINIMIZE else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is sought. Inside, `value = direction.sign * metric` is always minimised.

    Attributes:
        metric: The metric's name as it was logged.
        direction: Which values of it are better.
    """

    metric: str
    direction: Direction

    def __post_init__(self) -> None:
        if not self.metric:
            raise ValueError("An objective needs the name of a metric, but got an empty one.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A configuration that is worth training next.

    Attributes:
        rank: 1 is the best.
        config: What to train. Keys are param names, values have the type seen in history.
        mean: Expected metric, in the metric's own units and direction.
        std: Standard deviation of that prediction, in the same units; half of its central 68%.
        low: Lower end of the 80% prediction interval, in the metric's own units.
        high: Upper end of it.
    """

    rank: int
    config: Config
    mean: float
    std: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"`rank >= 1` must hold, but got {self.rank}.")
        if not self.low <= self.mean <= self.high:
            raise ValueError(
                f"`low <= mean <= high` must hold, but suggestion {self.rank} has "
                f"({self.low}, {self.mean}, {self.high})."
            )
