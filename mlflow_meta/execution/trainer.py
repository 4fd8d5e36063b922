"""A training program under its dead-man's switch, as the worker has it in hand."""

from __future__ import annotations

import errno
import math
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mlflow_meta.errors import BadCommand
from mlflow_meta.execution import launcher
from mlflow_meta.execution.launcher import clock

_LAUNCHER = Path(launcher.__file__)


class Why(Enum):
    """Why a training ended."""

    EXITED = "it ended by itself"
    STOPPED = "it was asked to stop"
    SILENT = "no heartbeat reached the server in time"
    LOST = "its launcher was killed, and it died with it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a training ended.

    Attributes:
        exit_code: The program's own; -N if signal N killed it, and -9 if its launcher was `LOST`.
        why: What came first.
    """

    exit_code: int
    why: Why


class Trainer:
    """A training program that is running, or has run.

    It runs in a session of its own, on an empty standard input, and dies with all it has started at
    most `limit_s` + `grace_s` after the last successful heartbeat was sent, whatever becomes of the
    worker: gone, hanging, stopped, suspended. When `wait` says that it has ended, none of it is
    left to write to its run.

    `beat` and `stop` may come from any thread, `wait` from one at a time.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """For `start`."""
        assert process.stdin and process.stdout
        self._process = process
        self._to, self._from = process.stdin, process.stdout
        self._using_to = threading.RLock()  # its number may be another file's once it is closed
        self._report = b""
        self._ended: Ended | None = None

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        limit_s: float,
        grace_s: float,
        since: float | None = None,
    ) -> Trainer:
        """Start a program, unless `limit_s` has passed already.

        Args:
            argv: The program, sought in `env`'s PATH, and its arguments: no shell reads them.
            env: Its whole environment.
            log: The file to which its standard output and standard error are appended.
            limit_s: Seconds that it may go on after the last successful heartbeat was sent.
            grace_s: Seconds between SIGTERM and SIGKILL.
            since: Time of `clock` from which the limit counts until the first `beat`; None for now.

        Raises:
            BadCommand: If it can't be started, or an argument can't be passed to any program.
        """
        if not (argv and 0 < limit_s < math.inf and 0 <= grace_s < math.inf):
            raise ValueError(
                "A training has a program, a limit over 0 s and a grace of 0 s or more, not "
                f"{list(argv)}, {limit_s} s and {grace_s} s."
            )
        job = b"\0".join([*_arguments(argv), *_variables(env)])
        numbers = (limit_s, grace_s, clock() if since is None else since, len(argv), len(job))
        with log.open("ab") as output:
            process = subprocess.Popen(
                # -I and -S: no variable and no package of the user's can break it
                [sys.executable, "-I", "-S", str(_LAUNCHER), *map(str, numbers)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        trainer = cls(process)
        try:
            failure = trainer._hand_over(job)
        except BaseException:  # Ctrl-C, above all
            trainer._to.close()  # not `stop`, whose line would go into a half-written job
            trainer._finish()
            raise
        if failure is not None:
            trainer._finish()
            raise BadCommand(_unstartable(argv[0], failure))
        return trainer

    def beat(self, sent_at: float) -> None:
        """Tell that a heartbeat which succeeded was sent at that time of `clock`.

        Never blocks; nothing happens once the training has ended.
        """
        self._tell(f"{sent_at}\n")

    def stop(self) -> None:
        """Ask the training to end; `wait` says when it has."""
        self._tell("stop\n")
        with self._using_to:
            self._to.close()  # which says the same, were the pipe full

    def wait(self, timeout_s: float) -> Ended | None:
        """How the training ended; None if it goes on after `timeout_s`."""
        deadline = clock() + timeout_s
        while self._ended is None:
            poll = select.poll()
            poll.register(self._from, select.POLLIN)
            if not poll.poll(max(deadline - clock(), 0.0) * 1000):
                return None
            read = self._from.read(1 << 16)
            self._report += read
            if not read:
                self._finish()
        return self._ended

    def _hand_over(self, job: bytes) -> int | None:
        """Give the launcher its job; the errno if the program can't be started."""
        rest = memoryview(job)
        with suppress(BrokenPipeError):  # it was killed already, so `wait` says LOST
            while rest:
                rest = rest[self._to.write(rest) :]
        os.set_blocking(self._to.fileno(), False)
        while b"\n" not in self._report and (read := self._from.read(1 << 16)):
            self._report += read
        words = self._report.split()
        return int(words[1]) if words[:1] == [b"failed"] else None

    def _tell(self, line: str) -> None:
        with self._using_to:
            if not self._to.closed:
                with suppress(BrokenPipeError):  # the launcher is gone
                    self._to.write(line.encode())  # all of it or, to a full pipe, nothing

    def _finish(self) -> None:
        """Take in how it ended, when the launcher has no more to say."""
        while read := self._from.read(1 << 16):
            self._report += read
        words = self._report.decode().split()
        if "ended" in words:
            why, exit_code = words[words.index("ended") + 1 :]
            ended = Ended(exit_code=int(exit_code), why=Why[why])
        else:
            # Its group's id is the launcher's own, no other's until `wait` below takes it away.
            with suppress(ProcessLookupError, PermissionError):  # macOS: only zombies are left
                os.killpg(self._process.pid, signal.SIGKILL)
            ended = Ended(exit_code=-signal.SIGKILL, why=Why.LOST)
        self._process.wait()
        self._ended = ended
        self._from.close()
        with self._using_to:
            self._to.close()


def _arguments(argv: Sequence[str]) -> list[bytes]:
    """As the program gets them.

    Raises:
        BadCommand: If one has a NUL byte, or characters that this system's encoding lacks.
    """
    if not argv[0]:  # which execve(2) looks for, but Python's does not
        raise BadCommand(_unstartable(argv[0], errno.ENOENT))
    words = []
    for i, word in enumerate(argv):
        try:
            words.append(os.fsencode(word))
        except UnicodeEncodeError as error:
            raise BadCommand(_unfit(i, word, error.start, error.reason)) from error
        if "\0" in word:
            raise BadCommand(_unfit(i, word, word.index("\0"), "a NUL byte ends it"))
    return words


def _unstartable(program: str, number: int) -> str:
    return (
        f"{program} can't be started: {os.strerror(number)}. Put the program that runs it in "
        "front, as in `-- python train.py`."
    )


def _unfit(i: int, word: str, at: int, reason: str) -> str:
    name = "The program" if i == 0 else f"Argument {i} of the program"
    shown = word if len(word) <= 80 else f"{word[:77]}..."
    return (
        f"{name}, {shown!r}, can't be passed on: {reason} at character {at + 1}. Nothing was "
        "started; reject that suggestion, or correct the words after `--`."
    )


def _variables(env: Mapping[str, str]) -> list[bytes]:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"No environment can have the variable {name!r} = {value!r}.")
    return [os.fsencode(f"{name}={value}") for name, value in env.items()]
