"""The seal of a registered model: a list of the SHA-256 of every file in its folder.

The list is a file of the folder too, and the digest of the list is a tag of the model's version.
So who changes a file must change the list, and who changes the list must change the tag as well.

path:   of a file within the model's folder, such as `MLmodel`, with slashes
files:  path -> content
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from mlflow_meta.errors import Damaged

DATA = "artifacts/meta_model"
"""Where MLflow puts the plain data files of the meta-model."""
SEAL = f"{DATA}/sha256.json"
_OF_MLFLOW = "registered_model_meta"
"""What MLflow adds where it loads a model by its registered name."""
_MAX_NAMED = 5  # files that an error names


def sealed(files: Mapping[str, bytes]) -> bytes:
    """The list of some files, all of the folder but the list itself."""
    found = {path: _digest(content) for path, content in sorted(files.items())}
    return json.dumps(found, indent=1).encode()


def digest_of(seal: bytes) -> str:
    """What the version is tagged with."""
    return _digest(seal)


def read(seal: bytes | None) -> dict[str, str]:
    """A list as path -> SHA-256.

    Raises:
        Damaged: If there is none, or it is none.
    """
    try:
        return {str(path): str(digest) for path, digest in json.loads(seal or b"").items()}
    except (ValueError, AttributeError) as error:
        raise Damaged(
            f"{SEAL}, which says what the model's other files must be, is missing or broken. "
            + AGAIN
        ) from error


def check_tag(seal: bytes | None, tag: str | None) -> None:
    """Raise `Damaged` unless a list is the one that the version is tagged with."""
    if seal is None or tag is None or _digest(seal) != tag:
        found = "missing" if seal is None else f"of the SHA-256 {_digest(seal)}"
        raise Damaged(
            f"{SEAL} is {found}, and its version's tag says {tag or 'nothing'}: somebody has "
            f"changed one of them. {AGAIN}"
        )


def check(files: Mapping[str, bytes], seal: bytes | None, *, within: str = "") -> None:
    """Raise `Damaged` unless these are just the files that were listed, each as it was.

    Args:
        files: Without the list itself.
        seal: The list.
        within: The part of the folder that `files` are of, such as `DATA`; empty for all of it.
    """
    listed = {path: d for path, d in read(seal).items() if path.startswith(within)}
    wrong = [f"{path} is missing" for path in listed if path not in files]
    wrong += [f"{path} is not of the model" for path in sorted(set(files) - set(listed))]
    for path in sorted(set(listed) & set(files)):
        if (found := _digest(files[path])) != listed[path]:
            wrong.append(f"{path} has the SHA-256 {found}, and not {listed[path]}")
    if wrong:
        more = f" (+{len(wrong) - _MAX_NAMED} more)" if len(wrong) > _MAX_NAMED else ""
        raise Damaged(
            f"The model's files were changed: {'; '.join(wrong[:_MAX_NAMED])}{more}. Nothing was "
            f"used. {AGAIN}"
        )


def folder(root: Path) -> dict[str, bytes]:
    """The files of a model's folder, without what Python and MLflow leave there when it is used."""
    found = {}
    for file in sorted(root.rglob("*")):
        path = file.relative_to(root)
        if file.is_file() and "__pycache__" not in path.parts and path.as_posix() != _OF_MLFLOW:
            found[path.as_posix()] = file.read_bytes()
    return found


def data_of(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Of a model's files those of the meta-model, by their names within `DATA`."""
    return {p.removeprefix(f"{DATA}/"): files[p] for p in files if p.startswith(f"{DATA}/")}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


AGAIN = "Serve another version, or train a new one with `mlflow-meta train`."
