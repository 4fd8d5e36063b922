"""What the user of a tracking server may: found out before anything is written.

A server with accounts looks at who asks for what before it looks at the rest of a request. So one
that lacks a part is refused where the whole one would be, and is answered by 400 where it would be
done: it tells what may be written, and writes nothing. Servers without accounts answer 400 too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.environment_variables import MLFLOW_TRACKING_TOKEN
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import read_mlflow_creds
from mlflow.utils.rest_utils import http_request
from requests.exceptions import HTTPError

from mlflow_meta.errors import NoPermission, StoreRefused

REFUSED = 403
UNKNOWN = 401


def user() -> str:
    """Who asks, in words: as MLflow's client takes it from the environment or its file."""
    name, by_token = _credentials()
    if name:
        return f"the user {name!r}"
    return "the owner of MLFLOW_TRACKING_TOKEN" if by_token else "an anonymous user"


@contextmanager
def needing(permission: str, what: str, *, note: str = "") -> Iterator[None]:
    """Say which permission the user lacks, where the server refuses what is done in the block.

    Args:
        permission: READ or EDIT.
        what: On what, with its article.
        note: A sentence more.

    Raises:
        NoPermission: In one line.
    """
    try:
        yield
    except MlflowException as error:
        if error.get_http_status_code() != REFUSED:
            raise
        raise lacking(permission, what, note=note) from error


def lacking(permission: str, what: str, *, note: str = "") -> NoPermission:
    """The error that says which permission the user lacks, and what to do about it."""
    who = user()
    ask = f"Ask the tracking server's administrator for {permission} on it."
    if not any(_credentials()):
        ask += (
            " Or say who you are by MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or by "
            "MLFLOW_TRACKING_TOKEN."
        )
    lacks = f"{who[0].upper()}{who[1:]} lacks the permission {permission} on {what}."
    return NoPermission(" ".join(part for part in (lacks, note, ask) if part))


def check_may_edit(client: MlflowClient, experiment: Experiment) -> None:
    """See whether the user may write to an experiment, and write nothing.

    Raises:
        NoPermission: If not.
    """
    with needing("EDIT", named(experiment), note="Nothing was written."):
        _try(
            client,
            "/api/2.0/mlflow/experiments/set-experiment-tag",
            {"experiment_id": experiment.experiment_id},  # and no key
        )


def check_may_edit_model(client: MlflowClient, name: str) -> None:
    """See whether the user may write to a registered model that exists, and write nothing.

    Raises:
        NoPermission: If not.
    """
    with needing("EDIT", f"the registered model {name!r}", note="Nothing was written."):
        _try(client, "/api/2.0/mlflow/registered-models/set-tag", {"name": name})  # and no key


def named(experiment: Experiment) -> str:
    """An experiment as people and administrators find it."""
    return f"the experiment {experiment.name!r} (id {experiment.experiment_id})"


def refusal(error: MlflowException | HTTPError) -> StoreRefused | None:
    """What an answer of 401 or 403 means; None where it is another one."""
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
    else:
        status = error.response.status_code if error.response is not None else 0
    if status == UNKNOWN:
        return StoreRefused(_unknown())
    if status == REFUSED:
        text = " ".join(str(error).split()).rstrip(".")[:300]
        return NoPermission(
            f"The tracking server refuses {user()}: {text}. Ask its administrator for the "
            "permission, or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or "
            "MLFLOW_TRACKING_TOKEN) of one who may."
        )
    return None


def _unknown() -> str:
    """What to do where the server does not know who asks."""
    name, by_token = _credentials()
    if name:
        return (
            f"The tracking server knows no user {name!r} with this password. Check "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or ~/.mlflow/credentials."
        )
    if by_token:
        return (
            "The tracking server does not take MLFLOW_TRACKING_TOKEN: it is mistyped, or has "
            "expired. Get a new one, and set it."
        )
    return (
        "The tracking server wants to know who you are. Set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
    )


def _credentials() -> tuple[str | None, bool]:
    """The user's name, where there is a password to it; and else whether there is a token."""
    known = read_mlflow_creds()
    if known.username and known.password:
        return str(known.username), False
    return None, bool(MLFLOW_TRACKING_TOKEN.get())


def _try(client: MlflowClient, path: str, body: dict[str, Any]) -> None:
    """Send a request that lacks a part, to a server; a database has no users of its own.

    Raises:
        MlflowException: If it is refused.
    """
    credentials = getattr(client._tracking_client.store, "get_host_creds", None)
    if credentials is None:
        return
    answer = http_request(credentials(), path, "POST", raise_on_status=False, json=body)
    if answer.status_code in (UNKNOWN, REFUSED):
        from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, UNAUTHENTICATED

        code = PERMISSION_DENIED if answer.status_code == REFUSED else UNAUTHENTICATED
        raise MlflowException(f"{answer.status_code} {answer.text[:200]}", error_code=code)
