"""Workers that are killed, stopped or ended while they train, on a real server."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from mlflow import MlflowClient
from nightly import nightly
from processes import begin, code, command, killed_at_last, until
from servers import mlflow_server
from world import item

from mlflow_meta.store import MlflowStore, Record, names, plans
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.publish import DISCARDED, publish
from mlflow_meta.store.queue import MAX_DEATHS, own_params

pytestmark = pytest.mark.slow

N_TRIALS = 100 if nightly() else 4
LEASE_S = 3
TRAINING_S = 2.5
TRAINER = str(Path(__file__).with_name("stamps.py"))


@pytest.fixture(scope="module")
def server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("kills")
    backend = f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}"
    with mlflow_server(backend, folder / "artifacts") as uri:
        yield uri


@dataclass
class Scene:
    """An experiment with suggestions, its workers, and what they have left in a folder."""

    server: str
    folder: Path
    n: int
    workers: list[BaseProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.store = MlflowStore(self.server)
        client = MlflowClient(tracking_uri=self.server)
        self.experiment = f"{self.folder.parent.name} {self.folder.name}"
        self.experiment_id = client.create_experiment(self.experiment)
        ledger = Ledger.of(self.store, self.experiment_id)
        items = [item(i) for i in range(self.n)]
        self.first = publish(ledger, plans.decide(ledger, "kills", items, {}, {}))

    def worker(self, name: str, *more: str, seconds: float = TRAINING_S) -> BaseProcess:
        """A `mlflow-meta work` of that name."""
        words = ["work", "-e", self.experiment, "--tracking-uri", self.server]
        words += ["--lease", f"{LEASE_S}s", "--json", "--", sys.executable, "-I", "-S", TRAINER]
        words += [str(self.folder), str(seconds), name, *more]
        self.workers.append(begin(command, *words, log=self.folder / f"{name}.log"))
        return self.workers[-1]

    def executions(self) -> list[tuple[str, int, str]]:
        """Run, process and worker of each execution, in the order in which they began."""
        path = self.folder / "executions"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(run_id, int(pid), name) for run_id, pid, name in map(str.split, lines)]

    def execution_of(self, name: str) -> tuple[str, int]:
        """Run and process of the first execution of a worker."""

        def found() -> tuple[str, int] | None:
            return next((e[:2] for e in self.executions() if e[2] == name), None)

        execution: tuple[str, int] = until(found, f"{name} trains")
        return execution

    def runs(self) -> dict[str, Record]:
        return {r.run_id: r for r in self.store.search_runs(self.experiment_id, key=None)}

    def last_stamp(self, run_id: str) -> float:
        return float((self.folder / f"{run_id}.stamps").read_text().splitlines()[-1])

    def outcomes(self, name: str) -> dict[str, str]:
        """Run -> what became of it, as a worker that has ended tells."""
        text = (self.folder / f"{name}.log").read_text()
        data = json.loads(text[text.index("{\n") :])
        return {run["run_id"]: run["outcome"] for run in data["runs"]}

    def said(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("*.log"))


@contextmanager
def scene(server: str, folder: Path, n: int) -> Iterator[Scene]:
    scene = Scene(server, folder, n)
    with killed_at_last(scene.workers):
        yield scene


class Witness(threading.Thread):
    """Looks at an experiment's runs again and again, while the context lasts.

    Attributes:
        unreaped_at: Run -> when it was last asked for and then seen not to be reaped.
        reaped: Runs that were seen to be reaped.
        survivors: Processes of a run that were alive when it was first seen to be reaped.
    """

    def __init__(self, scene: Scene) -> None:
        super().__init__(daemon=True)
        self.scene = scene
        self.unreaped_at: dict[str, float] = {}
        self.reaped: set[str] = set()
        self.survivors: list[tuple[str, int, str]] = []
        self._is_over = threading.Event()

    def __enter__(self) -> Witness:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        while not self._is_over.wait(0.05):
            asked = time.monotonic()
            for run_id, record in self.scene.runs().items():
                if ended(record) not in ("reaped", "given-up"):
                    self.unreaped_at[run_id] = asked
                elif run_id not in self.reaped:
                    self.reaped.add(run_id)
                    executions = [e for e in self.scene.executions() if e[0] == run_id]
                    self.survivors += [e for e in executions if is_alive(e[1])]


def ended(record: Record) -> str:
    return record.params.get(names.ENDED, "").partition(" ")[0]


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def check(scene: Scene, witness: Witness, dead: set[str]) -> None:
    """What must hold when all is done; `dead` are the runs whose worker gave no sign."""
    every = scene.runs()
    assert "Traceback" not in scene.said(), scene.said()
    # Two that reap at once may both draft the next attempt; one of them is discarded, and no ghost.
    runs = {k: run for k, run in every.items() if run.params.get(names.CLAIM) != DISCARDED}
    assert all(every[run_id].status == "KILLED" for run_id in set(every) - set(runs))
    assert {run_id for run_id, r in runs.items() if ended(r) == "reaped"} == dead
    assert all(runs[run_id].status == "KILLED" for run_id in dead)
    assert witness.reaped == dead
    assert not witness.survivors
    for run_id in dead:
        assert scene.last_stamp(run_id) < witness.unreaped_at[run_id], "written to after its end"
    executed = Counter(run_id for run_id, _, _ in scene.executions())
    assert set(executed) == set(runs) and set(executed.values()) == {1}
    finished = Counter(
        run.tags[names.SUGGESTION]
        for run in runs.values()
        if (run.status, ended(run)) == ("FINISHED", "FINISHED")
    )
    assert finished == {item(i).suggestion: 1 for i in range(scene.n)}
    assert len(runs) == scene.n + len(dead)


@pytest.mark.parametrize("number", range(N_TRIALS))
def test_the_run_of_a_dead_worker_is_trained_again_and_never_written_to_from_then_on(
    server: str, tmp_path: Path, number: int
) -> None:
    rng = random.Random(number)
    is_stopped, more = number % 2 == 1, ["stubborn"] * (number // 2 % 2)
    with scene(server, tmp_path / "scene", n=2) as here, Witness(here) as witness:
        victim = here.worker("victim", *more)
        other = here.worker("other", *more)
        run_id, _ = here.execution_of("victim")
        here.execution_of("other")
        time.sleep(rng.uniform(0.0, 0.8))
        os.kill(victim.pid, signal.SIGSTOP if is_stopped else signal.SIGKILL)
        late = here.worker("late", *more)  # the other may have left before a lease is over
        until(lambda: run_id in witness.reaped, "the run is reaped")
        if is_stopped:
            time.sleep(rng.choice([0.0, 0.5, 5.0]))
            os.kill(victim.pid, signal.SIGCONT)
        assert [code(worker) for worker in (other, late)] == [0, 0]
        assert code(victim) == (0 if is_stopped else -signal.SIGKILL)
        time.sleep(0.1)
        outcomes = here.outcomes("other") | here.outcomes("late")
        outcomes |= here.outcomes("victim") if is_stopped else {}
        # On a busy machine a heartbeat may come too late: its worker ends the training then itself.
        silent = {run_id for run_id, outcome in outcomes.items() if outcome == "silent"}
        assert not is_stopped or outcomes[run_id] in ("silent", "taken")
        check(here, witness, {run_id, *silent})


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_worker_that_is_asked_to_leave_hands_back_what_it_trains(
    server: str, tmp_path: Path, number: int, expected: int
) -> None:
    with scene(server, tmp_path / "scene", n=1) as here:
        worker = here.worker("worker", seconds=60)
        run_id, pid = here.execution_of("worker")
        os.kill(worker.pid, number)
        assert code(worker) == expected
        assert not is_alive(pid)
        runs = here.runs()
        (following,) = set(runs) - {run_id}
        assert (runs[run_id].status, ended(runs[run_id])) == ("KILLED", "handed-back")
        assert (runs[following].status, runs[following].tags[names.ATTEMPT]) == ("SCHEDULED", "2")
        assert own_params(runs[following]) == item(0).params
        assert runs[following].tags.get(names.DEATHS, "0") == "0"
        said = here.said()
        assert ("Terminated." if expected == 143 else "Interrupted.") in said.splitlines()
        assert "Traceback" not in said


def test_a_suggestion_whose_workers_die_again_and_again_is_given_up(
    server: str, tmp_path: Path
) -> None:
    with scene(server, tmp_path / "scene", n=1) as here, Witness(here) as witness:
        trained = []
        for attempt in range(MAX_DEATHS):
            victim = here.worker(f"victim-{attempt}", seconds=60)
            trained.append(here.execution_of(f"victim-{attempt}")[0])
            victim.kill()
            assert code(victim) == -signal.SIGKILL
        last = here.worker("last")
        assert code(last) == 0
        runs = here.runs()
        assert [ended(runs[run_id]) for run_id in trained] == ["reaped", "reaped", "given-up"]
        assert {run.status for run in runs.values()} == {"KILLED"}
        assert len(runs) == len(set(trained)) == MAX_DEATHS
        until(lambda: witness.reaped == set(trained), "all is seen")
        assert not witness.survivors
        assert "Traceback" not in here.said()
