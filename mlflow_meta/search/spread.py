"""A search on the workers of a cluster: alone at first, then what is left of it in shards.

Most searches are proven in a moment, and end before anything is sent. Of the others the shards are
told how good the best rows are that are known by then, and look for better ones only; an engine of
one thread goes on here as well. The search finds what it would have found alone, with the same
proof. Of rows of equal value any may be found, where none was known when the shards began.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mlflow_meta.search.best import Best, Weight
from mlflow_meta.search.branch import n_rows_in
from mlflow_meta.search.choose import ENGINES, WHOLE, Spread, run
from mlflow_meta.search.shards import (
    POLL_S,
    SHARDS_PER_THREAD,
    ended,
    gathered,
    rows_in,
    split,
    submitted,
)
from mlflow_meta.search.surface import Box, Engine, Incumbent, Surface

if TYPE_CHECKING:
    from distributed import Client

ALONE_S = 1.0  # after which a search is sent to the workers
SHARE = 0.9  # of the time that is left, which the workers may take; then they tell what they have
PROVEN: tuple[Engine, ...] = (*WHOLE, ENGINES["scan"])
"""Engines that find the same in parts as in one go: the others learn, or take a moment."""


def spread_on(client: Client) -> Spread:
    """How to run engines on the workers of a client, which stays open."""
    return partial(_spread, client)


def _spread(  # noqa: PLR0913 - as `run`, and where
    client: Client,
    engine: Engine,
    surface: Surface,
    k: int,
    rng: np.random.Generator,
    *,
    boxes: Sequence[Box],
    weight: Weight,
    n_gone: int,
    seconds: float,
) -> Generator[Incumbent, None, None]:
    """See `Spread`."""
    from distributed import Event

    started = time.monotonic()
    alone = run(engine, surface, k, rng, boxes=boxes, weight=weight, n_gone=n_gone)
    for known in alone:
        yield known
        if engine in PROVEN and time.monotonic() - started > ALONE_S:
            break
    else:
        return
    best = Best(k, len(surface.sizes), weight)
    best.offer(known.rows, known.values)
    n_threads = max(sum(client.nthreads().values()), 1)
    parts = [part for box in boxes for part in split(box, SHARDS_PER_THREAD * n_threads)]
    stop = Event(client=client)
    searched: Callable[[Surface, Sequence[Box], int], Incumbent]
    if engine in WHOLE:
        groups = [parts[i::n_threads] for i in range(min(n_threads, len(parts)))]
        left_s = SHARE * (seconds - (time.monotonic() - started))
        searched = partial(
            _below, engine, k=k, weight=weight, cut=best.cut, stop=stop.name, seconds=left_s
        )
    else:
        alone.close()
        groups = [[part] for part in parts]
        searched = partial(_whole, engine, k=k + n_gone, stop=stop.name)
    seeds = rng.integers(2**63, size=len(groups))
    rest, n_done = np.inf, 0
    with submitted(client, searched, surface, groups, seeds, stop) as left:
        step: Incumbent | None = known
        while left or step:
            step = next(alone, None)  # here it goes on too, and so is no worse off than alone
            if step:
                known = step
                best.offer(known.rows, known.values)
            if left:
                some, left = gathered(client, left, 0.0 if step else POLL_S)
                for found in some:
                    best.offer(found.rows, found.values)
                    rest, n_done = min(rest, found.rest), n_done + found.n_assessed
            # Of the rows that are not the best, none is below what was known alone; when all shards
            # are done, none is below `rest` either.
            surely = known.rest if left else max(known.rest, rest)
            has_all = len(best.rows) == n_rows_in(boxes)
            now = best.incumbent(
                np.inf if has_all else min(surely, best.cut), max(known.n_assessed, n_done)
            )
            yield now
            if now.gap == 0:
                return


def _below(  # noqa: PLR0913 - as an engine of `WHOLE`, and until when
    engine: Engine,
    surface: Surface,
    boxes: Sequence[Box],
    seed: int,
    *,
    k: int,
    weight: Weight,
    cut: float,
    stop: str,
    seconds: float,
) -> Incumbent:
    """What an engine of `WHOLE` finds below `cut` in some boxes."""
    steps = engine(  # type: ignore[call-arg]
        surface, k, np.random.default_rng(seed), boxes=boxes, weight=weight, cut=cut
    )
    return ended(steps, stop, seconds)


def _whole(
    engine: Engine, surface: Surface, boxes: Sequence[Box], seed: int, *, k: int, stop: str
) -> Incumbent:
    """What an engine finds that searches one surface whole."""
    (box,) = boxes
    found = ended(engine(surface.restricted(box), k, np.random.default_rng(seed)), stop)
    return replace(found, rows=rows_in(box, found.rows))
