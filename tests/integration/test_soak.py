"""Everything at once for a while: crons, workers, faults, kills, a server that comes and goes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median

import click
import pytest
import roles
from fault_proxy import FaultProxy
from mlflow import MlflowClient
from nightly import nightly
from processes import PATIENCE_S, begin, code, killed_at_last, until
from servers import free_port, mlflow_server
from world import World

from mlflow_meta.store import MlflowStore, names
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.sweep import sweep

pytestmark = pytest.mark.slow

SOAK_S = 600.0 if nightly() else 40.0
FAULTS = 0.05  # of all requests
LEASE_S = 6.0
PLAN_EVERY_S = 3.0
SERVER_UP_S = 20.0
HARM_EVERY_S = 3.0  # on average
TRAINING_S = 0.5
SEED = 0
MB = 2**20
WARM_S = 20.0  # until then a process imports, and fills its caches
MOST_MORE_MB = 16
MOST_MORE_OPEN = 8


class Server(threading.Thread):
    """An `mlflow server` that is restarted again and again at the same port, until `stay`."""

    def __init__(self, backend: str, artifacts: Path) -> None:
        super().__init__(daemon=True)
        self.n_restarts = 0
        self._port = free_port()
        self._how = (backend, artifacts)
        self._is_to_stay = threading.Event()
        self._up = ExitStack()
        self.url = self._start()

    def _start(self) -> str:
        return self._up.enter_context(mlflow_server(*self._how, port=self._port))

    def run(self) -> None:
        while not self._is_to_stay.wait(SERVER_UP_S):
            self._up.close()
            self._start()
            self.n_restarts += 1

    def stay(self) -> None:
        self._is_to_stay.set()
        self.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_to_stay.set()
        if self.is_alive():
            self.join()
        self._up.close()


@dataclass
class Crew:
    """Workers and crons that are begun anew when they have ended; the first of each is spared."""

    url: str
    folder: Path
    began: float = field(default_factory=time.monotonic)
    processes: list[BaseProcess] = field(default_factory=list)
    harm: Counter[str] = field(default_factory=Counter)
    _stopped_until: dict[int, float] = field(default_factory=dict)

    def begin(self, n_workers: int, n_crons: int) -> None:
        self.roles = ["worker"] * n_workers + ["cron"] * n_crons
        self.processes += [self._begin(role) for role in self.roles]
        self.spared = {self.processes[0].pid, self.processes[-1].pid}

    def _begin(self, role: str) -> BaseProcess:
        log = self.folder / f"{role}.log"
        if role == "cron":
            times = (self.began, PLAN_EVERY_S)
            return begin(roles.keeps_suggesting, self.url, self.folder, *times, log=log)
        trainer = str(Path(__file__).with_name("stamps.py"))
        training = [sys.executable, "-I", "-S", trainer, str(self.folder), str(TRAINING_S), "soak"]
        return begin(roles.keeps_working, self.url, self.folder, LEASE_S, training, log=log)

    def do_harm(self, rng: random.Random) -> None:
        """Kill or stop one; a spared one is stopped at most."""
        victim = rng.choice([p for p in self.processes if p.pid not in self._stopped_until])
        if victim.pid in self.spared or rng.random() < 0.4:
            os.kill(victim.pid, signal.SIGSTOP)
            self._stopped_until[victim.pid] = time.monotonic() + rng.uniform(0.1, 1.5 * LEASE_S)
            self.harm["stopped"] += 1
        else:
            victim.kill()
            victim.join()
            self.harm["killed"] += 1

    def go_on(self, *, for_good: bool = False) -> None:
        """Let those go on whose time has come, and begin those anew that have ended."""
        for pid, until_s in list(self._stopped_until.items()):
            if for_good or time.monotonic() >= until_s:
                os.kill(pid, signal.SIGCONT)
                del self._stopped_until[pid]
        for i, process in enumerate(self.processes):
            if not process.is_alive():
                assert process.pid not in self.spared, "one that nobody has killed has ended"
                self.processes[i] = self._begin(self.roles[i])

    def end(self, role: str, word: str) -> None:
        (self.folder / word).touch()
        ending = [p for p, its in zip(self.processes, self.roles, strict=True) if its == role]
        assert [code(process) for process in ending] == [0] * len(ending)


def test_nothing_is_lost_or_doubled_whatever_happens_for_a_while(
    empty_database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'server.db')}"
    rng, requests = random.Random(SEED), Counter[str]()
    with Server(backend, tmp_path / "artifacts") as server, FaultProxy(server.url) as proxy:
        MlflowClient(tracking_uri=server.url).create_experiment(World.experiment)
        crew = Crew(proxy.url, tmp_path)
        with killed_at_last(crew.processes):
            proxy.arm(rate=FAULTS, seed=SEED)
            crew.begin(n_workers=4, n_crons=2)
            server.start()
            while time.monotonic() < crew.began + SOAK_S:
                time.sleep(0.2)
                if rng.random() < 0.2 / HARM_EVERY_S:
                    crew.do_harm(rng)
                crew.go_on()
                seen, proxy.log = proxy.log, []
                requests.update(str(entry.action) for entry in seen)
            server.stay()
            proxy.arm()
            crew.go_on(for_good=True)
            crew.end("cron", "no-more-plans")
            store = MlflowStore(server.url)
            until(lambda: is_done(store), "all is trained", PATIENCE_S + SOAK_S)
            crew.end("worker", "no-more-work")
        world = World(store)
        for _ in range(2):
            sweep(Ledger.of(store, world.experiment_id))
        lines = (tmp_path / "executions").read_text().splitlines()
        world.executed.update(line.split()[0] for line in lines)
        world.told |= dict(line.split() for line in (tmp_path / "told").read_text().splitlines())
        said = summary(world, crew, server, requests)
        with capsys.disabled():
            click.echo(f"\n{said}")
        world.check()
    for role in ("worker", "cron"):
        assert "Traceback" not in (tmp_path / f"{role}.log").read_text()
    spared = sorted(crew.spared)
    grown = [growth(path) for pid in spared for path in tmp_path.glob(f"weight-*-{pid}")]
    with capsys.disabled():
        click.echo(f"MB and descriptors, early and late: {grown}")
    assert len(grown) == len(spared)
    for (early_mb, early_open), (late_mb, late_open) in grown:
        assert late_mb <= early_mb + MOST_MORE_MB
        assert late_open <= early_open + MOST_MORE_OPEN


def is_done(store: MlflowStore) -> bool:
    world = World(store)
    sweep(Ledger.of(store, world.experiment_id))
    return not [r for r in world._runs() if r.status in ("RUNNING", "SCHEDULED")]


def summary(world: World, crew: Crew, server: Server, requests: Counter[str]) -> str:
    runs = world._runs()
    ends = Counter(r.params.get(names.ENDED, "discarded").partition(" ")[0] for r in runs)
    faults = {action: n for action, n in sorted(requests.items()) if action != "None"}
    told = crew.folder / "errors"
    n_errors = len(told.read_text().splitlines()) if told.exists() else 0
    return (
        f"{SOAK_S:.0f} s: {requests.total()} requests, {sum(faults.values())} faults {faults}, "
        f"{server.n_restarts} restarts, {dict(crew.harm)}, {n_errors} commands gave up; "
        f"{len(world._plans())} plans, {len(world._wanted())} suggestions, {len(runs)} runs "
        f"{dict(ends)}, {world.executed.total()} trainings"
    )


def growth(path: Path) -> tuple[tuple[float, float], tuple[float, float]]:
    """Median memory in MB and descriptors of a process, in an early and in the last quarter."""
    rows = [tuple(map(float, line.split())) for line in path.read_text().splitlines()]
    warm = [row for row in rows if row[0] >= rows[0][0] + WARM_S] or rows
    part = max(1, len(warm) // 4)
    early, late = (
        (median(row[1] for row in rows) / MB, median(row[2] for row in rows))
        for rows in (warm[:part], warm[-part:])
    )
    return early, late
