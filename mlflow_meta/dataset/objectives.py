"""From what was logged to what is sought: metrics, their spellings, and the values of each run.

frame    the runs of a meta-dataset, `n` rows
primary  experiment name -> the objective that its team has set in MLflow
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.columns import columns_with
from mlflow_meta.dataset.metric_names import (
    direction_of,
    groups,
    is_held_out,
    is_resource,
    is_training,
)
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.trials import At, Direction, Objective

Primary = Mapping[str, Objective]
Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]

MAX_NAMED = 8  # metrics, columns or experiments that a message names
_HUGE = 1e300  # MLflow stores +-inf as +-1.797e308


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricProposal:
    """A metric that could be learned, as the data have it.

    Attributes:
        spellings: Its names, in the order in which they count.
        direction: Which values are better; None where neither teams nor names say.
        n_runs: How many runs have it, by any of its names.
        of_runs: Of how many.
        n_experiments: In how many experiments.
        of_experiments: Of how many.
    """

    spellings: tuple[str, ...]
    direction: Direction | None
    n_runs: int
    of_runs: int
    n_experiments: int
    of_experiments: int

    @property
    def coverage(self) -> str:
        """How much of the data it covers, in words."""
        return (
            f"{self.n_runs} of {self.of_runs} runs in {self.n_experiments} of "
            f"{self.of_experiments} experiments"
        )

    def command(self, experiment_names: Sequence[str] = ()) -> str:
        """The command that learns it, from some experiments or from all."""
        sources = [f"-e {shlex.quote(name)}" for name in experiment_names]
        metric = f"--metric {shlex.quote(','.join(self.spellings))}"
        direction = [f"--direction {self.direction.value}"] if self.direction else []
        return " ".join(["mlflow-meta train", *sources, metric, *direction])


def finite(values: pd.Series | Vector) -> Mask:
    """`(n,)` whether a value is a finite number. Beyond 1e300 is how MLflow keeps infinities."""
    if isinstance(values, pd.Series):
        values = values.to_numpy(float, na_value=np.nan)
    return np.asarray(np.abs(values) < _HUGE)


def counts(frame: pd.DataFrame) -> dict[str, int]:
    """Metric -> how many runs have a finite value of it, most first."""
    names = columns_with(frame, "metrics.")
    found = {name.removeprefix("metrics."): int(finite(frame[name]).sum()) for name in names}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def proposals(frame: pd.DataFrame, primary: Primary) -> list[MetricProposal]:
    """See `MetaDataset.proposals`."""
    logged = [name for name, n in counts(frame).items() if n]
    metrics = [names for group in groups(logged) for names in _apart(frame, group)]
    found = [_proposal(frame, primary, names) for names in metrics]
    most = max((proposal.n_runs for proposal in found), default=0)
    return sorted(
        found,
        key=lambda p: (
            2 * p.n_runs < most,
            p.direction is None,
            is_training(p.spellings[0]),
            is_resource(p.spellings[0]),
            -p.n_runs,
            p.direction is not Direction.MINIMIZE,
            not is_held_out(p.spellings[0]),
            p.spellings,
        ),
    )


def _proposal(frame: pd.DataFrame, primary: Primary, spellings: tuple[str, ...]) -> MetricProposal:
    have = _have(frame, spellings)
    sides = set(_implied(primary, spellings).values())
    return MetricProposal(
        spellings=spellings,
        direction=sides.pop() if len(sides) == 1 else None,
        n_runs=int(have.sum()),
        of_runs=len(frame),
        n_experiments=int(frame.loc[have, "experiment"].nunique()),
        of_experiments=int(frame["experiment"].nunique()),
    )


def _apart(frame: pd.DataFrame, group: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The group; or its held-out and its other names, where some run has values of both.

    Keras logs `loss` beside `val_loss`, and means the training's.
    """
    held_out = tuple(name for name in group if is_held_out(name))
    others = tuple(name for name in group if not is_held_out(name))
    if held_out and others and (_have(frame, held_out) & _have(frame, others)).any():
        return [held_out, others]
    return [group]


def _have(frame: pd.DataFrame, spellings: Sequence[str]) -> Mask:
    """`(n,)` whether a run has a finite value under one of the names."""
    have = np.zeros(len(frame), dtype=bool)
    for column in (f"metrics.{name}" for name in spellings):
        if column in frame:
            have |= finite(frame[column])
    return have


def choose(
    frame: pd.DataFrame,
    primary: Primary,
    metric: str | Sequence[str] | None,
    direction: Direction | None,
    at: At,
) -> Objective:
    """See `MetaDataset.objective`."""
    spellings = _primary_metric(frame, primary) if metric is None else _spellings(frame, metric)
    check_logged(frame, spellings)
    chosen = _direction(primary, spellings, direction)
    return Objective(metric=spellings[0], direction=chosen, aliases=spellings[1:], at=at)


def _spellings(frame: pd.DataFrame, metric: str | Sequence[str]) -> tuple[str, ...]:
    """Its names: a sequence, or those between commas; one that was logged with its comma is one."""
    if not isinstance(metric, str):
        return tuple(dict.fromkeys(metric))
    if f"metrics.{metric}" in frame:
        return (metric,)
    parts = dict.fromkeys(part.strip() for part in metric.split(","))
    return tuple(part for part in parts if part) or (metric,)


def _primary_metric(frame: pd.DataFrame, primary: Primary) -> tuple[str, ...]:
    stated = sorted({objective.metric for objective in primary.values()})
    if len(stated) == 1:
        return tuple(stated)
    best = next(iter(proposals(frame, primary)), None)
    why = f" The experiments name several: {listed(stated)}." if stated else ""
    offer = f" The data speak for `{best.command()}` ({best.coverage})." if best else ""
    raise NothingToLearn(
        f"Which metric should be learned?{why}{offer} Pass --metric. Metrics with the number of "
        f"runs that have them: {_counted(frame)}."
    )


