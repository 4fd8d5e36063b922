"""Overview: which experiments were harvested, and which meta-models there are. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow_meta.columns import columns_with
from mlflow_meta.store import MlflowStore, registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvested:
    """An experiment in the newest harvest.

    Attributes:
        name: Its name.
        n_trials: How many of its runs teach something.
        tasks: What they are about; several where it has several data sets.
        varied: The params that differ between its runs.
        metrics: Metric -> how many runs have it, most first.
    """

    name: str
    n_trials: int
    tasks: Sequence[str]
    varied: Sequence[str]
    metrics: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What there is to ask about.

    Attributes:
        experiments: In the order of their names.
        models: Registered model -> the metric that it predicts; those with a champion.
    """

    experiments: Sequence[Harvested]
    models: Mapping[str, str]


def overview(store: MlflowStore) -> Overview:
    """What the newest harvest has, and which meta-models can be asked.

    Raises:
        NothingToLearn: If nothing was harvested.
    """
    dataset = store.dataset()[1]
    found = []
    for name in sorted({str(name) for name in dataset.frame["experiment"]}):
        part = dataset.only([name])
        params = columns_with(part.frame, "params.")
        found.append(
            Harvested(
                name=name,
                n_trials=len(part),
                tasks=part.tasks,
                varied=[c.removeprefix("params.") for c in params if part.frame[c].nunique() > 1],
                metrics=part.metrics(),
            )
        )
    return Overview(experiments=found, models=registry.champions(store))
