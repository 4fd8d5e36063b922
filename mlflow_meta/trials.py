"""The values that travel: what was tried, what is sought, what comes next.

A *run* is MLflow's record; a *trial* is the part of it that a meta-model may see. `store` is the
only module that turns one into the other, so nothing else knows how MLflow spells it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, get_args

UNSEEN = 1e-6  # share of a prediction that its shown digits do not tell

DURATION = "duration"
"""The name of the objective that is no metric: seconds of training, to be minimised."""
ConfigValue = str | int | float | bool
Config = Mapping[str, ConfigValue]
At = Literal["last", "best"]
"""Which value of a metric's curve counts: the last that was logged, or the best of all."""


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
        aliases: Other spellings of the same metric. Of a run's values, the first one counts.
        at: Which value of the metric's curve counts.
    """

    metric: str
    direction: Direction
    aliases: tuple[str, ...] = ()
    at: At = "last"

    def __post_init__(self) -> None:
        if not all(self.spellings):
            raise ValueError("An objective needs the name of a metric, but got an empty one.")
        if len(set(self.spellings)) < len(self.spellings):
            raise ValueError(f"The spellings of a metric must differ, but got {self.spellings}.")
        if self.at not in get_args(At):
            raise ValueError(f"`at` must be one of {get_args(At)}, but got {self.at!r}.")

    @property
    def spellings(self) -> tuple[str, ...]:
        """The metric and its aliases, in the order in which they count."""
        return (self.metric, *self.aliases)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "metric": self.metric,
            "direction": self.direction.value,
            "aliases": list(self.aliases),
            "at": self.at,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Objective:
        """Inverse of `to_dict`; what is not the default alone must be there."""
        return cls(
            metric=data["metric"],
            direction=Direction(data["direction"]),
            aliases=tuple(data.get("aliases", ())),
            at=data.get("at", "last"),
        )


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
        duration_s: Seconds that it is predicted to take; None where too few runs say how long
            they took.
        others: Name -> expected value of the further objectives that were asked for, in their own
            units.
        front: Among the task's runs and these suggestions, the Pareto front that it would be of: 1
            if none is at least as good in all objectives and better in one. None where one
            objective was asked for.
    """

    rank: int
    config: Config
    mean: float
    std: float
    low: float
    high: float
    duration_s: float | None = None
    others: Mapping[str, float] = field(default_factory=dict)
    front: int | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"`rank >= 1` must hold, but got {self.rank}.")
        if not self.low <= self.mean <= self.high:
            raise ValueError(
                f"`low <= mean <= high` must hold, but suggestion {self.rank} has "
                f"({self.low}, {self.mean}, {self.high})."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What a search for the best predicted configuration has found out.

    Attributes:
        n_configs: How many configurations it was about; of a continuous parameter, levels, or inf
            where it was not cut into levels.
        n_assessed: How many of them are accounted for: predicted, or ruled out together.
        best: The best prediction that was found.
        bound: No configuration is predicted better than that; infinitely good where nothing is
            known. Of the metric's own units and direction, as `best` is.
        engine: What searched, a name of `search.ENGINES` or "local".
        seconds: How long it took.
        is_interrupted: Whether Ctrl-C has stopped it.
    """

    n_configs: float
    n_assessed: int
    best: float
    bound: float
    engine: str
    seconds: float
    is_interrupted: bool = False

    @property
    def gap(self) -> float:
        """By how much `best` may be beaten at most, >= 0; inf where nothing is known."""
        return abs(self.best - self.bound)

    @property
    def sentence(self) -> str:
        """What was done, and what is proven."""
        time = f"{self.seconds:.1f} s" if self.seconds >= 0.1 else f"{1000 * self.seconds:.0f} ms"
        took = f"in {time}" + (", stopped by Ctrl-C" if self.is_interrupted else "")
        is_whole = self.n_assessed == self.n_configs
        n, asked = _many(self.n_configs), _many(self.n_assessed)
        if math.isinf(self.n_configs):
            so_many = f"{asked} configurations of a continuous space"
        else:
            so_many = f"{n if is_whole else f'{asked} of {n}'} configurations"
        if self.engine == "local" and not is_whole:
            return (
                f"Predicted {so_many} {took}, broad to narrow: this model has no formula by which "
                "the others could be ruled out."
            )
        if math.isinf(self.gap):
            every, nothing = ("all ", "") if is_whole else ("", "; nothing is proven")
            return f"Predicted {every}{so_many} {took}{nothing}."
        said = f"Assessed {so_many} {took}: none is predicted better than"
        if self.gap <= UNSEEN * abs(self.best):
            return f"{said} suggestion 1."
        return f"{said} {self.best:.5g} by more than {self.gap:.2g}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestions:
    """A ranked batch of configurations.

    Attributes:
        items: The suggestions, best first.
        run_ids: The SCHEDULED runs that hold them, in the same order; empty after a dry run.
        task: What they are for.
        tasks_by: What makes a task, as `MetaDataset.with_tasks` takes it.
        objective: What they are to improve.
        best_so_far: The best value of the metric among the task's trials; nan if it has none.
        model: Name and version of the meta-model, such as `mlflow-meta-rmse v3`; empty where none
            was asked.
        view: Address of a view of the MLflow UI that shows them beside the runs, from the server's
            root; empty after a dry run.
        n_unseen: How many harvested trials the registered meta-model has not learned from; it was
            updated with them before the search.
        has_signal: Whether the meta-model could tell good from bad on held-out trials.
        never_logged: Params of the space that no trial has, so that nothing is known of them,
            each with the logged one that may be meant.
        searched: What the search for the best has found out; None where no meta-model was asked.
        run_id: Our run that holds the batch, with all that is needed to search again; empty after
            a dry run.
        is_repeated: Whether the same was asked before, and is told again.
        remarks: On what people have given as reasons for rejections, as sentences.
        avoided: Where runs have failed, with how many: `batch_size>=512 (failed 9 of 10)`.
    """

    items: Sequence[Suggestion]
    run_ids: Sequence[str]
    task: str
    tasks_by: str
    objective: Objective
    best_so_far: float
    model: str
    view: str
    n_unseen: int
    has_signal: bool
    never_logged: Sequence[str]
    searched: Searched | None = None
    run_id: str = ""
    is_repeated: bool = False
    remarks: Sequence[str] = ()
    avoided: Sequence[str] = ()

    @property
    def duration_s(self) -> float | None:
        """Seconds that all of them are predicted to take; None where that is not known of each."""
        each = [item.duration_s for item in self.items if item.duration_s is not None]
        return sum(each) if each and len(each) == len(self.items) else None


def _many(n: float) -> str:
    """A number of configurations: whole where it can be read, else as a power of ten."""
    return f"{n:,.0f}" if n < 1e7 else f"{float(n):.1e}".replace("e+", "e")
