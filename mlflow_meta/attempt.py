"""One claimed run as it is trained: its program, its heartbeats, its end and its log."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

from mlflow_meta.errors import BadCommand, MetaError, StoreError, TryLater
from mlflow_meta.execution import Ended, Trainer, Why, clock
from mlflow_meta.store import names
from mlflow_meta.store.contract import Store
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.queue import Claim, Lost, beat, finish, hand_back, reap

BEATS = 10  # heartbeats in a lease
LIMIT = 0.6  # of a lease: without a heartbeat for so long, the training is ended
GRACE = 0.1  # of a lease, between SIGTERM and SIGKILL: together well within a lease
POLL_S = 0.2  # between two looks at what the training prints
MAX_LOG_BYTES = 5 << 20  # the end of the log that is kept in the run's artifacts

log = logging.getLogger(__name__)


class Outcome(str, Enum):
    """What became of a claimed run."""

    FINISHED = "trained"
    FAILED = "failed"
    HANDED_BACK = "handed back: another attempt of it waits"
    KILLED = "killed by a person"
    STOPPED = "stopped, as it was asked to"
    TAKEN = "ended by another worker"
    SILENT = "stopped, as no heartbeat reached the server in time: another attempt of it waits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be done for a claimed run.

    Attributes:
        claim: The run, and our token.
        claimed_at: Time of `execution.clock` before it was claimed.
        argv: The program and its arguments.
        env: Its environment.
        lease_s: Without a heartbeat, after which others take us for dead.
        prefix: Put before each line that the training prints.
    """

    claim: Claim
    claimed_at: float
    argv: Sequence[str]
    env: Mapping[str, str]
    lease_s: float
    prefix: str = ""


class Attempt:
    """A claimed run that is being trained; `run` in one thread, `stop` from any."""

    def __init__(self, ledger: Ledger, job: Job, output: IO[str] | int | None) -> None:
        """Nothing is started yet.

        Args:
            ledger: Of the run's experiment.
            job: What to do.
            output: Where what the training prints goes, a file or its number; None for ours.
        """
        self.ledger = ledger
        self.job = job
        self._output = output
        self._trainer: Trainer | None = None
        self._is_stopping = False
        self._lost: Lost | None = None

    def stop(self) -> None:
        """Ask the training to end, and hand the run back."""
        self._is_stopping = True
        if self._trainer is not None:
            self._trainer.stop()

    def run(self) -> tuple[Outcome, int]:
        """Train, and see that the run is ended; what became of it, and the exit code.

        Raises:
            BadCommand: If the program can't be started; the run is handed back.
            MetaError: If the server can't be told how it ended; others will reap it.
        """
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, names.LOG_FILE)
            path.touch()
            try:
                ended = self._train(path)
            except BadCommand:
                hand_back(self.ledger, self.job.claim)
                raise
            outcome = self._end(ended)
            self._keep(path)
            return outcome, ended.exit_code

    def _train(self, path: Path) -> Ended:
        lease = self.job.lease_s
        self._trainer = trainer = Trainer.start(
            self.job.argv,
            env=self.job.env,
            log=path,
            limit_s=LIMIT * lease,
            grace_s=GRACE * lease,
            since=self.job.claimed_at,
        )
        if self._is_stopping:
            trainer.stop()
        with path.open("rb") as printed:
            mirror = Mirror(printed, self._output, self.job.prefix)
            sent, n = self.job.claimed_at, 0
            while (ended := trainer.wait(min(POLL_S, lease / BEATS))) is None:
                mirror.go_on()
                if clock() - sent >= lease / BEATS and self._lost is None:
                    sent, n = clock(), n + 1
                    self._beat(trainer, sent, n)
            mirror.go_on()
        return ended

    def _beat(self, trainer: Trainer, sent: float, n: int) -> None:
        try:
            self._lost = beat(self.ledger.store, self.job.claim, n)
        except (StoreError, TryLater) as error:
            log.warning("no heartbeat: %s", error, extra={"action": "no_heartbeat"})
            return
        if self._lost:
            trainer.stop()
        else:
            trainer.beat(sent)

    def _end(self, ended: Ended) -> Outcome:
        store, claim = self.ledger.store, self.job.claim
        if self._lost is Lost.KILLED:
            return Outcome.KILLED if finish(store, claim, "KILLED") else Outcome.TAKEN
        if self._lost is Lost.STOPPED:
            return Outcome.STOPPED if finish(store, claim, "KILLED") else Outcome.TAKEN
        if ended.why is Why.EXITED:
            succeeded = ended.exit_code == 0
            if not finish(store, claim, "FINISHED" if succeeded else "FAILED"):
                return Outcome.TAKEN
            return Outcome.FINISHED if succeeded else Outcome.FAILED
        if ended.why is Why.STOPPED:
            is_ours = hand_back(self.ledger, claim) is not None
            return Outcome.HANDED_BACK if is_ours else Outcome.TAKEN
        # Its launcher was killed, or the server was out of reach: as if its worker had died.
        reap(self.ledger, store.get_run(claim.run_id))
        return Outcome.SILENT

    def _keep(self, path: Path) -> None:
        """The end of the log, as an artifact of the run."""
        content = path.read_bytes()
        if len(content) > MAX_LOG_BYTES:
            left_out = len(content) - MAX_LOG_BYTES
            content = f"[{left_out} bytes left out]\n".encode() + content[-MAX_LOG_BYTES:]
        try:
            self.ledger.store.log_files(self.job.claim.run_id, {names.LOG_FILE: content})
        except MetaError as error:
            log.warning(
                "The log of %s is not kept: %s",
                self.job.claim.run_id,
                error,
                extra={"action": "lose_log", "run_id": self.job.claim.run_id},
            )


class Mirror:
    """Copies what a file has got since last time to an output, by whole lines if with a prefix."""

    def __init__(self, file: IO[bytes], output: IO[str] | int | None, prefix: str) -> None:
        """From where the file stands."""
        self._file = file
        self._output = output
        self._prefix = prefix.encode()
        self._rest = b""

    def go_on(self) -> None:
        """Copy what is new."""
        new = self._file.read()
        if self._prefix:
            *lines, self._rest = (self._rest + new).split(b"\n")
            new = b"".join(self._prefix + line + b"\n" for line in lines)
        if not new:
            return
        if isinstance(self._output, int):
            os.write(self._output, new)
        else:
            file = self._output or sys.stdout
            file.write(new.decode(errors="replace"))
            file.flush()


def environment(store: Store, run_id: str, gpu: str | None) -> dict[str, str]:
    """What a training program finds: our environment, and which run it is to land in."""
    of_gpu = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    of_run = {"MLFLOW_RUN_ID": run_id, "MLFLOW_TRACKING_URI": store.uri}
    return {**os.environ, **of_gpu, **of_run}
