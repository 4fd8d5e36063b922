"""Every row of a surface, one block after the other, on all cores: the k lowest, proved.

The blocks' own arithmetic only rules rows out, by bounds that hold; what it does not rule out is
valued by the surface. Rows whose values differ by no more than float64's rounding of their sums
count as equal. A billion rows take about a second.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mlflow_meta.search.lowest import Lowest, descend, spread
from mlflow_meta.search.scan_relu import ReluBlocks, same_relu
from mlflow_meta.search.scan_trees import TreeBlocks, same_trees
from mlflow_meta.search.surface import Incumbent, ReluSurface, Surface, TreeSurface, n_rows
from mlflow_meta.search.walk import Blocks, Classes, Found

N_LISTED = 4096  # rows that are valued by the surface before the first block
N_FOUND = 2**18  # room for rows that a thread has found below the bar
PER_ROUND_S = 0.05
PER_PIECE_S = 0.004  # a thread's turn between two looks at the bar and at the clock
MOST_ROWS = 2**62  # that can be numbered


def scan(surface: Surface, k: int, rng: np.random.Generator) -> Iterator[Incumbent]:
    """Search every row; see `Engine`.

    Args:
        surface: A `ReluSurface` or a `TreeSurface`.
        k: Rows to find.
        rng: Unused: a scan has no chance in it.

    Yields:
        The lowest rows by now; with the last, all rows are accounted for.

    Raises:
        TypeError: If the surface is of another kind.
        ValueError: If k < 1, or the rows are more than can be numbered.
    """
    del rng
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}.")
    if n_rows(surface.sizes) > MOST_ROWS:
        raise ValueError(
            f"A scan numbers its rows in 64 bits; {n_rows(surface.sizes):.3g} are too many. "
            "Restrict the surface to a box first."
        )
    if isinstance(surface, ReluSurface):
        return _scan(surface, Classes.of(same_relu(surface)), k)
    if isinstance(surface, TreeSurface):
        return _scan(surface, Classes.of(same_trees(surface)), k)
    raise TypeError(f"A scan takes apart units or trees, not {type(surface).__name__}.")


def _scan(surface: ReluSurface | TreeSurface, classes: Classes, k: int) -> Iterator[Incumbent]:
    few = surface.restricted(classes.representatives)
    n_few, n_all = n_rows(few.sizes), n_rows(surface.sizes)
    n_listed = min(max(N_LISTED, k), n_few)
    lowest = Lowest(few, min(k, n_few))
    lowest.add(spread(few.sizes, n_listed))
    if n_listed < n_few:
        descend(lowest, few.sizes)
        blocks = _blocks(few, classes, lowest.bar)
        per_block = math.prod(len(classes.levels[p]) for p in blocks.split.suffix)
        for n_done in _rounds(blocks, lowest):
            yield _incumbent(lowest, classes, k, n_done * per_block, rest=-math.inf)
    rest = math.inf if k >= n_all else float(lowest.values[-1])
    yield _incumbent(lowest, classes, k, n_all, rest=rest)


def _blocks(surface: ReluSurface | TreeSurface, classes: Classes, bar: float) -> Blocks:
    if isinstance(surface, ReluSurface):
        return ReluBlocks(surface, classes)
    return TreeBlocks(surface, classes, bar)


def _incumbent(
    lowest: Lowest, classes: Classes, k: int, n_assessed: int, *, rest: float
) -> Incumbent:
    of, rows = classes.members(lowest.rows, k)
    return Incumbent(rows=rows, values=lowest.values[of], rest=rest, n_assessed=n_assessed)


def _rounds(blocks: Blocks, lowest: Lowest) -> Iterator[int]:
    """Go through the blocks; prefixes of levels that are done with, by all rounds but the last."""
    # Several processes of one machine, as workers of Dask are, are told how many each may have.
    told = os.environ.get("OMP_NUM_THREADS", "")
    n_threads = int(told) if told.isdecimal() else len(os.sched_getaffinity(0))
    walk = _Walk(blocks, lowest)
    with ThreadPoolExecutor(n_threads) as pool:
        while walk.step < blocks.split.n_steps:
            until = time.perf_counter() + PER_ROUND_S
            for turn in [pool.submit(walk.go, until) for _ in range(n_threads)]:
                turn.result()
            if walk.step < blocks.split.n_steps:
                yield walk.n_done


class _Walk:
    """Threads that go through the same blocks, a piece at a time.

    Attributes:
        step: The next that no thread has taken.
        n_done: Prefixes, of levels, of the pieces that are done.
    """

    def __init__(self, blocks: Blocks, lowest: Lowest) -> None:
        self.step = 0
        self.n_done = 0
        self._blocks = blocks
        self._lowest = lowest
        self._per_piece = 64
        self._lock = threading.Lock()

    def go(self, until: float) -> None:
        """Take pieces and search them, the last of them before `until` on `perf_counter`."""
        found, n, now = Found.room(N_FOUND), 0, -math.inf
        while now < until:  # at least one piece, however late the thread was woken
            with self._lock:
                first = self.step
                last = self.step = min(first + self._per_piece, self._blocks.split.n_steps)
            if first == last:
                break
            start = time.perf_counter()
            n = self._search(found, n, first, last)
            now = time.perf_counter()
            self._per_piece = max(int(PER_PIECE_S * (last - first) / (now - start)), 1)
        self._keep(found, n)

    def _search(self, found: Found, n: int, first: int, last: int) -> int:
        """Add what a piece has to the `n` rows `found`; how many are not kept yet thereafter."""
        while first < last:
            room, bar = found.after(n), self._lowest.bar
            first, n_more, n_passed = self._blocks.search(room, first, last, bar)
            with self._lock:
                self.n_done += n_passed
            n += n_more
            if first < last or n >= len(self._lowest.values):  # as many as can lower the bar most
                self._keep(found, n)
                n = 0
        return n

    def _keep(self, found: Found, n: int) -> None:
        """Let the surface value those of the `n` rows `found` that may be among the lowest."""
        best = np.argsort(found.value[:n], kind="stable")[: len(self._lowest.values)]
        rows = self._blocks.split.rows(found.step[best], found.place[best])
        with self._lock:
            self._lowest.add(rows)
