"""`docker/compose.yaml` without Docker: each service's very command, as a process on 127.0.0.1.

A service gets what its container would get: its environment and nothing of ours, interpolated from
`docker/.env.example`. What differs, and nothing else does:

- Ports: each variable whose name ends in PORT is a free port. Secrets, empty there, are made up.
- Hosts: in what a service gets, the name of a service, and 0.0.0.0, are 127.0.0.1.
- Paths: where a folder or file of the host is mounted, its path in the container is its path here.
- Programs: what the image copies is found on PATH. Images that are not ours, and supercronic, are
  played by `stand_ins.py`.
- Servers of MLflow send no telemetry, and start no process for jobs.
"""

from __future__ import annotations

import graphlib
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from processes import until
from servers import free_port, postgres_programs

DOCKER = Path(__file__).parents[2] / "docker"
STAND_INS = Path(__file__).with_name("stand_ins.py")
STOP_S = 20.0
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::\?[^}]*)?\}")
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service of the file, to be run here.

    Attributes:
        argv: Program and arguments.
        environment: All of its environment.
        health: The health check's program and arguments; empty for a service that ends.
        needs: The services that are started before it.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    health: Sequence[str]
    needs: Sequence[str]


def example(**given: str) -> dict[str, str]:
    """`.env.example`'s variables, as a person would fill them in; `given` ones are as given."""
    values: dict[str, str] = {}
    for line in (DOCKER / ".env.example").read_text().splitlines():
        name, is_one, value = line.partition("=")
        if not is_one or line.startswith("#"):
            continue
        if name.endswith("PORT"):
            value = str(free_port())
        values[name] = given.get(name) or interpolate(value, values) or secrets.token_hex(12)
    return values


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """`${NAME}` and `${NAME:?message}` replaced."""
    return _VARIABLE.sub(lambda found: values[found["name"]], text)


def document() -> dict[str, Any]:
    """The file as it is."""
    parsed: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return parsed


def services(values: Mapping[str, str], folder: Path) -> dict[str, Service]:
    """What to run, in an order in which each comes after what it needs.

    Args:
        values: Of the variables.
        folder: For the home of the services, and for programs that are played.
    """
    found = document()["services"]
    entrypoint = re.findall(r"^ENTRYPOINT \[\"(.*)\"\]$", (DOCKER / "Dockerfile").read_text(), re.M)
    names = "|".join(map(re.escape, found))
    path = _path(folder)

    def here(text: object, mounts: Mapping[str, str]) -> str:
        words = interpolate(str(text), values)
        for inside, outside in mounts.items():
            words = words.replace(inside, outside)
        words = words.replace("0.0.0.0", "127.0.0.1")
        return re.sub(rf"\b(?:{names})(?=:\d+(?![\w@]))", "127.0.0.1", words)

    def service(name: str, told: Mapping[str, Any]) -> Service:
        mounts = dict(_mounts(told.get("volumes", ()), values))
        words = [*told.get("entrypoint", entrypoint), *told.get("command", ())]
        if "build" not in told:
            words = [sys.executable, str(STAND_INS), name]
        test = told["healthcheck"].get("test", ["CMD"])
        assert test[0] == "CMD", f"{name}: a health check of {test[0]}"
        environment = {key: here(value, mounts) for key, value in told["environment"].items()}
        return Service(
            argv=[here(word, mounts) for word in words],
            environment=_QUIET | environment | {"PATH": path, "HOME": str(folder)} | _library(),
            health=[here(word, mounts) for word in test[1:]],
            needs=list(told.get("depends_on", ())),
        )

    every = {name: service(name, told) for name, told in found.items()}
    order = graphlib.TopologicalSorter({name: one.needs for name, one in every.items()})
    return {name: every[name] for name in order.static_order()}


def _mounts(volumes: Sequence[str], values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for volume in volumes:
        outside, inside, *_ = interpolate(volume, values).split(":")
        if outside.startswith((".", "/")):  # else it is a named volume
            yield inside, str((DOCKER / outside).resolve())


def _path(folder: Path) -> str:
    """Where programs are: ours, the image's, this Python's, Postgres', and the system's."""
    own = folder / "bin"
    own.mkdir()
    (own / "supercronic").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" "{STAND_INS}" supercronic "$@"\n'
    )
    (own / "supercronic").chmod(0o755)
    found = [own, DOCKER / "image", Path(sys.executable).parent, postgres_programs()]
    return os.pathsep.join([*map(str, found), os.environ["PATH"]])


def _library() -> dict[str, str]:
    """Where a bare system's libgomp is, if the Makefile lends it one."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


@dataclass(slots=True)
class Stack:
    """The services that run; see `stack`."""

    services: Mapping[str, Service]
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a service, whose needs are met."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                self.services[name].argv,
                env=self.services[name].environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that a server's children end with it
            )

    def wait(self, name: str) -> None:
        """Wait until a service's health check is content, or one that ends has done its work."""
        if self.services[name].health:
            until(lambda: self.is_healthy(name), f"{name} is healthy", pause_s=0.5)
        else:
            code = self.running.pop(name).wait(timeout=60)
            assert code == 0, self.log(name)

    def is_healthy(self, name: str) -> bool:
        """Run a service's health check, once."""
        service = self.services[name]
        assert self.running[name].poll() is None, f"{name} has ended: {self.log(name)}"
        asked = subprocess.run(
            service.health, env=service.environment, capture_output=True, check=False
        )
        return asked.returncode == 0

    def log(self, name: str) -> str:
        """What a service has printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self, name: str) -> int:
        """End a service as `docker stop` does; its exit code."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def stack(values: Mapping[str, str], folder: Path) -> Iterator[Stack]:
    """A stack of which nothing runs yet; all that was started ends with the context."""
    made = Stack(services(values, folder), folder)
    try:
        yield made
    finally:
        for name in reversed(list(made.running)):
            with suppress(subprocess.TimeoutExpired):
                made.stop(name)
