"""The write-back protocol, where a process may die before or after each of its steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from loop import Loop
from world import LEASE_S, Mortal, World

from mlflow_meta.attempt import Outcome
from mlflow_meta.services.work import Rules, work
from mlflow_meta.store import names, publish
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.publish import DISCARDED
from mlflow_meta.store.queue import claim, tend, waiting
from mlflow_meta.testing import InMemoryStore

STEPS = {  # what may be done -> what must have been done before
    "suggests": [],
    "takes": [("suggests", 0)],
    "ends": [("suggests", 0), ("takes", 0)],
    "hands_back": [("suggests", 0), ("takes", 0)],
    "beats": [("suggests", 0), ("takes", 0)],
    "reaps": [("suggests", 0), ("takes", 0), ("is_stopped", 0)],
    "wakes": [("suggests", 0), ("takes", 0), ("is_stopped", 0), ("reaps", 0)],
}


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Steps in the same order every time."""
    monkeypatch.setattr(publish, "SIDE_BY_SIDE", 1)
    yield


@pytest.mark.parametrize("dies", [True, False], ids=["dies", "gives up"])
@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("what", STEPS)
def test_who_fails_at_any_step_loses_and_doubles_nothing(
    what: str, after: bool, dies: bool
) -> None:
    n, got_so_far = 0, True
    while got_so_far:
        n += 1
        world = World(InMemoryStore("sweep"))
        for before, who in STEPS[what]:
            world.step(before, who)
        got_so_far = world.step(what, 0, n=n, after=after, dies=dies)
        world.check_always()
        world.settle()
        world.check()
    assert n > 2


MEANWHILE = [  # who sleeps, after what; and what is done while it sleeps
    ("suggests", [], [("suggests", 0)]),
    ("suggests", [], [("suggests", 1), ("takes", 0), ("takes", 1), ("ends", 0)]),
    ("suggests", [], [("suggests", 0), ("takes", 0), ("ends", 0), ("takes", 0)]),
    ("takes", ["suggests"], [("takes", 1)]),
    ("takes", ["suggests"], [("takes", 1), ("ends", 1), ("suggests", 1)]),
    ("takes", ["suggests"], [("rejects", 0)]),
    ("takes", ["suggests"], [("reaps", 0), ("reaps", 0), ("takes", 1)]),
    ("ends", ["suggests", "takes"], [("is_stopped", 0), ("reaps", 0)]),
    ("ends", ["suggests", "takes"], [("is_stopped", 0), ("reaps", 0), ("takes", 1), ("ends", 1)]),
    ("hands_back", ["suggests", "takes"], [("is_stopped", 0), ("reaps", 0), ("takes", 1)]),
    ("reaps", ["suggests", "takes", "is_stopped"], [("wakes", 0)]),
    ("reaps", ["suggests", "takes", "is_stopped"], [("reaps", 0), ("takes", 1), ("suggests", 0)]),
    ("looks", ["suggests", "takes", "looks"], [("passes", 0)]),
    ("wakes", ["suggests", "takes", "is_stopped"], [("reaps", 0), ("takes", 1)]),
]


@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
@pytest.mark.parametrize(("what", "before", "meanwhile"), MEANWHILE)
def test_who_sleeps_at_any_step_while_others_go_on_loses_and_doubles_nothing(
    what: str, before: list[str], meanwhile: list[tuple[str, int]], after: bool
) -> None:
    n, got_so_far = 0, True
    while got_so_far:
        n += 1
        world = World(InMemoryStore("sweep"))
        for earlier in before:
            world.step(earlier)

        def others(world: World = world) -> None:
            for other, who in meanwhile:
                world.step(other, who)
                world.check_always()

        got_so_far = world.step(what, 0, n=n, after=after, meanwhile=others)
        world.check_always()
        world.settle()
        world.check()
    assert n > 2


@pytest.mark.parametrize("then", [1, 2, 3])
@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
@pytest.mark.parametrize(("what", "before", "meanwhile"), MEANWHILE)
def test_who_sleeps_at_any_step_and_dies_soon_after_loses_and_doubles_nothing(
    what: str, before: list[str], meanwhile: list[tuple[str, int]], after: bool, then: int
) -> None:
    n, got_so_far = 0, True
    while got_so_far:
        n += 1
        world = World(InMemoryStore("sweep"))
        for earlier in before:
            world.step(earlier)

        def others(world: World = world) -> None:
            for other, who in meanwhile:
                world.step(other, who)

        got_so_far = world.step(what, 0, n=n, after=after, meanwhile=others, then=then)
        world.check_always()
        world.settle()
        world.check()
    assert n > 2


