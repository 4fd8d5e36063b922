"""The files of a registered version, which are what was registered or are refused; see `seal`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mlflow.entities.model_registry import ModelVersion

from mlflow_meta.errors import Damaged
from mlflow_meta.served import seal
from mlflow_meta.store import names
from mlflow_meta.store.mlflow_store import MlflowStore

_AT_ONCE = 8  # files that are read side by side


def source(store: MlflowStore, run_id: str) -> str:
    """The folder that a version of a training run's model leads to, as MLflow has it."""
    return f"{store.artifact_uri(run_id)}/{names.MODEL_FOLDER}"


def data(store: MlflowStore, version: ModelVersion) -> dict[str, bytes]:
    """The meta-model's own files, by name: what searching with it needs.

    Raises:
        Damaged: If one of them is not what was registered.
    """
    found = store.files(str(version.run_id), f"{names.MODEL_FOLDER}/{seal.DATA}")
    files = {f"{seal.DATA}/{name}": content for name, content in found.items()}
    _check(files, version, within=f"{seal.DATA}/")
    return seal.data_of(files)


def check_all(store: MlflowStore, version: ModelVersion) -> None:
    """See that all that is served of a version is what was registered: code and MLmodel, too.

    Raises:
        Damaged: If a file is not, or the version leads to another folder.
    """
    run_id = str(version.run_id)
    registered = source(store, run_id)
    if version.source != registered:
        raise Damaged(
            f"It leads to {version.source}, and was registered from {registered}. {seal.AGAIN}"
        )
    paths = store.paths(run_id, names.MODEL_FOLDER)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        contents = list(pool.map(lambda path: store.file(run_id, path), paths))
    within = f"{names.MODEL_FOLDER}/"
    files = {p.removeprefix(within): c for p, c in zip(paths, contents, strict=True)}
    _check(files, version)


def _check(files: dict[str, bytes], version: ModelVersion, *, within: str = "") -> None:
    listed = files.pop(seal.SEAL, None)
    seal.check_tag(listed, (version.tags or {}).get(names.SHA256))
    seal.check(files, listed, within=within)
