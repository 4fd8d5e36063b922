"""Real servers on 127.0.0.1, for tests and benchmarks: MLflow, a served model, databases."""

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import pymysql
from mlflow import MlflowClient

from mlflow_meta.store import names

START_S = 120.0
STOP_S = 20.0
ADMIN = ("admin", "password-of-admin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def mlflow_server(
    backend_uri: str,
    artifacts: Path | None = None,
    *,
    workers: int = 1,
    port: int | None = None,
    options: Sequence[str] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
    python: str = sys.executable,
) -> Iterator[str]:
    """`mlflow server` on a database, of the MLflow that a Python has; yields its address.

    It listens at a free port if none is given.
    """
    command = ["server", "--backend-store-uri", backend_uri, "--workers", str(workers), *options]
    if artifacts is not None:
        command += ["--artifacts-destination", str(artifacts)]
    with _serving(command, "/health", environment, python, port) as url:
        yield url


@contextmanager
def server_with_accounts(
    backend_uri: str, folder: Path, *, python: str = sys.executable
) -> Iterator[str]:
    """A server that lets nobody do anything without a permission, but `ADMIN`."""
    settings = folder / "auth.ini"
    name, password = ADMIN
    settings.write_text(
        f"""[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{folder / "auth.db"}
admin_username = {name}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 600
"""
    )
    with mlflow_server(
        backend_uri,
        folder / "artifacts-of-server",
        options=["--app-name", "basic-auth"],
        environment={
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of tests",
        },
        python=python,
    ) as url:
        yield url


def python_with_mlflow(version: str, folder: Path) -> str:
    """A Python with an older MLflow, in an environment of its own, which is made once."""
    home = folder / f"mlflow-{version}"
    python, stamp = home / "bin" / "python", home / ".installed"
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        # What was new when they were: their own bounds are wider than what they work with.
        wanted = [f"mlflow=={version}", "Flask-WTF<2", "sqlalchemy<2.1", "setuptools<81"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        stamp.touch()
    return str(python)


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


def mariadb_programs() -> list[str] | None:
    """MariaDB's server, and what makes its first tables; None if they are not installed."""
    found = [
        shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
        for name in ("mariadbd", "mariadb-install-db", "my_print_defaults")
    ]
    return None if None in found else [str(program) for program in found]


@contextmanager
def mariadb(programs: Sequence[str]) -> Iterator[str]:
    """A MariaDB of our own, as `postgres` is; yields the URI of an empty database."""
    server, install, _ = programs
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mariadb") as folder:
        as_user: list[str] = []
        if os.geteuid() == 0:  # MariaDB refuses to run as root, and has a user only as a service
            shutil.chown(folder, "nobody", "nogroup")
            as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        first = ["--no-defaults", f"--datadir={folder}/data"]
        options = (
            f"--port={port} --bind-address=127.0.0.1 --socket={folder}/socket "
            f"--pid-file={folder}/pid --log-error={folder}/log --innodb-flush-log-at-trx-commit=0 "
            "--character-set-server=utf8mb4 --skip-name-resolve --local-infile=1"
        )
        subprocess.run(
            [*as_user, install, *first, "--auth-root-authentication-method=normal"],
            check=True,
            capture_output=True,
            cwd=folder,
        )
        process = subprocess.Popen(
            [*as_user, server, *first, *options.split()], cwd=folder, stderr=subprocess.DEVNULL
        )
        try:
            _create_database(process, port, "mlflow")
            yield f"mysql+pymysql://root@127.0.0.1:{port}/mlflow"
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            finally:
                process.kill()


def _create_database(server: subprocess.Popen[bytes], port: int, name: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(pymysql.err.OperationalError):
            connection = pymysql.connect(host="127.0.0.1", port=port, user="root")
            with connection, connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name}")
            return
        time.sleep(0.1)
    raise RuntimeError("mariadbd has not started")


@contextmanager
def _serving(
    command: Sequence[str],
    health: str,
    environment: Mapping[str, str],
    python: str = sys.executable,
    port: int | None = None,
) -> Iterator[str]:
    port = port or free_port()
    argv = [python, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port)]
    # MLflow starts uvicorn or gunicorn by name: it must be found beside this Python.
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    env = os.environ | dict(environment) | quiet | {"PATH": path}
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


@contextmanager
def dask(n_workers: int, argv: Sequence[str] = ()) -> Iterator[str]:
    """A scheduler of Dask and workers of one thread each; yields its address.

    `argv` is what starts a worker, but for its options; `dask worker` where it is empty.
    """
    program = str(Path(sys.executable).parent / "dask")
    address = f"tcp://127.0.0.1:{free_port()}"
    starting = [program, "scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2]]
    workers = [*(argv or [program, "worker"]), address, "--host", "127.0.0.1", "--nthreads", "1"]
    workers += ["--nworkers", str(n_workers)] if n_workers > 1 else []
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="dask") as folder:
        try:
            for command in [[*starting, "--no-dashboard"], *([workers] if n_workers else [])]:
                started.append(
                    subprocess.Popen(
                        [*command],
                        cwd=folder,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                )
            yield address
        finally:
            for process in reversed(started):
                _end_group(process)


def make_fresh(client: MlflowClient, before: str) -> None:
    """Have a server on which mlflow-meta has never been."""
    for name in (names.PROJECT_EXPERIMENT, names.LEDGER_EXPERIMENT):
        if found := client.get_experiment_by_name(name):
            client.rename_experiment(found.experiment_id, f"{name} before {before}")
