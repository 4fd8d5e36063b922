"""Harvest: finished runs -> a meta-dataset, kept as an artifact of a harvest run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlflow_meta.dataset import MetaDataset
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.store import MlflowStore, names


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """What a harvest brought in.

    Attributes:
        run_id: The harvest run, which holds the meta-dataset; empty after a dry run.
        dataset: The meta-dataset.
    """

    run_id: str
    dataset: MetaDataset

    @property
    def n_trials(self) -> int:
        """How many runs teach something."""
        return len(self.dataset)

    @property
    def n_quarantined(self) -> int:
        """How many were read and left out."""
        return sum(self.dataset.quarantined.values())


def harvest(
    store: MlflowStore,
    experiment_names: Sequence[str] = (),
    *,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Harvest:
    """Read every run of the experiments into a meta-dataset.

    Args:
        store: Where to read, and to keep the result.
        experiment_names: Which experiments; none for all.
        dry_run: Read, and write nothing.
        progress: Called with how many runs have been read so far.

    Raises:
        NothingToLearn: If an experiment does not exist, or no run in any is finished.
    """
    dataset = store.read(experiment_names, progress=progress)
    if not len(dataset):
        where = (
            ", ".join(repr(name) for name in experiment_names) or f"any experiment of {store.uri}"
        )
        why = ", ".join(f"{n} {reason}" for reason, n in dataset.quarantined.items())
        raise NothingToLearn(
            f"No finished run with a metric in {where}{f' ({why})' if why else ''}. mlflow-meta "
            "learns from runs that have params and metrics: train a few first."
        )
    if dry_run:
        return Harvest(run_id="", dataset=dataset)
    with store.own_run("harvest", {names.KIND: "harvest"}) as run_id:
        store.log(
            run_id,
            params={"experiments": ",".join(experiment_names) or "all"},
            metrics={
                "n_trials": len(dataset),
                "n_quarantined": sum(dataset.quarantined.values()),
                "n_tasks": len(dataset.tasks),
            },
        )
        store.log_files(run_id, {names.DATASET_FILE: dataset.to_parquet()})
    return Harvest(run_id=run_id, dataset=dataset)
