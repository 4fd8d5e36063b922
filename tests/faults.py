"""What may happen to a request, and what must hold when all have had their say."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fault_proxy import Fault
from servers import mlflow_server

from mlflow_meta.store import names, plans
from mlflow_meta.store.contract import Record, Store
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.patience import PATIENCE_S, Patience
from mlflow_meta.store.plans import Item
from mlflow_meta.store.publish import is_draft, publish
from mlflow_meta.store.queue import own_params
from mlflow_meta.store.sweep import sweep

BUSY_DATABASE = b'{"error_code": "BAD_REQUEST", "message": "(OperationalError) database is locked"}'

NO_ANSWER_S = 2.0  # after which a request that hangs is taken for lost

Kind = Callable[[int], tuple[Fault, ...]]  # the n-th request -> what happens to it, and from then

ONCE: dict[str, Kind] = {
    "lost on the way": lambda n: (Fault("drop_before", n=n),),
    "answer lost": lambda n: (Fault("drop_after", n=n),),
    "half an answer": lambda n: (Fault("partial", n=n),),
    "500": lambda n: (Fault("status", n=n),),
    "500 after it was done": lambda n: (Fault("status_after", n=n),),
    "400, the database is busy": lambda n: (
        Fault("status", n=n, status=400, content=BUSY_DATABASE),
    ),
    "429, ask again after 1 s": lambda n: (Fault("status", n=n, status=429, retry_after="1"),),
    "504 after it was done": lambda n: (Fault("status_after", n=n, status=504),),
    "sent twice": lambda n: (Fault("replay", n=n),),
}
"""After which a process goes on."""
FOR_GOOD: dict[str, Kind] = {
    "no answer": lambda n: (Fault("hang", n=n),),
    "gone before it": lambda n: (Fault("drop_before", n=n, times=None),),
    "gone after it": lambda n: (
        Fault("drop_after", n=n),
        Fault("drop_before", n=n + 1, times=None),
    ),
}
"""At which a process ends."""


class Died(BaseException):
    """The process is gone: nothing that it would clean up is cleaned up."""


@dataclass(slots=True)
class Clock:
    """A clock on which sleeping takes no time: of a process that goes on.

    Attributes:
        ends: How a process ends where it would wait, if not None: `Died` is raised, or it waits
            for longer than anybody has patience.
    """

    ends: Literal["dies", "gives up"] | None = None
    _slept_s: float = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._slept_s

    def sleep(self, seconds: float) -> None:
        if self.ends == "dies":
            raise Died
        self._slept_s += 1e6 if self.ends else seconds


def patience(kind: str, ends: Literal["dies", "gives up"]) -> Patience:
    """Of a process to which this happens: as long as need be, but of no answer at all."""
    clock = Clock(ends if kind in FOR_GOOD else None)
    return Patience(NO_ANSWER_S if kind == "no answer" else PATIENCE_S, clock=clock)


@contextmanager
def quick_server() -> Iterator[str]:
    """`mlflow server`, whose database is in memory where the system has files that are."""
    memory = Path("/dev/shm")
    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        )
        database = f"sqlite:///{folder}/mlflow.db"
        yield stack.enter_context(mlflow_server(database, Path(folder, "artifacts")))


def cron(store: Store, experiment_id: str, asked: str, items: Sequence[Item]) -> None:
    """What `suggest` does once it knows what to suggest."""
    ledger = Ledger.of(store, experiment_id)
    sweep(ledger)
    plan = plans.standing(ledger, asked)
    publish(ledger, plan or plans.decide(ledger, asked, items, {}, {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many suggestions or runs are not as they should be.

    Attributes:
        lost: Suggestions without a run.
        doubled: Runs of a suggestion beside the first.
        bare: Runs without all of their params and predictions.
        left_open: Drafts that nobody will finish, and runs of ours that say RUNNING.
    """

    lost: int = 0
    doubled: int = 0
    bare: int = 0
    left_open: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            lost=self.lost + other.lost,
            doubled=self.doubled + other.doubled,
            bare=self.bare + other.bare,
            left_open=self.left_open + other.left_open,
        )


def tally(store: Store, experiment_id: str, items: Sequence[Item]) -> Tally:
    """What is wrong in an experiment for which these were published."""
    runs = store.search_runs(experiment_id, key=None)
    wanted = {item.suggestion: item for item in items}
    valid = [r for r in runs if r.status == "SCHEDULED"]
    found = Counter(record.tags[names.SUGGESTION] for record in valid)
    assert found.keys() <= wanted.keys(), "a run that nobody has asked for"
    own = [
        record
        for record in store.search_runs(store.own_experiment_id(), status="RUNNING", kind=None)
        if record.name == f"ledger of experiment {experiment_id}"
        or record.tags.get(names.EXPERIMENT) == experiment_id
    ]
    return Tally(
        lost=len(wanted.keys() - found.keys()),
        doubled=sum(found.values()) - len(found),
        bare=sum(not _is_whole(record, wanted[record.tags[names.SUGGESTION]]) for record in valid),
        left_open=sum(map(is_draft, runs)) + len(own),
    )


def _is_whole(record: Record, item: Item) -> bool:
    return own_params(record) == dict(item.params) and record.metrics == dict(item.metrics)


def show(title: str, rows: Mapping[str, Sequence[object]], heads: Sequence[str]) -> None:
    """Print a table of what was counted; pytest shows it with -s, and when a test fails."""
    say(f"\n{title:<28}" + "".join(f"{head:>11}" for head in heads))
    for name, row in rows.items():
        say(f"{name:<28}" + "".join(f"{value:>11}" for value in row))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