@pytest.mark.parametrize("lease_s", [3 * LEASE_S, 1e6 * LEASE_S])
def test_a_reaper_waits_as_long_as_the_worker_has_asked_for_when_it_claimed(lease_s: float) -> None:
    n, got_so_far = 0, True
    while got_so_far:
        n += 1
        world = World(InMemoryStore("sweep"))
        world.step("suggests")
        ledger = Ledger.of(world.store, world.experiment_id)
        (run, *_) = waiting(ledger)

        def reaps(world: World = world, ledger: Ledger = ledger) -> None:
            for now in (0.0, LEASE_S, 2.9 * LEASE_S):
                tend(ledger, world.watch, (), lambda now=now: now)

        mortal: Any = Mortal(world.store, n=n, after=True, meanwhile=reaps)
        assert claim(mortal, run.run_id, tags={}, lease_s=lease_s)
        assert names.ENDED not in world.store.get_run(run.run_id).params
        got_so_far = mortal.done >= n
    assert n > 2


def test_who_was_silent_for_half_a_lease_is_not_known_to_live() -> None:
    world = World(InMemoryStore("sweep"))
    for what in ("suggests", "takes", "looks", "beats", "looks"):
        world.step(what)
    (run_id,) = world.executed
    assert world.watch.is_alive(run_id)
    world.now += LEASE_S / 2
    world.step("looks")
    assert not world.watch.is_alive(run_id)


class Slow(InMemoryStore):
    """A store that, while something is trained, answers a search only when that has ended."""

    def search_runs(self, *args: Any, **kwargs: Any) -> Any:
        trained = super().search_runs(self.experiment_id("sweep"), status="RUNNING", heartbeat=None)
        if trained:
            while super().search_runs(trained[0].experiment_id, status="RUNNING", heartbeat=None):
                time.sleep(0.01)
            time.sleep(0.3)  # until its worker's thread has told of it
        return super().search_runs(*args, **kwargs)


def test_a_worker_whose_training_ends_while_it_looks_at_others_goes_on() -> None:
    store = Slow("sweep")
    World(store).step("suggests")
    training = [sys.executable, "-S", "-c", "import time; time.sleep(0.3)"]
    done = work(store, "sweep", training, Rules(lease_s=2.0))
    assert [execution.outcome for execution in done] == [Outcome.FINISHED] * 3


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
def test_what_a_person_has_rejected_is_not_tried_again_by_a_reaper(n: int, after: bool) -> None:
    world = World(InMemoryStore("sweep"))
    world.step("suggests")
    world.step("rejects")
    world.step("turns_down", n=n, after=after)
    for _ in range(3):
        world.step("reaps")
    (run_id,) = world.rejected
    suggestion = world.store.get_run(run_id).tags[names.SUGGESTION]
    assert len(world.store.search_runs(world.experiment_id, suggestion=suggestion)) == 1
    world.settle()
    world.check()
    assert world.store.get_run(run_id).status == "KILLED"


def test_a_draft_that_was_discarded_is_not_tried_again_by_a_reaper() -> None:
    world = World(InMemoryStore("sweep"))
    world.step("suggests")
    ledger = Ledger.of(world.store, world.experiment_id)
    (first, *_) = waiting(ledger)
    ghost = world.store.create_run(world.experiment_id, "ghost", first.tags)
    world.store.log_once(ghost, names.CLAIM, DISCARDED)  # and who does it dies
    for _ in range(3):
        world.step("reaps")
    assert len(world.store.search_runs(world.experiment_id, key=None)) == 4
    assert world.store.get_run(ghost).status == "KILLED"


@pytest.mark.slow
def test_the_whole_loop_loses_and_doubles_nothing_in_any_order() -> None:
    run_state_machine_as_test(
        Loop, settings=settings(max_examples=150, stateful_step_count=30, deadline=None)
    )
