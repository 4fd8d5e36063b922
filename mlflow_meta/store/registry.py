"""The model registry: meta-models in, meta-models out, without pickle; see `model_folder`."""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlflow_meta import shown
from mlflow_meta.errors import Damaged, NoModel, StoreRefused
from mlflow_meta.served.packed import Packed, unpack
from mlflow_meta.store import model_folder, names, sealed_versions
from mlflow_meta.store.connection import translated
from mlflow_meta.store.mlflow_runs import PAGE
from mlflow_meta.store.mlflow_store import MlflowStore
from mlflow_meta.store.patience import ATTEMPTS, Unsure, cause, waits
from mlflow_meta.store.permissions import (
    REFUSED,
    check_may_edit_model,
    needing,
    user,
)
from mlflow_meta.trials import Objective

_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model; no such alias
_NOTHING = "Nothing was written."
MAX_COLUMNS = 500  # that fit into what MLflow keeps of a data set's schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered(Packed):
    """A meta-model in the registry.

    Attributes:
        name: The registered model's name.
        version: Which version of it.
        run_id: The training run.
        tags: Of the version.
    """

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)


def model_name(metric: str) -> str:
    """The registered model's name for a metric; MLflow allows neither `/` nor `:` in it."""
    return f"mlflow-meta-{metric.replace('/', '-').replace(':', '-')}"


@translated
def log_training_data(
    store: MlflowStore, run_id: str, trials: pd.DataFrame, harvest_run_id: str
) -> None:
    """Log the trials that a meta-model was trained on as the input of its run."""
    columns = [{"name": name, "type": str(trials[name].dtype)} for name in trials]
    digest = hashlib.sha256("\n".join(trials["run_id"]).encode()).hexdigest()
    dataset = Dataset(
        name="meta-dataset",
        digest=digest[:8],
        source_type="mlflow_run",
        source=json.dumps({"uri": f"runs:/{harvest_run_id}/{names.DATASET_FILE}"}),
        schema=json.dumps({"mlflow_colspec": columns[:MAX_COLUMNS]}),
        profile=json.dumps({"num_rows": len(trials), "num_elements": trials.size}),
    )
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
    store.client.log_inputs(run_id, inputs)


@translated
def register(
    store: MlflowStore,
    run_id: str,
    name: str,
    it: model_folder.Servable,
) -> str:
    """Log a meta-model as an MLflow model that can be served, and register it as the challenger.

    Args:
        store: The tracking store, which is the registry too.
        run_id: The training run that the model belongs to.
        name: The registered model's name, which `reserve` has seen.
        it: The model, with what its version is tagged with.

    Returns:
        The new version.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder, parts = Path(scratch, names.MODEL_FOLDER), Path(scratch, "parts")
        parts.mkdir()
        digest = model_folder.save(it, folder, parts)
        store.client.log_artifacts(run_id, str(folder), names.MODEL_FOLDER)
    source = sealed_versions.source(store, run_id)
    it = replace(it, tags={**it.tags, names.SHA256: digest})
    with needing("EDIT", _named(name)):
        version = str(_create_version(store, name, source, run_id, it).version)
        store.client.set_registered_model_alias(name, names.CHALLENGER, version)
    return version


@translated
def tag_version(store: MlflowStore, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Write tags to a version of a registered model."""
    with needing("EDIT", _named(name)):
        for key, value in tags.items():
            store.client.set_model_version_tag(name, version, key, value)


@translated
def promote(store: MlflowStore, name: str, version: str) -> None:
    """Make a version the champion, after it was loaded: the alias never leads to a broken one.

    Raises:
        StoreRefused: If there is no such version, or it can't be loaded; the champion stays.
    """
    version_of(store, name, version)
    with needing("EDIT", _named(name)):
        store.client.set_registered_model_alias(name, names.CHAMPION, version)


def _create_version(
    store: MlflowStore, name: str, source: str, run_id: str, it: model_folder.Servable
) -> ModelVersion:
    """The version of a run's model; one that was made before an answer was lost is found again."""
    began = store.patience.clock.monotonic()
    for attempt, wait in enumerate(waits(), start=1):
        try:
            return store.client.create_model_version(
                name, source, run_id, tags=dict(it.tags), description=it.description
            )
        except MlflowException as error:
            unsure = cause(error, Unsure)
            if unsure is None or (attempt >= ATTEMPTS and not unsure.is_for_now):
                raise
            of_run = store.client.search_model_versions(f"run_id = '{run_id}'")
            if made := [version for version in of_run if version.name == name]:
                return min(made, key=lambda version: int(version.version))
            if store.patience.left_s(began) <= wait:
                raise
        store.patience.clock.sleep(wait)
    raise AssertionError("`waits` has no end")


@translated
def champion(
    store: MlflowStore, *, metric: str | None = None, name: str | None = None
) -> Registered:
    """The meta-model with the alias `champion`.

    Args:
        store: The tracking store.
        metric: What it is to predict; None if there is only one to choose from.
        name: The registered model's name, where it is not our own choice.

    Raises:
        NoModel: If there is none, or several and it was not said which.
    """
    return _loaded(store, *_champion_version(store, metric, name))


@translated
def version_of(store: MlflowStore, name: str, version: str) -> Registered:
    """A version of a registered meta-model, be it the champion or not."""
    return _loaded(store, name, store.client.get_model_version(name, version))


@translated
def champion_number(
    store: MlflowStore, *, metric: str | None = None, name: str | None = None
) -> tuple[str, str]:
    """The registered model's name and the champion's version, be it damaged or not.

    Raises:
        NoModel: As `champion` does.
    """
    found, version = _champion_version(store, metric, name)
    return found, str(version.version)


