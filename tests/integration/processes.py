"""Processes of a test: cheap to start, each in a session of its own, all dead when the test ends.

They are forked from a process that has imported everything, which costs seconds of CPU otherwise.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["pytest", "mlflow_meta.cli", "mlflow_meta.services.suggest", "mlflow_meta.services.work"]
)
PATIENCE_S = 240.0  # after which a test has failed, on however busy a machine
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def begin(function: Callable[..., object], *args: object, log: Path) -> BaseProcess:
    """Call a function in a new process; what it prints is appended to `log`."""
    process = CONTEXT.Process(target=_live, args=(str(log), function, args), daemon=True)
    process.start()
    return process


def command(*args: str) -> None:
    """Be `mlflow-meta` with these arguments."""
    from mlflow_meta.cli import main

    main(args, prog_name="mlflow-meta")


def code(process: BaseProcess) -> int | None:
    """Wait until it ends; its exit code, -N if signal N has killed it."""
    process.join(PATIENCE_S)
    assert process.exitcode is not None, f"process {process.pid} does not end"
    return process.exitcode


@contextmanager
def killed_at_last(processes: list[BaseProcess]) -> Iterator[None]:
    """Kill those in the list that are alive when the block ends, also the stopped ones."""
    try:
        yield
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()


def until(
    what: Callable[[], Any], why: str, patience_s: float = PATIENCE_S, pause_s: float = 0.02
) -> Any:
    """Wait for something that is true; it. A pause is made between two looks."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(pause_s)
    raise AssertionError(f"in {patience_s:.0f} s it did not happen that {why}")


def _live(log: str, function: Callable[..., object], args: tuple[object, ...]) -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where pytest is in a `&`
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    function(*args)


class Racers:
    """Processes that do the same at once, again and again, while the context lasts."""

    def __init__(self, n: int, log: Path) -> None:
        self._start = CONTEXT.Barrier(n, timeout=PATIENCE_S)
        pairs = [CONTEXT.Pipe() for _ in range(n)]
        self._pipes = [ours for ours, _ in pairs]
        self._processes = [
            begin(_race, i, theirs, self._start, log=log) for i, (_, theirs) in enumerate(pairs)
        ]

    def __enter__(self) -> Racers:
        return self

    def __exit__(self, *_: object) -> None:
        with killed_at_last(self._processes):
            pass

    def race(self, function: Callable[..., Any], *args: object) -> list[Any]:
        """What `function(start, i, *args)` returns in each; `start()` returns in all at once."""
        for pipe in self._pipes:
            pipe.send((function, args))
        answers = []
        for pipe in self._pipes:
            assert pipe.poll(PATIENCE_S), "a racer does not answer"
            answers.append(pipe.recv())
        broken = [text for has_failed, text in answers if has_failed]
        assert not broken, broken[0]
        return [answer for _, answer in answers]


def _race(i: int, pipe: Any, start: Any) -> None:
    while True:
        function, args = pipe.recv()
        try:
            pipe.send((False, function(start.wait, i, *args)))
        except Exception:
            start.abort()
            pipe.send((True, traceback.format_exc()))
