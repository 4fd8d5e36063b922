"""The ledger of an experiment: which run a suggestion has, decided once and for all.

It is a run of ours with a write-once param for each entry. That there is only one ledger is decided
in the same way, by a run that is named by a tag of the only experiment that can have its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_meta.errors import StoreRefused
from mlflow_meta.store import names
from mlflow_meta.store.contract import Store

_KEY = "ledger."
_NOTE = (
    "mlflow-meta keeps a tag here that must never be doubled: which run all its ledgers start "
    "from. It needs no runs. Leave it as it is."
)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger of an experiment.

    Attributes:
        store: Where it is.
        run_id: Our run that holds it.
        experiment_id: The experiment that it is about.
    """

    store: Store
    run_id: str
    experiment_id: str

    @classmethod
    def of(cls, store: Store, experiment_id: str) -> Ledger:
        """The only one of an experiment; made where there is none."""
        root = _root(store)
        key = _key(experiment_id)
        run_id = store.get_run(root).params.get(key)
        if run_id is None:
            candidate = _closed_run(store, f"ledger of experiment {experiment_id}")
            run_id = store.log_once(root, key, candidate)
        return cls(store, run_id, experiment_id)

    @classmethod
    def known(cls, store: Store, experiment_id: str) -> Ledger | None:
        """The only one of an experiment; None where there is none yet, and nothing is made."""
        tags = store.experiment_once(names.LEDGER_EXPERIMENT, {})
        if names.ROOT not in tags:
            return None
        run_id = store.get_run(tags[names.ROOT]).params.get(_key(experiment_id))
        return None if run_id is None else cls(store, run_id, experiment_id)

    def entries(self) -> Mapping[str, str]:
        """All of it by now: key -> run id."""
        return self.store.get_run(self.run_id).params

    def enter(self, key: str, run_id: str) -> str:
        """Enter a run under a key, unless one is there already; the one that stands."""
        return self.store.log_once(self.run_id, key, run_id)


def known_experiments(store: Store) -> set[str]:
    """The ids of the experiments that have a ledger; nothing is made."""
    tags = store.experiment_once(names.LEDGER_EXPERIMENT, {})
    if names.ROOT not in tags:
        return set()
    keys = store.get_run(tags[names.ROOT]).params
    return {key.removeprefix(_KEY) for key in keys if key.startswith(_KEY)}


def _key(experiment_id: str) -> str:
    return f"{_KEY}{experiment_id}"


def _root(store: Store) -> str:
    """The run that names the ledgers of all experiments."""
    tags = store.experiment_once(names.LEDGER_EXPERIMENT, {})
    if names.ROOT not in tags:
        candidate = _closed_run(store, "ledgers")
        about = {names.ROOT: candidate, "mlflow.note.content": _NOTE}
        tags = store.experiment_once(names.LEDGER_EXPERIMENT, about)
    if names.ROOT not in tags:
        raise StoreRefused(
            f"The experiment {names.LEDGER_EXPERIMENT!r} was not made by mlflow-meta, which needs "
            "that name for itself: rename it, and run the same command again."
        )
    return tags[names.ROOT]


def _closed_run(store: Store, name: str) -> str:
    """A run of ours that holds params; nobody waits for it to end."""
    run_id = store.create_run(store.own_experiment_id(), name, {names.KIND: "ledger"})
    store.set_status(run_id, "FINISHED")
    return run_id
