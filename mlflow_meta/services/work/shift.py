"""A worker at work: what it claims, what it trains side by side, and whom it takes for dead."""

from __future__ import annotations

import logging
import math
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import IO

from mlflow_meta.attempt import BEATS, Attempt, Job, Outcome, environment
from mlflow_meta.errors import MetaError
from mlflow_meta.execution import clock
from mlflow_meta.plugin import hardware_tags
from mlflow_meta.services.work.commands import arguments, is_project
from mlflow_meta.space.decisions import Verdict, decision_of
from mlflow_meta.store import Scheduled, queue
from mlflow_meta.store.ledger import Ledger

MAX_FAILURES = 2  # trainings that may fail in a row before the others are left waiting
MAX_PAUSE_S = 30.0  # at most between two looks at the queue and at other workers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One suggested run that was claimed.

    Attributes:
        run_id: The run.
        name: Its name.
        rank: Its rank among the suggestions.
        exit_code: What the training program ended with; 0 is success.
        outcome: What became of the run.
        attempt: How often its suggestion was tried before, and 1.
    """

    run_id: str
    name: str
    rank: int
    exit_code: int
    outcome: Outcome = Outcome.FINISHED
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a worker works.

    Attributes:
        max_runs: How many runs it takes at most; None for as many as wait.
        max_time_s: Seconds after which it takes no more; None for no end.
        concurrency: How many it trains at a time, where no GPUs are named.
        gpus: Ids of GPUs, as CUDA_VISIBLE_DEVICES has them; one training at a time on each.
        require_approval: Whether it takes only what a person has approved.
        lease_s: Seconds without a heartbeat after which a worker is taken for dead.
        poll_s: Seconds after which it looks again where nothing waits; None to leave then.
        first: Ids of runs that it takes before all others, whatever their rank.
    """

    max_runs: int | None = None
    max_time_s: float | None = None
    concurrency: int = 1
    gpus: Sequence[str] = ()
    require_approval: bool = False
    lease_s: float = queue.LEASE_S
    poll_s: float | None = None
    first: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"`concurrency >= 1` must hold, but got {self.concurrency}.")
        if not 0 < self.lease_s < math.inf:
            raise ValueError(f"`lease_s > 0` must hold, but got {self.lease_s}.")
        if self.poll_s is not None and not 0 < self.poll_s < math.inf:
            raise ValueError(f"`poll_s > 0` must hold, but got {self.poll_s}.")
        if len(set(self.gpus)) < len(self.gpus):
            raise ValueError(f"Each GPU is named once, but got {list(self.gpus)}.")

    @property
    def slots(self) -> list[str | None]:
        """The places of trainings: a GPU, or None for none in particular."""
        return list(self.gpus) or [None] * self.concurrency

    @property
    def pause_s(self) -> float:
        """Seconds between two looks at the queue and at other workers."""
        return min(MAX_PAUSE_S, self.lease_s / BEATS, self.poll_s or math.inf)


def may_be_taken(run: Scheduled, rules: Rules) -> bool:
    """Whether people's decisions let a worker take a run."""
    verdict = decision_of(run.tags).verdict
    if verdict is Verdict.REJECTED:
        return False
    return verdict is Verdict.APPROVED or not rules.require_approval


