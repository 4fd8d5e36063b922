#!/usr/bin/env python3
"""Serve a registered model's champion with `mlflow models serve`, and its successors after it.

    serve_champion.py SECONDS models:/NAME@ALIAS [OPTION of `mlflow models serve` ...]

`mlflow models serve` loads a model once. This waits until the alias points to a version, starts it,
looks every SECONDS where the alias points, and starts it anew when that has changed: some seconds
without an answer. A tracking server that can't be asked changes nothing. Where `mlflow models
serve` ends by itself, this ends too, and the container is started again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)

STOP_S = 10.0
_NONE_YET = {ErrorCode.Name(code) for code in (INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST)}


def version_of(client: MlflowClient, uri: str, served: str | None) -> str | None:
    """The version that an alias points to; the served one where there is no telling."""
    name, _, alias = uri.removeprefix("models:/").partition("@")
    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if served or error.error_code not in _NONE_YET:
            say(f"{uri} can't be looked up: {error}")
        return served


def end(server: subprocess.Popen[bytes] | None) -> None:
    """End a server with its children."""
    if server is None:
        return
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        say("It does not end, and is killed.")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def serve(every_s: float, uri: str, options: Sequence[str]) -> int:
    """Serve until the server ends by itself; its exit code."""
    client = MlflowClient()
    served: str | None = None
    server: subprocess.Popen[bytes] | None = None
    say(f"Waiting for {uri}.")
    try:
        while True:
            version = version_of(client, uri, served)
            if version != served:
                end(server)
                say(f"Serving {uri}: version {version}.")
                command = ["mlflow", "models", "serve", "--model-uri", uri, *options]
                server = subprocess.Popen(command, start_new_session=True)
                served = version
            if server is None:
                time.sleep(every_s)
                continue
            with suppress(subprocess.TimeoutExpired):
                return server.wait(every_s)
    finally:
        end(server)


def say(words: str) -> None:
    """Write a line to the container's log."""
    print(words, file=sys.stderr, flush=True)


def main() -> None:
    """Serve as the command line says; SIGTERM ends it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    every_s, uri, *options = sys.argv[1:]
    sys.exit(serve(float(every_s), uri, options) or 1)


if __name__ == "__main__":
    main()
