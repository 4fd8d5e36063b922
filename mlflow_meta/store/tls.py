"""The first question to a server: whether it answers at all, and why there is no TLS connection."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import http_request
from urllib3.exceptions import SSLError as TlsError

from mlflow_meta.errors import Unreachable
from mlflow_meta.store.patience import REQUEST_S, SHORTEST_S

TLS_ATTEMPTS = 3  # after which no connection is a setting that is wrong, rather than chance


def answers_at_once(uri: str, client: MlflowClient, limit_s: float) -> bool:
    """Whether a server takes a first question at once. Where not, it is to be asked patiently.

    Args:
        uri: Its address.
        client: Of it.
        limit_s: After so many seconds it has not.

    Raises:
        Unreachable: If there is no TLS connection, which MLflow's client would try for minutes.
    """
    reason = ""
    for _ in range(TLS_ATTEMPTS if urlsplit(uri).scheme == "https" else 1):
        try:
            answer = http_request(
                client._tracking_client.store.get_host_creds(),
                "/api/2.0/mlflow/experiments/search",
                "POST",
                max_retries=0,
                raise_on_status=False,
                timeout=max(SHORTEST_S, min(limit_s, REQUEST_S)),
                json={"max_results": 1},
            )
        except MlflowException as error:
            reason, is_final = _tls_failure(error)
            if is_final:
                break
        else:
            return bool(answer.status_code == 200 and answer.content.lstrip()[:1] == b"{")
    if reason:
        raise Unreachable(_without_tls(uri, reason))
    return False


def _tls_failure(error: BaseException) -> tuple[str, bool]:
    """Why there is no TLS connection, and whether that is sure; empty where it is something else.

    A server that wants a certificate of its client, and gets none, may just hang up.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TlsError) and seen.args and isinstance(seen.args[0], Exception):
            seen = seen.args[0]  # urllib3 hands over what it wraps without naming it as the cause
        text = " ".join(str(seen).split())
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"certificate verify failed: {seen.verify_message}", True
        if isinstance(seen, ssl.SSLError):
            return text.rpartition("] ")[2].partition(" (_ssl.c")[0], "alert" in text
        if isinstance(seen, ConnectionResetError):
            return "the server hangs up", False
        if text.startswith("Could not find"):  # a file that `requests` was to read
            return text, True
        seen = seen.__cause__ or seen.__context__
    return "", False


def _without_tls(uri: str, reason: str) -> str:
    if "verify failed" in reason:
        return (
            f"The certificate of {uri} is not trusted here ({reason}). Set "
            "MLFLOW_TRACKING_SERVER_CERT_PATH to the file of the authority that has issued it; "
            "MLFLOW_TRACKING_INSECURE_TLS=true leaves it unchecked."
        )
    return (
        f"There is no TLS connection to {uri} ({reason}). Is it https? Is the file right that "
        "MLFLOW_TRACKING_SERVER_CERT_PATH names? If the server wants a certificate of yours, set "
        "MLFLOW_TRACKING_CLIENT_CERT_PATH to the file of that and its key."
    )
