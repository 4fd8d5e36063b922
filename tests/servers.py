"""Real servers on 127.0.0.1, for tests and benchmarks: MLflow, a served model, Postgres."""

from __future__ import annotations

import os
import shutil
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
def mlflow_server(
    backend_uri: str, artifacts: Path | None = None, *, workers: int = 1
) -> Iterator[str]:
    """`mlflow server` on a database; yields its address."""
    options = ["--backend-store-uri", backend_uri, "--workers", str(workers)]
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


def postgres_programs() -> Path | None:
    """The folder of the newest Postgres that is installed; None if none is."""
    homes = Path("/usr/lib/postgresql").glob("*/bin")
    return max(homes, key=lambda home: float(home.parent.name), default=None)


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """A Postgres of our own, in a folder of its own; yields its URI, and is ended afterwards."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        as_user: list[str] = []
        if os.geteuid() == 0:  # Postgres refuses to run as root
            shutil.chown(folder, "postgres", "postgres")
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        data = f"{folder}/data"

        def run(*command: str) -> None:
            subprocess.run([*as_user, *command], check=True, capture_output=True, cwd=folder)

        run(f"{programs}/initdb", "-D", data, "-A", "trust", "-U", "mlflow")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(f"{programs}/pg_ctl", "-D", data, "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
        finally:
            run(f"{programs}/pg_ctl", "-D", data, "-m", "immediate", "stop")


@contextmanager
def _serving(command: Sequence[str], health: str, environment: dict[str, str]) -> Iterator[str]:
    port = free_port()
    argv = [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port)]
    # MLflow starts uvicorn by name: it must be found beside this Python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    env = os.environ | environment | quiet | {"PATH": path}
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