@translated
def check_files(store: MlflowStore, name: str, version: str) -> None:
    """See that all files of a version are what was registered, its code and MLmodel, too.

    Raises:
        Damaged: If one is not; says which.
        StoreRefused: If there is no such version.
    """
    found = store.client.get_model_version(name, version)
    try:
        sealed_versions.check_all(store, found)
    except Damaged as error:
        raise _damaged(name, found, error) from error


@translated
def challenger(store: MlflowStore, name: str) -> Registered | None:
    """The version that was registered last; None if there is none."""
    try:
        version = store.client.get_model_version_by_alias(name, names.CHALLENGER)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        return None
    return _loaded(store, name, version)


def _loaded(store: MlflowStore, name: str, version: ModelVersion) -> Registered:
    try:
        packed = unpack(sealed_versions.data(store, version))
    except (Damaged, KeyError, ValueError, TypeError) as error:
        raise _damaged(name, version, error) from error
    return Registered(
        name=name,
        version=str(version.version),
        run_id=str(version.run_id),
        tags=dict(version.tags or {}),
        model=packed.model,
        kind=packed.kind,
        objective=packed.objective,
        harvest_run_id=packed.harvest_run_id,
        tasks_by=packed.tasks_by,
    )


def _damaged(name: str, version: ModelVersion, error: Exception) -> Damaged:
    return Damaged(
        f"Version {version.version} of {_named(name)} is damaged: its files in {version.source} "
        f"can't be used. {error}"
    )


def _champion_version(
    store: MlflowStore, metric: str | None, name: str | None
) -> tuple[str, ModelVersion]:
    """The registered model's name, and its version with the alias."""
    if name or metric is None:
        tried = [name or _only_model(store)]
    else:
        # Of a metric's several spellings the first names the model; a comma may be in a name too.
        tried = list(dict.fromkeys(model_name(m) for m in (metric, metric.partition(",")[0])))
    hidden = False
    for wanted in tried:
        try:
            return wanted, store.client.get_model_version_by_alias(wanted, names.CHAMPION)
        except MlflowException as error:
            if error.get_http_status_code() == REFUSED:
                hidden = True  # also where there is none: the server does not tell which
            elif error.error_code not in _ABSENT:
                raise  # a server that fails has not said that there is no model
    what = f"for the metric {metric!r} " if metric else ""
    raise NoModel(
        f"There is no meta-model {what}yet: the registry has no {tried[-1]!r} with the alias "
        f"{names.CHAMPION!r}. Run `mlflow-meta train"
        + (f" --metric {shlex.quote(metric)}`." if metric else "`.")
        + (
            f" Or {user()} lacks the permission READ on it: ask the administrator."
            if hidden
            else ""
        )
    )


@translated
def champions(store: MlflowStore) -> dict[str, str]:
    """Registered model -> the metric that it predicts, of all meta-models that have a champion."""
    # MLflow's client would ask for models that are no prompts, of which servers before 2.22 know
    # nothing: they find none.
    registry = store.client._get_registry_client().store
    ours: dict[str, str] = {}
    token = None
    while True:
        page = registry.search_registered_models(f"tags.`{names.METRIC}` != ''", PAGE, None, token)
        ours |= {
            str(model.name): str(model.tags[names.METRIC])
            for model in page
            if names.CHAMPION in (model.aliases or {})
        }
        token = page.token
        if not token:
            return dict(sorted(ours.items()))


def _only_model(store: MlflowStore) -> str:
    ours = list(champions(store))
    if not ours:
        raise NoModel("No meta-model has been trained yet. Run `mlflow-meta train --metric NAME`.")
    if len(ours) > 1:
        raise NoModel(f"There are several meta-models: {', '.join(ours)}. Say which by --metric.")
    return ours[0]


@translated
def reserve(store: MlflowStore, name: str, objective: Objective) -> None:
    """See that a meta-model may be registered by this name; make the name where there is none.

    To be called before anything of a training is written.

    Raises:
        StoreRefused: If the registered model of that name predicts another metric.
        NoPermission: If this user may not write to it.
    """
    tags = _tags_of(store, name)
    if tags is None:
        try:
            _make(store, name, objective)
            return
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # Hidden from this user, or made meanwhile, be it by a request of ours that was sent twice.
        with needing("EDIT", _named(name), note=_NOTHING):
            tags = store.client.get_registered_model(name).tags or {}
    if tags.get(names.METRIC) != objective.metric:
        raise StoreRefused(
            f"The registered model {name!r} predicts {tags.get(names.METRIC)!r}, not "
            f"{objective.metric!r}. Pass another name by --model-name."
        )
    check_may_edit_model(store.client, name)


def _tags_of(store: MlflowStore, name: str) -> Mapping[str, str] | None:
    """A registered model's tags; None where there is none, or none that the server shows."""
    try:
        return store.client.get_registered_model(name).tags or {}
    except MlflowException as error:
        # A server with accounts may refuse this, too, where there is none.
        if error.error_code not in _ABSENT and error.get_http_status_code() != REFUSED:
            raise
        return None


def _make(store: MlflowStore, name: str, objective: Objective) -> None:
    with needing("EDIT", _named(name), note=_NOTHING):
        store.client.create_registered_model(
            name,
            tags={names.METRIC: objective.metric, names.DIRECTION: objective.direction.value},
            description=f"Predicts the {shown.code(objective.metric)} of a configuration without "
            "training it.",
        )


def _named(name: str) -> str:
    return f"the registered model {name!r}"
