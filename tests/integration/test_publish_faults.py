"""Publishing over a real server, where each of its requests fails in every way."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, fields
from typing import Literal

import pytest
from fault_proxy import FaultProxy
from faults import (
    FOR_GOOD,
    ONCE,
    Died,
    Tally,
    cron,
    patience,
    quick_server,
    say,
    show,
    tally,
)
from nightly import nightly
from world import item

from mlflow_meta.errors import TryLater
from mlflow_meta.store import MlflowStore, plans, publish
from mlflow_meta.store.ledger import Ledger

STRIDE = 1 if nightly() else 5
"""Each kind of fault is tried at every request, or at every fifth, another one for each kind."""
SIDE_BY_SIDE = 3  # kinds of fault at a time
KINDS = {**ONCE, **FOR_GOOD}
FIRST, SECOND = [item(0), item(1)], [item(1), item(2)]  # two plans; one suggestion is in both
COUNTED = [field.name for field in fields(Tally)]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with quick_server() as url:
        yield url


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of a process in the same order every time."""
    monkeypatch.setattr(publish, "SIDE_BY_SIDE", 1)


def ends(proxy: FaultProxy, experiment_id: str, kind: str = "", n: int = 0) -> bool:
    """Publish the first plan, whose n-th request fails so; whether the process got to its end."""
    proxy.arm()
    dies: Literal["dies", "gives up"] = "dies" if n % 2 else "gives up"
    store = MlflowStore(proxy.url, patience=patience(kind, dies))
    proxy.arm(*(KINDS[kind](n) if kind else ()))
    try:
        cron(store, experiment_id, "first", FIRST)
    except (Died, TryLater):
        return False
    return True


def settled(store: MlflowStore, experiment_id: str, *, is_other: bool) -> Tally:
    """What is wrong when others have come by, and then the first has asked again."""
    wrong = Tally()
    if is_other:
        is_decided = plans.standing(Ledger.of(store, experiment_id), "first") is not None
        cron(store, experiment_id, "second", SECOND)
        wrong = tally(store, experiment_id, [*(FIRST if is_decided else ()), *SECOND])
    cron(store, experiment_id, "first", FIRST)
    return wrong + tally(store, experiment_id, [*FIRST, *(SECOND if is_other else ())])


def swept(server: str, kind: str, numbers: range) -> tuple[int, int, Tally]:
    """The requests of these numbers, each in a publish of its own.

    Returns:
        How many they were, at how many of them the process ended, and what went wrong.
    """
    direct = MlflowStore(server)
    n_trials, n_ended, wrong = 0, 0, Tally()
    with FaultProxy(server) as proxy:
        for n in numbers:
            experiment_id, is_ended = _ended_at(proxy, direct, kind, n)
            found = settled(direct, experiment_id, is_other=n % 4 < 2)
            n_trials += any(entry.action for entry in proxy.log)
            n_ended += is_ended
            wrong += found
            if found != Tally():
                say(f"{kind} at request {n}: {found}")
    return n_trials, n_ended, wrong


def _ended_at(proxy: FaultProxy, direct: MlflowStore, kind: str, n: int) -> tuple[str, bool]:
    """A publish in an experiment of its own whose n-th request has failed; whether it has ended."""
    for i in range(3):  # on a busy server a request may take so long that it ends too early
        experiment_id = direct.client.create_experiment(f"{kind} {n} {i}")
        is_ended = not ends(proxy, experiment_id, kind, n)
        if any(entry.action for entry in proxy.log) or not is_ended:
            return experiment_id, is_ended  # MLflow asks what a server can do every now and then
    raise AssertionError(f"{kind}: the {n}-th request never came")


def test_a_publish_that_fails_at_any_request_loses_and_doubles_nothing(server: str) -> None:
    store = MlflowStore(server)
    cron(store, store.client.create_experiment("warm-up"), "first", FIRST)
    with FaultProxy(server) as proxy:
        assert ends(proxy, store.client.create_experiment("rehearsal"))
        n_requests = len(proxy.log)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        pending = {
            kind: pool.submit(swept, server, kind, range(1 + i % STRIDE, n_requests + 1, STRIDE))
            for i, kind in enumerate(KINDS)
        }
        found = {kind: future.result() for kind, future in pending.items()}
    rows = {kind: (n, n_ended, *astuple(wrong)) for kind, (n, n_ended, wrong) in found.items()}
    total = [sum(column) for column in zip(*rows.values(), strict=True)]
    show(f"publish: {n_requests} requests", {**rows, "in all": total},
         ["trials", "ended", *COUNTED])  # fmt: skip
    assert total[2:] == [0, 0, 0, 0]
    assert all(rows[kind][1] == 0 for kind in ONCE), "a process gave up after one fault"
    assert all(rows[kind][1] == rows[kind][0] for kind in FOR_GOOD), "a process did not end"
    assert n_requests > 20
