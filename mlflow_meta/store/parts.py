"""Reading many experiments side by side: each worker of an executor reads some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, wait

from mlflow.entities import Experiment

from mlflow_meta.store.runs import Runs, joined
from mlflow_meta.store.texts import without_secrets

MOST_PARTS = 32  # more would ask a server with few experiments for ever smaller pages
POLL_S = 0.2  # between two looks at the clock while no part is done


def read_in_parts(
    executor: Executor,
    read: Callable[[Sequence[Experiment]], Runs],
    experiments: Sequence[Experiment],
    progress: Callable[[int], None],
) -> Runs:
    """What `read` gives of all experiments, to the byte.

    Args:
        executor: Where it runs, a part of the experiments at a time; it may run twice.
        read: What a worker can import.
        experiments: At least one.
        progress: Called with how many runs have been read so far; what it raises ends the reading.
    """
    n_parts = min(len(experiments), MOST_PARTS)
    parts = [executor.submit(read, experiments[i::n_parts]) for i in range(n_parts)]
    try:
        left = set(parts)
        while left:
            _, left = wait(left, timeout=POLL_S, return_when=FIRST_COMPLETED)
            progress(sum(len(part.result()) for part in parts if part.done()))
        return without_secrets(joined([part.result() for part in parts]))
    finally:
        for part in parts:
            part.cancel()