def check_logged(frame: pd.DataFrame, spellings: Sequence[str]) -> None:
    """Raise if no run has the metric under any of its names; names those that there are."""
    if frame.empty:
        raise NothingToLearn(
            "The harvest holds no finished run with a metric. Train a few, or harvest other "
            "experiments, with `mlflow-meta harvest`."
        )
    if not _have(frame, spellings).any():
        raise NothingToLearn(
            f"None of the {len(frame)} finished runs has the metric "
            f"{' or '.join(repr(name) for name in spellings)}. Pass --metric with one that was "
            f"logged: {_counted(frame)}."
        )


def _direction(primary: Primary, spellings: Sequence[str], asked: Direction | None) -> Direction:
    """What was asked, else what the experiments or the names say; these must not contradict."""
    sides = {name: o.direction.value for name, o in primary.items() if o.metric in spellings}
    if asked is None and len(set(sides.values())) > 1:
        said = ", ".join(f"{name} says {side}" for name, side in sides.items())
        raise NothingToLearn(
            f"The experiments disagree on {spellings[0]!r}: {said}. Pass --direction, or learn "
            "from those that agree with -e."
        )
    implied = _implied(primary, spellings)
    if len(set(implied.values())) > 1:
        said = ", ".join(f"{name} is to {side.value}" for name, side in implied.items())
        raise NothingToLearn(
            f"The names of one metric must mean the same, but {said}. Pass --metric with names "
            "of one direction."
        )
    chosen = asked or next(iter(implied.values()), None)
    if chosen is None:
        raise NothingToLearn(
            f"Is a low or a high {spellings[0]!r} better? Pass --direction minimize or maximize, "
            "or set the experiment tag mlflow.experiment.primaryMetric.greaterIsBetter."
        )
    return chosen


def _implied(primary: Primary, spellings: Sequence[str]) -> dict[str, Direction]:
    """Name -> its direction by the experiments or else by itself, where one of them says."""
    stated = {o.metric: o.direction for o in primary.values()}
    implied = {name: stated.get(name) or direction_of(name) for name in spellings}
    return {name: side for name, side in implied.items() if side}


def has(frame: pd.DataFrame, objective: Objective) -> bool:
    """Whether a run has the objective's metric, under any of its names."""
    return bool(_have(frame, objective.spellings).any())


def has_curves(frame: pd.DataFrame, objective: Objective) -> bool:
    """Whether the best value on a curve of the metric is known of some run."""
    return any(c in frame and frame[c].notna().any() for c in _curve_columns(objective))


def values(frame: pd.DataFrame, objective: Objective) -> Vector:
    """`(n,)` values of the metric in its own units and direction; nan where a run has none.

    Raises:
        NothingToLearn: If no run has it. If the best of its curve is asked for, and no curve of it
            was harvested.
    """
    check_logged(frame, objective.spellings)
    if objective.at == "best" and not has_curves(frame, objective):
        asked = " ".join(f"--curves {shlex.quote(name)}" for name in objective.spellings)
        raise NothingToLearn(
            f"No curve of {' or '.join(repr(name) for name in objective.spellings)} was harvested, "
            f"so the best value on it is not known. Run `mlflow-meta harvest {asked}` first, or "
            "learn the last values."
        )
    spelt = _spelt(frame, objective)
    first = np.isfinite(spelt).argmax(axis=0)
    return np.asarray(spelt[first, np.arange(len(frame))])


def remarks_on(frame: pd.DataFrame, objective: Objective) -> tuple[str, ...]:
    """What is odd about the values of an objective, as sentences."""
    spelt = _spelt(frame, objective)
    have = np.isfinite(spelt)
    named = zip(objective.spellings, have, strict=True)
    remarks = [f"No run has the metric {name!r}." for name, runs in named if not runs.any()]
    if n := int((np.fmin.reduce(spelt) < np.fmax.reduce(spelt)).sum()):
        remarks.append(
            f"{n} runs have different values under several of the names "
            f"{listed(objective.spellings)}: the first that a run has counts."
        )
    if objective.at == "best":
        curves = np.zeros(len(frame), dtype=bool)
        for column in _curve_columns(objective):
            curves |= finite(frame[column]) if column in frame else False
        if n := int((have.any(axis=0) & ~curves).sum()):
            remarks.append(f"No curve of {n} runs was harvested: their last value counts.")
    return tuple(remarks)


def _spelt(frame: pd.DataFrame, objective: Objective) -> NDArray[np.float64]:
    """`(s, n)` values under each of the metric's names; nan where a run has none."""
    layers = [[f"metrics.{name}" for name in objective.spellings]]
    if objective.at == "best":
        layers.append(_curve_columns(objective))  # covers the last value, where it is known
    spelt = np.full((len(objective.spellings), len(frame)), np.nan)
    for layer in layers:
        for place, column in enumerate(layer):
            if column in frame:
                numbers = frame[column].to_numpy(float, na_value=np.nan)
                spelt[place] = np.where(finite(numbers), numbers, spelt[place])
    return spelt


def _curve_columns(objective: Objective) -> list[str]:
    """Where the best value on the curve of each of the metric's names stands."""
    best = "min" if objective.direction is Direction.MINIMIZE else "max"
    return [f"{best}.{name}" for name in objective.spellings]


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _counted(frame: pd.DataFrame) -> str:
    most = list(counts(frame).items())[:MAX_NAMED]
    return ", ".join(f"{name} ({n})" for name, n in most) or "none"
