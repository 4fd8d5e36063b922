"""A small world of crons, workers and people around a store, in which anybody may die anywhere.

`World(store).step(...)` does one thing; `World.settle()` lets everybody who is left finish, and
`World.check()` says what must hold then. The store may be in memory or behind a real server.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mlflow_meta.errors import TryLater
from mlflow_meta.space.decisions import DECISION
from mlflow_meta.store import names, plans
from mlflow_meta.store.contract import Record, RunStatus, Store
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.plans import Item
from mlflow_meta.store.publish import DISCARDED, final_status, is_draft, publish
from mlflow_meta.store.queue import (
    Claim,
    Lost,
    Watch,
    beat,
    claim,
    finish,
    hand_back,
    is_superseded,
    own_params,
    reject,
    tend,
    waiting,
)
from mlflow_meta.store.sweep import sweep

LEASE_S = 100.0


class Died(BaseException):
    """The process is gone: nothing that it would clean up is cleaned up."""


@dataclass
class Mortal:
    """A store as one process sees it, which fails at its n-th step, before or after it is done.

    With `dies`, everything fails from then on, as nothing comes from a process that was killed.
    With `meanwhile` it does not fail: it sleeps, while that is done; with `then` it dies so many
    steps later.
    """

    store: Store
    n: int | None = None
    after: bool = False
    dies: bool = True
    meanwhile: Callable[[], object] | None = None
    then: int | None = None
    done: int = 0
    is_dead: bool = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        return functools.partial(self._call, found) if callable(found) else found

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.is_dead:
            raise Died
        self.done += 1
        is_due = self.done == self.n
        if is_due and not self.after:
            self._fail()
        result = method(*args, **kwargs)
        if is_due and self.after:
            self._fail()
        return result

    def _fail(self) -> None:
        if self.meanwhile is not None:
            self.meanwhile()
            self.meanwhile, self.n = None, self.then and self.done + self.then
            return
        self.is_dead = self.dies
        raise Died if self.dies else TryLater("the server did not answer")


@dataclass
class Worker:
    """A worker: what it holds, and whether its process is stopped."""

    claim: Claim | None = None
    n_beats: int = 0


@dataclass
class World:
    """See the module."""

    store: Store
    experiment: str = "sweep"
    workers: dict[int, Worker] = field(default_factory=dict)
    executed: Counter[str] = field(default_factory=Counter)
    told: dict[str, str] = field(default_factory=dict)  # how a worker believes its run has ended
    rejected: set[str] = field(default_factory=set)
    now: float = 0.0
    watch: Watch = field(default_factory=lambda: Watch(LEASE_S))
    zombies: list[Claim] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.experiment_id = self.store.experiment_id(self.experiment)

    def step(self, what: str, who: int = 0, n: int | None = None, after: bool = False,
             dies: bool = True, meanwhile: Callable[[], object] | None = None,
             then: int | None = None) -> bool:  # fmt: skip
        """Do one thing, in which its process fails or sleeps at its n-th step.

        Returns:
            Whether it got so far.
        """
        mortal: Any = Mortal(self.store, n, after, dies, meanwhile, then)
        try:
            getattr(self, what)(mortal, who)
        except (Died, TryLater):
            if what in ("takes", "ends", "hands_back", "beats"):
                self._is_gone(who)
        return n is not None and mortal.done >= n

    # What happens

    def suggests(self, store: Store, which: int) -> None:
        """A cron publishes plan `which`; plans overlap in what they suggest."""
        ledger = Ledger.of(store, self.experiment_id)
        sweep(ledger)
        asked = plans.digest(["plan", which])
        plan = plans.standing(ledger, asked)
        if plan is None:
            items = [item(i) for i in range(which, which + 3)]
            plan = plans.decide(ledger, asked, items, {"which": which}, {})
        publish(ledger, plan)

    def takes(self, store: Store, who: int) -> None:
        """A worker that has nothing claims what waits, and trains it."""
        worker = self.workers.setdefault(who, Worker())
        if worker.claim is not None:
            return
        ledger = Ledger.of(store, self.experiment_id)
        for run in waiting(ledger)[:2]:
            if taken := claim(store, run.run_id, tags={}, lease_s=LEASE_S):
                self.executed[taken.run_id] += 1
                self.workers[who] = Worker(claim=taken)
                return

    def beats(self, store: Store, who: int) -> None:
        worker = self.workers.get(who)
        if worker and worker.claim:
            worker.n_beats += 1
            if beat(store, worker.claim, worker.n_beats) is Lost.ENDED:
                self.workers[who] = Worker()

    def ends(self, store: Store, who: int) -> None:
        worker = self.workers.get(who)
        if worker and (claimed := worker.claim):
            status: RunStatus = ("FINISHED", "FAILED")[who % 2]  # type: ignore[assignment]
            if finish(store, claimed, status):
                self.told[claimed.run_id] = status
            self._lets_go(who, claimed)

    def hands_back(self, store: Store, who: int) -> None:
        worker = self.workers.get(who)
        if worker and worker.claim:
            claimed = worker.claim
            hand_back(Ledger.of(store, self.experiment_id), claimed)
            self._lets_go(who, claimed)

    def is_stopped(self, store: Store, who: int) -> None:
        """A worker does nothing for so long that it is taken for dead, and wakes up later."""
        worker = self.workers.get(who)
        if worker and worker.claim:
            self.zombies.append(worker.claim)
            self._is_gone(who)

    def wakes(self, store: Store, who: int) -> None:
        """A worker that was taken for dead goes on as if nothing had happened."""
        if self.zombies:
            zombie = self.zombies.pop()
            if beat(store, zombie, 10**6) is None:
                finish(store, zombie, "FINISHED")

    def rejects(self, store: Store, who: int) -> None:
        for run in waiting(Ledger.of(store, self.experiment_id))[:1]:
            self.rejected.add(run.run_id)
            store.log_batch(run.run_id, tags={DECISION: "reject"})

    def turns_down(self, store: Store, who: int) -> None:
        """A worker ends what a person has rejected."""
        for run_id in self.rejected:
            reject(store, run_id)

    def reaps(self, store: Store, who: int) -> None:
        """A reaper looks, a lease passes in which the living beat, and it looks again."""
        ledger = Ledger.of(store, self.experiment_id)
        self._look(ledger)
        for name in list(self.workers):
            self.step("beats", name)
        self.now += LEASE_S
        self._look(ledger)

    def looks(self, store: Store, who: int) -> None:
        """A reaper looks once."""
        self._look(Ledger.of(store, self.experiment_id))

    def passes(self, store: Store, who: int) -> None:
        """A lease passes in which the living beat."""
        for name in list(self.workers):
            self.step("beats", name)
        self.now += LEASE_S
        for name in list(self.workers):
            self.step("beats", name)

    def _look(self, ledger: Ledger) -> None:
        open_before = [run_id for run_id in self._alive() if not self._is_ended(run_id)]
        tend(ledger, self.watch, (), lambda: self.now)
        assert not any(map(self._is_ended, open_before)), "a live worker's run was reaped"

    def _alive(self) -> set[str]:
        return {worker.claim.run_id for worker in self.workers.values() if worker.claim}

    def _is_ended(self, run_id: str) -> bool:
        return names.ENDED in self.store.get_run(run_id).params

    def _lets_go(self, who: int, claimed: Claim) -> None:
        if self.workers[who].claim == claimed:
            self._is_gone(who)

    def _is_gone(self, who: int) -> None:
        self.workers[who] = Worker()

    # What must hold

    def check_always(self) -> None:
        """What must hold at every moment."""
        wanted = self._wanted()
        for record in self._runs():
            if record.status == "SCHEDULED":
                suggestion = wanted[record.tags[names.SUGGESTION]]
                assert own_params(record) == dict(suggestion.params), "SCHEDULED without params"
                assert record.metrics == dict(suggestion.metrics)
        twice = [run_id for run_id, n in self.executed.items() if n > 1]
        assert not twice, f"executed twice: {twice}"

    def settle(self) -> None:
        """Let everybody who is left finish what there is."""
        sweep(Ledger.of(self.store, self.experiment_id))
        for _ in range(40):
            self.step("reaps")
            if not (waiting(Ledger.of(self.store, self.experiment_id)) or self._open()):
                break
            for who in range(4):
                self.step("takes", who)
                self.step("ends", who)
        self.step("reaps")
        sweep(Ledger.of(self.store, self.experiment_id))
        while self.zombies:
            self.step("wakes")
        sweep(Ledger.of(self.store, self.experiment_id))

    def _plans(self) -> list[plans.Plan]:
        """Those that were decided: from then on they will be published."""
        entries = Ledger.of(self.store, self.experiment_id).entries()
        return [plans.read(self.store, v) for k, v in entries.items() if k.startswith("plan.")]

    def _wanted(self) -> dict[str, Item]:
        return {item.suggestion: item for plan in self._plans() for item in plan.items}

    def check(self) -> None:
        """What must hold when all is done: nothing lost, nothing doubled, nothing left open."""
        self.check_always()
        runs = self._runs()
        published = [r for r in runs if r.params.get(names.CLAIM) != DISCARDED]
        assert not [r for r in runs if is_draft(r)], "a ghost run is open"
        assert all(r.status in ("FINISHED", "FAILED", "KILLED") for r in runs), "a run is open"
        for record in runs:
            assert record.status == (final_status(record) or record.status), "not as it was ended"
            assert record.status == self.told.get(record.run_id, record.status), "told otherwise"
        last = Counter(r.tags[names.SUGGESTION] for r in published if not is_superseded(r))
        assert set(last) == set(self._wanted()), "a suggestion is lost"
        assert set(last.values()) <= {1}, f"a suggestion ended twice: {last}"
        keys = Counter(r.tags[names.KEY] for r in published)
        assert set(keys.values()) <= {1}, "an attempt has two runs"
        for record in published:
            word = record.params.get(names.ENDED, "").partition(" ")[0]
            assert word != "KILLED" or record.run_id in self.rejected, "killed by nobody"
        own = self.store.search_runs(self.store.own_experiment_id(), status="RUNNING", kind=None)
        assert not own, f"runs of ours are open: {[record.name for record in own]}"

    def _runs(self) -> list[Record]:
        return self.store.search_runs(self.experiment_id, key=None)

    def _open(self) -> list[Record]:
        return [r for r in self._runs() if r.status in ("RUNNING", "SCHEDULED")]


def item(i: int) -> Item:
    params = {"lr": str(0.1 / (i + 1)), "depth": str(i)}
    return Item(
        suggestion=plans.digest([params, "task"]),
        name=f"suggested {i}",
        params=params,
        metrics={"predicted_loss": 0.5 + i},
        tags={names.RANK: str(i + 1), names.TASK: "task"},
    )
