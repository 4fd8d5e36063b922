"""Working over a real server, where each of a worker's requests fails in several ways."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from faults import FOR_GOOD, ONCE, Kind, cron, patience, quick_server, show
from nightly import nightly
from world import item

from mlflow_meta.errors import MetaError
from mlflow_meta.services.work import Rules, work
from mlflow_meta.store import MlflowStore, names, queue
from mlflow_meta.store.contract import ENDED
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.publish import DISCARDED, final_status
from mlflow_meta.store.sweep import sweep

STRIDE = 1 if nightly() else 4
"""Each kind of fault is tried at every request, or at every fourth, other ones for each kind."""
LEASE_S = 2.0
SIDE_BY_SIDE = 6  # trials at a time: they are a matter of waiting for leases
ITEMS = [item(0), item(1)]
KINDS: dict[str, Kind] = {
    **{name: ONCE[name] for name in ("answer lost", "504 after it was done")},
    **FOR_GOOD,
}
TRAINER = """
import os, sys, time
file = os.open(os.path.join(sys.argv[1], os.environ["MLFLOW_RUN_ID"]), 0o2101, 0o600)
os.write(file, b".")
time.sleep(0.3)
"""  # 0o2101: O_WRONLY | O_CREAT | O_APPEND

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with quick_server() as url:
        yield url


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Two suggestions wait in an experiment of their own, and a worker comes.

    Attributes:
        store: Without faults.
        experiment: The experiment's name.
        experiment_id: Its id.
        folder: Where each training leaves a byte for each time that it was started.
    """

    store: MlflowStore
    experiment: str
    experiment_id: str
    folder: Path

    @classmethod
    def of(cls, store: MlflowStore, folder: Path, name: str) -> Scene:
        experiment_id = store.client.create_experiment(name)
        cron(store, experiment_id, "plan", ITEMS)
        place = folder / experiment_id
        place.mkdir()
        return cls(store=store, experiment=name, experiment_id=experiment_id, folder=place)

    @property
    def ledger(self) -> Ledger:
        return Ledger.of(self.store, self.experiment_id)

    def work(
        self, store: MlflowStore, rules: Rules, progress: Callable[..., None] = lambda *_: None
    ) -> None:
        script = self.folder.parent / "trainer.py"
        command = [sys.executable, "-I", "-S", str(script), str(self.folder), "{lr}"]
        with open(os.devnull, "w") as nowhere:
            work(store, self.experiment, command, rules, output=nowhere, progress=progress)

    def settle(self) -> None:
        """A worker comes that finds nothing in its way."""
        self.work(self.store, Rules(lease_s=LEASE_S))
        sweep(self.ledger)

    def check(self) -> None:
        runs = self.store.search_runs(self.experiment_id, key=None)
        starts = {file.name: file.stat().st_size for file in self.folder.iterdir()}
        assert set(starts.values()) <= {1}, f"a run was executed twice: {starts}"
        assert starts.keys() <= {record.run_id for record in runs}
        assert {record.status for record in runs} <= set(ENDED), "a run is open"
        for record in runs:
            assert record.status == (final_status(record) or record.status), "not as it was ended"
        last = [
            record
            for record in runs
            if not queue.is_superseded(record) and record.params.get(names.CLAIM) != DISCARDED
        ]
        assert [record.status for record in last] == ["FINISHED"] * len(last)
        assert all(record.run_id in starts for record in last), "FINISHED without a training"
        ends = Counter(record.tags[names.SUGGESTION] for record in last)
        assert ends == {item.suggestion: 1 for item in ITEMS}


def trains(scene: Scene, store: MlflowStore) -> None:
    """It claims, trains and finishes both."""
    scene.work(store, Rules(lease_s=LEASE_S))


def reaps(scene: Scene, store: MlflowStore) -> None:
    """One of the two was claimed by a worker that has died."""
    (first, _) = queue.waiting(scene.ledger)
    queue.claim(scene.store, first.run_id, tags={}, lease_s=LEASE_S)
    scene.work(store, Rules(lease_s=LEASE_S))


def is_interrupted(scene: Scene, store: MlflowStore) -> None:
    """It hands back what it trains when it has just claimed the second."""
    claimed: list[object] = []

    def progress(words: str) -> None:
        claimed.append(words)
        if len(claimed) == 2:
            raise KeyboardInterrupt

    scene.work(store, Rules(lease_s=LEASE_S, concurrency=2), progress)


Story = Callable[[Scene, MlflowStore], None]
STORIES: tuple[Story, ...] = (trains, reaps, is_interrupted)


def attempt(scene: Scene, story: Story, proxy: FaultProxy, kind: str = "", n: int = 0) -> int:
    """A worker whose n-th request fails in this way; how many requests it has made."""
    proxy.arm()
    store = MlflowStore(proxy.url, patience=patience(kind, "gives up"))
    proxy.arm(*(KINDS[kind](n) if kind else ()))
    with suppress(MetaError, KeyboardInterrupt):
        story(scene, store)
    return len(proxy.log)


def test_whatever_fails_of_a_worker_each_suggestion_ends_once_and_no_run_is_executed_twice(
    server: str, tmp_path: Path
) -> None:
    (tmp_path / "trainer.py").write_text(TRAINER)
    direct = MlflowStore(server)
    n_requests: Mapping[str, int] = {}
    for story in STORIES:
        scene = Scene.of(direct, tmp_path, f"{story.__name__}, rehearsal")
        with FaultProxy(server) as proxy:
            n_requests = {**n_requests, story.__name__: attempt(scene, story, proxy)}
        scene.settle()
        scene.check()

    def trial(story: Story, name: str, n: int) -> str:
        scene = Scene.of(direct, tmp_path, f"{story.__name__}, {name}, request {n}")
        with FaultProxy(server) as proxy:
            attempt(scene, story, proxy, name, n)
            is_reached = any(entry.action for entry in proxy.log)
        try:
            scene.settle()
            scene.check()
        except (AssertionError, MetaError) as error:
            return f"{scene.experiment}: {error!r}"
        return "" if is_reached else "not reached"

    wanted = [
        (story, name, n)
        for story in STORIES
        for i, name in enumerate(KINDS)
        for n in range(1 + i % STRIDE, n_requests[story.__name__] + 1, STRIDE)
    ]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        found = list(pool.map(lambda one: trial(*one), wanted))
    rows = {}
    for name in KINDS:
        of_kind = [end for (_, kind, _), end in zip(wanted, found, strict=True) if kind == name]
        wrong = [end for end in of_kind if end not in ("", "not reached")]
        rows[name] = (len(of_kind) - of_kind.count("not reached"), len(wrong))
    total = [sum(column) for column in zip(*rows.values(), strict=True)]
    show(f"worker: {list(n_requests.values())}", {**rows, "in all": total}, ["trials", "wrong"])
    assert [end for end in found if end not in ("", "not reached")] == []
    assert total[0] >= 96
