"""Parts of a surface, each searched by a worker of Dask; `search.spread` decides which.

P:     parameters
shard: a box of levels; the shards of a surface have each of its rows once
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mlflow_meta.search.surface import Box, Incumbent, Places, Surface, n_rows

if TYPE_CHECKING:
    from distributed import Client, Event, Future

T = TypeVar("T")

SHARDS_PER_THREAD = 4  # a worker that is done early has another one to take
N_RETRIES = 2  # of a shard whose worker has failed
POLL_S = 0.1  # between two incumbents while no shard is done
STOP_POLL_S = 1.0  # between two questions of a worker whether to stop


def split(box: Box, n_shards: int) -> list[Box]:
    """Divide a box into `n_shards` parts that differ little in size, or as many as it has rows.

    It is cut in two across one parameter, and these are cut in turn. Of equally even cuts the one
    across the most levels is made.
    """
    sizes = [len(levels) for levels in box]
    n_shards = min(n_shards, n_rows(sizes))
    if n_shards <= 1:
        return [box]
    cuts = [
        (_unevenness(n_below / size, n_left / n_shards), -size, p, n_below, n_left)
        for p, size in enumerate(sizes)
        if size > 1
        for n_below, n_left in _cuts(size, n_shards)
    ]
    _, _, p, n_below, n_left = min(cuts)
    below = (*box[:p], box[p][:n_below], *box[p + 1 :])
    above = (*box[:p], box[p][n_below:], *box[p + 1 :])
    return split(below, n_left) + split(above, n_shards - n_left)


def _cuts(size: int, n_shards: int) -> Iterator[tuple[int, int]]:
    """Levels below a cut and shards for these: with even shards, and with even levels."""
    n_left = n_shards // 2
    yield min(max(round(size * n_left / n_shards), 1), size - 1), n_left
    n_below = size // 2
    yield n_below, min(max(round(n_shards * n_below / size), 1), n_shards - 1)


def _unevenness(of_rows: float, of_shards: float) -> float:
    """|log| of how much larger a shard is on one side of a cut than on the other."""
    return abs(math.log(of_rows / of_shards * (1.0 - of_shards) / (1.0 - of_rows)))


@contextmanager
def submitted(
    client: Client,
    searched: Callable[[Surface, T, int], Incumbent],
    surface: Surface,
    parts: Sequence[T],
    seeds: Places,
    stop: Event,
) -> Iterator[list[Future[Incumbent]]]:
    """What `searched` gives of each part; in the end `stop` is set where some are not done."""
    import dask

    # Not scattered: what has a recipe is made anew when the worker that held it is lost. A large
    # surface is no reason for a warning, as it goes to the scheduler only once.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"}):
        whole = client.submit(_itself, surface, pure=False, retries=N_RETRIES)
    shards = [
        client.submit(searched, whole, part, int(seed), pure=False, retries=N_RETRIES)
        for part, seed in zip(parts, seeds, strict=True)
    ]
    try:
        yield shards
    finally:
        if client.status == "running":
            if not all(shard.done() for shard in shards):
                stop.set()  # cancelling alone leaves a running function alone
            client.cancel(shards)


def _itself(surface: Surface) -> Surface:
    return surface


def ended(steps: Iterator[Incumbent], stop: str, seconds: float = math.inf) -> Incumbent:
    """The last step, or one after so many seconds or after the event `stop` has been set."""
    from distributed import Event

    asked_s = started_s = time.monotonic()
    for found in steps:  # noqa: B007
        now_s = time.monotonic()
        if now_s - started_s > seconds:
            break
        if now_s - asked_s > STOP_POLL_S:
            if Event(stop).is_set():
                break
            asked_s = now_s
    return found


def rows_in(box: Box, rows: Places) -> Places:
    """The rows of a box `(n, P)`, in levels of what it is a box of."""
    return np.stack([levels[rows[:, p]] for p, levels in enumerate(box)], axis=1)


def gathered(
    client: Client, shards: list[Future[Incumbent]], timeout_s: float
) -> tuple[list[Incumbent], list[Future[Incumbent]]]:
    """What shards have found that are done, at the latest after the timeout; and the others."""
    from distributed import TimeoutError, wait

    if timeout_s:
        with suppress(TimeoutError), client.as_current():
            wait(shards, timeout=timeout_s, return_when="FIRST_COMPLETED")
    are_done = [shard.done() for shard in shards]
    found = [shard.result() for shard, is_done in zip(shards, are_done, strict=True) if is_done]
    return found, [shard for shard, is_done in zip(shards, are_done, strict=True) if not is_done]