@dataclass(slots=True)
class Shift:
    """A worker at work, until nothing waits or, where it polls, until it may take no more."""

    ledger: Ledger
    command: Sequence[str]
    rules: Rules
    output: IO[str] | int | None
    progress: Callable[[str], None]
    done: list[Execution] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    n_claimed: int = 0
    _running: dict[str, Attempt] = field(default_factory=dict)
    _ended: SimpleQueue[tuple[str | None, Execution | BaseException]] = field(
        default_factory=SimpleQueue
    )
    _refused: set[str] = field(default_factory=set)
    _looked: float = -math.inf
    _is_watching: bool = False

    def run(self) -> list[Execution]:
        """Work until there is an end; what was claimed, in the order in which it ended."""
        free = self.rules.slots
        watch = queue.Watch(self.rules.lease_s)
        try:
            while True:
                self._look_at_others(watch)
                while free and self._may_start() and self._start(free[0]):
                    del free[0]
                is_idle = not self._running and self._ended.empty()  # in this order
                stays = self._is_watching or self.rules.poll_s is not None
                if is_idle and not (stays and self._may_start()):
                    return self.done
                free += self._wait()
        except BaseException:
            self._hand_back_all()
            raise

    def _may_start(self) -> bool:
        rules = self.rules
        lately = [execution.outcome for execution in self.done[-MAX_FAILURES:]]
        return (
            (rules.max_runs is None or self.n_claimed < rules.max_runs)
            and (rules.max_time_s is None or time.monotonic() - self.began < rules.max_time_s)
            # It is the program then, not the configurations: these are left for later.
            and lately != [Outcome.FAILED] * MAX_FAILURES
        )

    def _in_order(self) -> list[queue.Scheduled]:
        """What waits: those that are to be first, then by rank."""
        waiting = queue.waiting(self.ledger)
        return sorted(waiting, key=lambda run: run.run_id not in self.rules.first)

    def _start(self, gpu: str | None) -> bool:
        """Claim the best run that waits, and train it; False if none does."""
        store = self.ledger.store
        for run in self._in_order():
            if decision_of(run.tags).verdict is Verdict.REJECTED:
                queue.reject(store, run.run_id)
            if run.run_id in self._refused or not may_be_taken(run, self.rules):
                continue
            argv = arguments(self.command, run.params)
            claimed_at = clock()
            lease_s = self.rules.lease_s
            claim = queue.claim(store, run.run_id, tags=hardware_tags(), lease_s=lease_s)
            if claim is None:
                self._refused.add(run.run_id)
                continue
            self.n_claimed += 1
            try:
                self.progress(f"{run.name}: {shlex.join(argv)}")
                job = Job(
                    claim=claim,
                    claimed_at=claimed_at,
                    argv=[*argv, "--run-id", run.run_id] if is_project(self.command) else argv,
                    env=environment(store, run.run_id, gpu),
                    lease_s=self.rules.lease_s,
                    prefix=f"[{run.rank}] " if len(self.rules.slots) > 1 else "",
                )
                self._train(run, job, gpu)
            except BaseException:  # Ctrl-C, above all
                if run.run_id not in self._running:
                    queue.hand_back(self.ledger, claim)
                raise
            return True
        return False

    def _train(self, run: Scheduled, job: Job, gpu: str | None) -> None:
        attempt = Attempt(self.ledger, job, self.output)
        execution = Execution(
            run_id=run.run_id, name=run.name, rank=run.rank, exit_code=0, attempt=run.attempt
        )

        def train() -> None:
            try:
                outcome, exit_code = attempt.run()
            except BaseException as error:  # told by the worker's own thread
                self._ended.put((gpu, error))
            else:
                ended = replace(execution, outcome=outcome, exit_code=exit_code)
                self._ended.put((gpu, ended))
            finally:
                self._running.pop(run.run_id, None)

        self._running[run.run_id] = attempt
        threading.Thread(target=train, name=run.name, daemon=True).start()

    def _wait(self) -> list[str | None]:
        """Wait until something may have changed; the slots that have become free."""
        free: list[str | None] = []
        try:
            while True:
                gpu, ended = self._ended.get(timeout=0 if free else self.rules.pause_s)
                free.append(gpu)
                if isinstance(ended, BaseException):
                    raise ended
                self.done.append(ended)
        except Empty:
            return free

    def _look_at_others(self, watch: queue.Watch) -> None:
        """Go on where others have stopped, and reap the runs of the dead."""
        if clock() - self._looked < self.rules.pause_s:
            return
        self._looked = clock()
        doubtful = queue.tend(self.ledger, watch, self._running, clock)
        if doubtful and not (self._running or self._is_watching):
            runs = "1 run" if len(doubtful) == 1 else f"{len(doubtful)} runs"
            self.progress(
                f"{runs} that another worker has claimed: tried again if it gives no sign of life "
                f"for {self.rules.lease_s:g} s."
            )
        self._is_watching = bool(doubtful)

    def _hand_back_all(self) -> None:
        for attempt in list(self._running.values()):
            attempt.stop()
        while self._running or not self._ended.empty():
            try:
                _, ended = self._ended.get(timeout=1.0)
            except Empty:
                continue
            if isinstance(ended, Execution):
                self.done.append(ended)
            elif isinstance(ended, MetaError):
                log.warning("not handed back: %s", ended, extra={"action": "not_handed_back"})
