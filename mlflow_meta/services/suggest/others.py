"""Further objectives of a search: the duration, or another metric that the runs have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.columns import columns_with
from mlflow_meta.dataset.metric_names import direction_of
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.known import Known
from mlflow_meta.models import ZOO, JointSampler, MetaModel
from mlflow_meta.pareto import fronts
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import DURATION, Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A further objective.

    Attributes:
        name: The metric's, or `DURATION`.
        direction: Which values of it are better.
        trials: Those that have it, with it as their `value` (minimised).
    """

    name: str
    direction: Direction
    trials: pd.DataFrame

    def model(self, space: SearchSpace) -> MetaModel:
        """What predicts it, learned from its trials.

        Raises:
            TooLittle: If these are too few.
        """
        return _learned(self.trials, space)


def others_of(texts: Sequence[str], known: Known) -> list[Other]:
    """The objectives as people write them: `duration`, `model_size`, `auc:maximize`.

    Raises:
        NothingToLearn: If no trial has one, or its name does not say which values are better.
    """
    return [_other(text, known) for text in texts]


def _other(text: str, known: Known) -> Other:
    name, _, said = text.partition(":") if f"metrics.{text}" not in known.runs else (text, "", "")
    if name == DURATION:
        values, direction = known.trials["duration_s"], Direction.MINIMIZE
    else:
        column = f"metrics.{name}"
        if column not in known.runs:
            there = [c.removeprefix("metrics.") for c in columns_with(known.runs, "metrics.")]
            raise NothingToLearn(
                f"No run has the metric {name!r}, so it can't be improved too. Pass --also with "
                f"{DURATION} or one of {', '.join(there)}."
            )
        direction = Direction(said) if said else _direction(name)
        by_run = known.runs.set_index("run_id")[column]
        values = direction.sign * known.trials["run_id"].map(by_run)
    numbers = values.to_numpy(float, na_value=np.nan)
    kept = np.isfinite(numbers)
    trials = known.trials[kept].assign(value=numbers[kept]).reset_index(drop=True)
    return Other(name=name, direction=direction, trials=trials)


def _direction(name: str) -> Direction:
    found = direction_of(name)
    if found is None:
        raise NothingToLearn(
            f"The name {name!r} does not say which of its values are better. Write "
            f"--also {name}:minimize or --also {name}:maximize."
        )
    return found


def joint(model: MetaModel, trials: pd.DataFrame, space: SearchSpace) -> MetaModel:
    """The model itself where it can be drawn from jointly, else one that learns the same and can.

    Raises:
        TooLittle: If the trials are too few.
    """
    return model if isinstance(model.regressor, JointSampler) else _learned(trials, space)


def _learned(trials: pd.DataFrame, space: SearchSpace) -> MetaModel:
    model = ZOO["transfer"]()
    model.learn(trials, space)
    return model


def seen_values(own: pd.DataFrame, others: Sequence[Other]) -> NDArray[np.float64]:
    """What the task's runs got `(m, k)`, each minimised, of those that have all objectives.

    Args:
        own: The task's trials, with the objective's values.
        others: The k - 1 others.
    """
    known = [own.set_index("run_id")["value"]]
    known += [other.trials.set_index("run_id")["value"] for other in others]
    return pd.concat(known, axis="columns", join="inner").to_numpy(float)


def fronts_among(
    predicted: NDArray[np.float64], own: pd.DataFrame, others: Sequence[Other]
) -> list[int]:
    """The front that each suggestion would be of, beside the task's runs.

    Args:
        predicted: `(n, k)`, of the objective and the others, each minimised.
        own: The task's trials, with the objective's values.
        others: The k - 1 others.
    """
    places = fronts(np.concatenate([predicted, seen_values(own, others)]))
    return [int(place) for place in places[: len(predicted)]]
