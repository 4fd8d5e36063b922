"""Versions of registered meta-models: which run made them; read, never written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlflow_meta.store.connection import translated
from mlflow_meta.store.mlflow_store import MlflowStore

_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such version; no number
_AT_ONCE = 50  # runs that the registry is asked about in one request: an address has its bounds
_RUN_ID = re.compile(r"[\w.-]+", re.ASCII)  # what may stand in a filter


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of a registered meta-model.

    Attributes:
        name: The model's name and the version's number, with a slash between.
        run_id: The run that made it.
        aliases: As `champion`.
    """

    name: str
    run_id: str
    aliases: tuple[str, ...]


@translated
def version(store: MlflowStore, name: str) -> Version | None:
    """A version of `Version.name`; None if the registry has it no more."""
    model, _, number = name.rpartition("/")
    try:
        return _version(store.client.get_model_version(model, number), _aliases(store, model))
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        return None


@translated
def made_by(store: MlflowStore, run_ids: Sequence[str]) -> list[Version]:
    """The versions that some trainings have made."""
    made: list[Version] = []
    aliases: dict[str, Mapping[str, str]] = {}
    safe = iter([run_id for run_id in run_ids if _RUN_ID.fullmatch(run_id)])
    while part := list(islice(safe, _AT_ONCE)):
        ids = ", ".join(f"'{run_id}'" for run_id in part)
        for found in _pages(store, f"run_id IN ({ids})"):
            if found.name not in aliases:
                aliases[found.name] = _aliases(store, found.name)
            made.append(_version(found, aliases[found.name]))
    return made


def _pages(store: MlflowStore, passing: str) -> Iterable[ModelVersion]:
    token = None
    while True:
        page = store.client.search_model_versions(passing, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _aliases(store: MlflowStore, model: str) -> Mapping[str, str]:
    """Alias -> version. What a search answers lacks them."""
    return dict(store.client.get_registered_model(model).aliases or {})


def _version(found: ModelVersion, aliases: Mapping[str, str]) -> Version:
    return Version(
        name=f"{found.name}/{found.version}",
        run_id=str(found.run_id or ""),
        aliases=tuple(
            name for name, number in aliases.items() if str(number) == str(found.version)
        ),
    )
