"""Calls that need nothing of each other: side by side by an executor, or one after the other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")


class Calls:
    """Begins calls: with an executor at once, without one each when its result is asked for.

    Every call has one thread for its numerics, wherever it runs: the last digit of a sum hangs on
    how many share it, and results are to be the same everywhere. It is used as a context, which in
    the end cancels what has not begun.
    """

    def __init__(self, executor: Executor | None = None) -> None:
        """The executor stays open; it may have threads, processes or other machines."""
        self._executor = executor
        self._futures: list[Future[Any]] = []

    def begin(self, function: Callable[..., T], *args: Any) -> Callable[[], T]:
        """What gives the result of `function(*args)`, and waits for it."""
        if self._executor is None:
            return partial(function, *args)
        future = self._executor.submit(_in_one_thread, function, *args)
        self._futures.append(future)
        return future.result

    def __enter__(self) -> Calls:
        # An executor's threads are ours: the first to end must not lift the limit of the others.
        self._limits = threadpool_limits(1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for future in self._futures:
            future.cancel()
        self._limits.restore_original_limits()


def _in_one_thread(function: Callable[..., T], *args: Any) -> T:
    with threadpool_limits(1):
        return function(*args)
