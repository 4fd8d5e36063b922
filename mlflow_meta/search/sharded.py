"""A search beyond one machine: parts of a surface, each searched to its end by a worker of Dask.

P, n_p, k: parameters; levels of parameter p; rows that are wanted
shard:     a box of levels; the shards of a surface have each of its rows once

What the shards have found and what they have ruled out add up: the best k of all are among the best
k of each, and nothing lies below the least of what the shards leave over and what has fallen out of
the best k. An engine that proves its result does so here too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mlflow_meta.search.seen import lowest
from mlflow_meta.search.surface import Box, Engine, Incumbent, Places, Surface, n_rows

if TYPE_CHECKING:
    from distributed import Client, Event, Future

T = TypeVar("T")

SHARDS_PER_THREAD = 4  # a worker that is done early has another one to take
N_RETRIES = 2  # of a shard whose worker has failed
POLL_S = 0.1  # between two incumbents while no shard is done
STOP_POLL_S = 1.0  # between two questions of a worker whether to stop


def sharded(engine: Engine, client: Client, n_shards: int | None = None) -> Engine:
    """`engine`, run on the workers of `client`, which need this package as well.

    It yields after every shard, and while none is done repeats what it has. Until all are done
    nothing is known of the rest. When the search is closed or interrupted its shards are cancelled,
    and the workers break off those they have begun.

    Args:
        engine: A function that a worker can import; ends by itself.
        client: Of a running cluster; stays open.
        n_shards: Into how many parts; by default four for each thread of the workers. Fewer where
            the levels can't be divided so.

    Raises:
        ValueError: If `n_shards` is less than 1.
        Exception: What the engine has raised for one shard three times.
    """
    from distributed import Event  # an optional dependency

    if n_shards is not None and n_shards < 1:
        raise ValueError(f"A surface has at least 1 shard, not {n_shards}.")

    def search(surface: Surface, k: int, rng: np.random.Generator) -> Iterator[Incumbent]:
        n_wanted = n_shards or SHARDS_PER_THREAD * max(sum(client.nthreads().values()), 1)
        boxes = split(tuple(np.arange(size) for size in surface.sizes), n_wanted)
        seeds = rng.integers(2**63, size=len(boxes))
        stop = Event(client=client)
        searched = partial(_searched, engine, k=k, stop=stop.name)
        with submitted(client, searched, surface, boxes, seeds, stop) as shards:
            yield from _merged(client, shards, surface, k)

    return search


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


def _searched(
    engine: Engine, surface: Surface, box: Box, seed: int, *, k: int, stop: str
) -> Incumbent:
    """What `engine` ends with over a box, in levels of the whole surface; runs on a worker."""
    found = ended(engine(surface.restricted(box), k, np.random.default_rng(seed)), stop)
    return replace(found, rows=rows_in(box, found.rows))


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


def _merged(
    client: Client, shards: list[Future[Incumbent]], surface: Surface, k: int
) -> Iterator[Incumbent]:
    """What all shards that are done have found; the last has the rest that they leave over."""
    any_row = np.zeros(
        (1, len(surface.sizes)), dtype=np.int64
    )  # to have one before a shard is done
    known = Incumbent(rows=any_row, values=surface.values(any_row), rest=math.inf, n_assessed=0)
    left = shards
    while left:
        some, left = gathered(client, left, POLL_S)
        for n_more, found in enumerate(some, start=1 - len(some)):
            known = _both(known, found, k)
            is_last = not left and n_more == 0
            yield known if is_last else replace(known, rest=-math.inf)
        if not some:
            yield replace(known, rest=-math.inf)


def _both(a: Incumbent, b: Incumbent, k: int) -> Incumbent:
    """The best of two parts of a surface; what falls out of the best k belongs to the rest."""
    rows, values = lowest(
        np.concatenate([a.rows, b.rows]), np.concatenate([a.values, b.values]), k + 1
    )
    return Incumbent(
        rows=rows[:k],
        values=values[:k],
        rest=min([a.rest, b.rest, *values[k:].tolist()]),
        n_assessed=a.n_assessed + b.n_assessed,
    )
