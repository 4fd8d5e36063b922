"""The queue of suggested runs: claimed, kept alive, and ended by workers.

A worker owns a run from its claim on. It says that it is alive by a heartbeat; a reaper that sees
none for a whole lease, on its own clock, ends the run and schedules the suggestion's next attempt,
which is another run. How a run has ended is a write-once param, so that one of worker and reaper
decides it; its status follows.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from mlflow_meta.space.decisions import Verdict, decision_of
from mlflow_meta.store import names
from mlflow_meta.store.contract import Record, RunStatus, Store
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.publish import REJECTED, final_status, publish_again, put_right
from mlflow_meta.store.stops import is_to_stop

LEASE_S = 300.0  # without a heartbeat, after which a worker is taken for dead
SUSPICIOUS = 0.5  # of a lease: who was silent for so long is worth waiting for its end
MAX_DEATHS = 3  # attempts of a suggestion whose workers died, until it is given up

log = logging.getLogger(__name__)

_REAPED, _HANDED_BACK, _GIVEN_UP = "reaped", "handed-back", "given-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """A suggested run that waits for a worker.

    Attributes:
        run_id: The run that the training is to land in.
        rank: 1 is to be trained first.
        params: Name -> text, exactly as written into the run.
        name: The run's name.
        attempt: How often it was tried before, and 1.
        tags: Name -> text, a person's decision among them.
    """

    run_id: str
    rank: int
    params: Mapping[str, str]
    name: str
    attempt: int = 1
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A run that is ours alone.

    Attributes:
        run_id: The run.
        token: Tells our claim from all others, and our lease.
    """

    run_id: str
    token: str


class Lost(str, Enum):
    """Why a claimed run is ours no longer."""

    ENDED = "it was ended by another worker"
    KILLED = "it was killed by a person"
    STOPPED = "it was asked to stop"


def waiting(ledger: Ledger) -> list[Scheduled]:
    """The suggested runs that wait in an experiment, those of the best rank first.

    Of one rank, the oldest comes first. Runs that the ledger does not name are not ours.
    """
    entries = ledger.entries()
    records = [
        record
        for record in ledger.store.search_runs(ledger.experiment_id, status="SCHEDULED", rank=None)
        if record.tags[names.RANK].isdecimal()
        and names.CLAIM not in record.params
        and entries.get(record.tags.get(names.KEY, "")) == record.run_id
    ]
    records.sort(key=lambda record: (int(record.tags[names.RANK]), record.start_ms))
    return [_scheduled(record) for record in records]


def claim(
    store: Store, run_id: str, *, tags: Mapping[str, str], lease_s: float = LEASE_S
) -> Claim | None:
    """Take a SCHEDULED run; not None for exactly one of all that try, and `tags` are set.

    A param is written once: of several workers that log their own token, one wins. Nothing
    else in MLflow is such a compare-and-set. The token has the worker's lease, so that no reaper
    with a shorter one ever sees the claim without it.
    """
    token = f"{uuid.uuid4().hex} {lease_s:.3f}"
    store.log_once(run_id, names.CLAIM, token)
    record = store.get_run(run_id)
    if record.params.get(names.CLAIM) != token:
        return None
    if record.status != "SCHEDULED" or decision_of(record.tags).verdict is Verdict.REJECTED:
        claimed = Claim(run_id=run_id, token=token)  # a person was faster: it is not to be trained
        finish(store, claimed, "KILLED")
        return None
    started = {names.STARTED_MS: str(int(time.time() * 1000)), names.HEARTBEAT: f"{token} 0"}
    store.log_batch(run_id, tags={**tags, **started})
    store.set_status(run_id, "RUNNING")
    return Claim(run_id=run_id, token=token)


def beat(store: Store, claimed: Claim, n: int) -> Lost | None:
    """Say that the worker is alive, for the n-th time; not None if the run is ours no longer."""
    store.log_batch(claimed.run_id, tags={names.HEARTBEAT: f"{claimed.token} {n}"})
    record = store.get_run(claimed.run_id)
    if names.ENDED in record.params:
        return Lost.ENDED
    if record.status == "KILLED":
        return Lost.KILLED
    return Lost.STOPPED if is_to_stop(record.tags) else None


def finish(store: Store, claimed: Claim, status: RunStatus) -> bool:
    """End a claimed run; False if it was ended by somebody else before, and it stays so.

    A status that the training has given it itself stays as it is, unless it says FINISHED and the
    training has failed.
    """
    if not _ended(store, claimed.run_id, f"{status} {claimed.token}"):
        return False
    found = store.get_run(claimed.run_id).status
    if found in ("RUNNING", "SCHEDULED") or (found == "FINISHED" and status != "FINISHED"):
        store.set_status(claimed.run_id, status)
    return True


def hand_back(ledger: Ledger, claimed: Claim) -> str | None:
    """End a claimed run that was not trained to its end, and schedule its suggestion again.

    Returns:
        The run of the next attempt; None if the run was ended by somebody else before.
    """
    if not _ended(ledger.store, claimed.run_id, f"{_HANDED_BACK} {claimed.token}"):
        return None
    return follow(ledger, ledger.store.get_run(claimed.run_id))


def _ended(store: Store, run_id: str, mark: str) -> bool:
    """Whether it is by us that a run ends; if not, its status is what the others have said."""
    if store.log_once(run_id, names.ENDED, mark) == mark:
        return True
    put_right(store, store.get_run(run_id))
    return False


