"""Real servers on 127.0.0.1, for the tests and the screenshots: `mlflow server`, a served model."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

START_S = 120.0
STOP_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def mlflow_server(backend_uri: str, artifacts: Path | None = None) -> Iterator[str]:
    """`mlflow server` on a database; yields its address."""
    options = ["--backend-store-uri", backend_uri, "--workers", "1"]
    if artifacts is not None:
        options += ["--artifacts-destination", str(artifacts)]
    with _serving(["server", *options], "/health", {}) as url:
        yield url


@contextmanager
def model_server(model_uri: str, tracking_uri: str) -> Iterator[str]:
    """`mlflow models serve` on a registered model; yields its address."""
    command = ["models", "serve", "--model-uri", model_uri, "--env-manager", "local"]
    with _serving(command, "/ping", {"MLFLOW_TRACKING_URI": tracking_uri}) as url:
        yield url


@contextmanager
def _serving(command: Sequence[str], health: str, environment: dict[str, str]) -> Iterator[str]:
    port = free_port()
    argv = [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port)]
    # MLflow starts uvicorn by name: it must be found beside this Python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | environment | {"MLFLOW_DISABLE_TELEMETRY": "true", "PATH": path}
    with tempfile.TemporaryFile() as log:
        # The server has children: in a session of its own, the whole group can be ended.
        server = subprocess.Popen(argv, stdout=log, stderr=log, env=env, start_new_session=True)
        try:
            if not _healthy(server, f"http://127.0.0.1:{port}{health}"):
                log.seek(0)
                words = log.read().decode(errors="replace")[-2000:]
                raise RuntimeError(f"`mlflow {command[0]}` has not started: {words}")
            yield f"http://127.0.0.1:{port}"
        finally:
            _end_group(server)


def _healthy(server: subprocess.Popen[bytes], url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError):
            direct.open(url, timeout=5).close()
            return True
        time.sleep(0.2)
    return False


def _end_group(server: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(STOP_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