def reap(ledger: Ledger, record: Record) -> str | None:
    """End a run whose worker is dead, and schedule its suggestion again.

    Returns:
        The run of the next attempt; None if there is none: the run had ended after all, or its
        workers have died too often.
    """
    word = _REAPED if _deaths(record) + 1 < MAX_DEATHS else _GIVEN_UP
    ledger.store.log_once(record.run_id, names.ENDED, f"{word} {uuid.uuid4().hex}")
    return follow(ledger, ledger.store.get_run(record.run_id))


def follow(ledger: Ledger, record: Record) -> str | None:
    """Do what follows from how a run was ended, whoever has ended it; the next attempt, if any."""
    following = None
    if is_superseded(record):
        is_death = record.params[names.ENDED].startswith(_REAPED)
        following = publish_again(ledger, record, deaths=_deaths(record) + is_death)
        ledger.store.set_status(record.run_id, "KILLED")
    else:
        put_right(ledger.store, record)
    return following


def is_superseded(record: Record) -> bool:
    """Whether another attempt follows this one."""
    return record.params.get(names.ENDED, "").partition(" ")[0] in (_REAPED, _HANDED_BACK)


def is_rejected(record: Record) -> bool:
    """Whether a person does not want a run to be trained that waits."""
    return (
        record.status == "SCHEDULED"
        and names.CLAIM not in record.params
        and decision_of(record.tags).verdict is Verdict.REJECTED
    )


def reject(store: Store, run_id: str) -> None:
    """End a waiting run that a person has rejected, unless a worker was faster."""
    if store.log_once(run_id, names.CLAIM, REJECTED) == REJECTED:
        store.set_status(run_id, "KILLED")


@dataclass(slots=True)
class Watch:
    """Which claimed runs have shown no heartbeat for how long, as one process has seen it.

    No clocks of two machines are compared: a lease begins when this process sees a heartbeat for
    the first time, so that a reaper that has just started waits for a whole lease.
    """

    lease_s: float
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    _alive: set[str] = field(default_factory=set)

    def look(self, records: Sequence[Record], asked: float, now: float) -> list[Record]:
        """Those whose worker is dead.

        Args:
            records: All claimed runs that have not ended, as `tend` reads them.
            asked: When they were asked for, on a clock of this machine that never goes back, in
                seconds. We may have been stopped between that and `now`, for longer than a lease.
            now: Not before they were answered.
        """
        dead = []
        current = {}
        for record in records:
            mark = f"{record.params[names.CLAIM]} {record.tags.get(names.HEARTBEAT, '')}"
            last, since = self._seen.get(record.run_id, ("", now))
            lease_s = max(self.lease_s, _lease(record))
            if mark != last and last:
                self._alive.add(record.run_id)
            elif now - since >= SUSPICIOUS * lease_s:
                self._alive.discard(record.run_id)
            current[record.run_id] = (mark, since if mark == last else now)
            if mark == last and asked - since >= lease_s:
                dead.append(record)
        self._seen = current
        return dead

    def is_alive(self, run_id: str) -> bool:
        """Whether a run's heartbeat was seen to change lately."""
        return run_id in self._alive


def tend(
    ledger: Ledger, watch: Watch, own: Container[str], clock: Callable[[], float]
) -> list[Record]:
    """Go on where others have stopped, and reap the runs of the dead.

    Args:
        ledger: Of the experiment.
        watch: What was seen of its runs before.
        own: Ids of the runs that this process trains itself.
        clock: Seconds on a clock of this machine that never goes back.

    Returns:
        The runs of others whose workers have shown no sign of life lately.
    """
    asked = clock()
    records = [
        *ledger.store.search_runs(ledger.experiment_id, status="RUNNING", key=None),
        *ledger.store.search_runs(ledger.experiment_id, status="SCHEDULED", key=None),
    ]
    others = [r for r in records if names.CLAIM in r.params and r.run_id not in own]
    for record in others:
        if final_status(record):
            follow(ledger, record)
    others = [record for record in others if not final_status(record)]
    for record in watch.look(others, asked, clock()):
        log.warning(
            "The worker of %s is dead: its run is reaped.",
            record.run_id,
            extra={"action": "reap", "run_id": record.run_id},
        )
        reap(ledger, record)
    return [record for record in others if not watch.is_alive(record.run_id)]


def _deaths(record: Record) -> int:
    text = record.tags.get(names.DEATHS, "0")
    return int(text) if text.isdecimal() else 0


def _lease(record: Record) -> float:
    """The lease of who has claimed it, in seconds; 0 where it has not said."""
    text = record.params.get(names.CLAIM, "").partition(" ")[2]
    return float(text) if text.replace(".", "", 1).isdecimal() else 0.0


def _scheduled(record: Record) -> Scheduled:
    attempt = record.tags.get(names.ATTEMPT, "1")
    return Scheduled(
        run_id=record.run_id,
        rank=int(record.tags[names.RANK]),
        params=own_params(record),
        name=record.name,
        attempt=int(attempt) if attempt.isdecimal() else 1,
        tags=record.tags,
    )


def began_ms(record: Record) -> int:
    """When the training of a run began, in milliseconds since 1970; else when it was created."""
    text = record.tags.get(names.STARTED_MS, "")
    return int(text) if text.isdecimal() else record.start_ms


def own_params(record: Record) -> dict[str, str]:
    """The params of the training, without ours."""
    return {k: v for k, v in record.params.items() if not k.startswith(names.PREFIX)}
