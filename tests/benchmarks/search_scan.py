"""Part `scan`: every configuration of a billion, beside `predict` and beside what the machine can.

Peak: how many float32 x the machine takes to `sum += max(x, cut)` in a second, on all cores, by
numba's vectorised code, of numbers that lie in its first cache. A network of 32 units needs 32 of
those for every configuration, where nothing is left out. The scan does less than that, and in int16
(half the size), so its share can be above 100 %: it says how fast a plain scan would have to be.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import numpy as np
from numba import njit
from search_models import Case, case, numbers
from search_rows import N_PREDICTED, Options, Row, predict_s, say, timed, times_faster

from mlflow_meta.search.scan import scan
from mlflow_meta.search.surface import Incumbent, Surface

MOST_S = 2.0
PEAK_SIZE = 4096  # numbers, 16 kB
PEAK_N = 500_000  # passes over them: some hundredths of a second
N_BURSTS = 10  # for each repeat; the fastest of all counts, as others may use the machine
PEAK_SHARE = 0.5


def rows(options: Options) -> Iterator[Row]:
    """See the module."""
    space = numbers(*((6, 10) if options.small else (9, 10)))
    n = f"10^{len(space.names)}"
    network = case("network", space, 32)
    yield from _of(network, f"scan/network of 32 units, {n}", "MLPRegressor", 200, options)
    yield _share(network, f"scan/network of 32 units, {n}", options)
    trees = case("trees", space, 100, 16, -1)
    yield from _of(trees, f"scan/LightGBM 100 x 16, {n}", "Booster", 2000, options)


def _of(of: Case, what: str, peer: str, least: float, options: Options) -> Iterator[Row]:
    say(what)
    surface = of.surface()
    X, theirs_s = of.sampled(N_PREDICTED), []
    of.regressor.peer(X)
    took, found = timed(  # by turns, so that both have the same neighbours on the machine
        lambda: last(surface, 1),
        options.repeats,
        lambda: theirs_s.append(predict_s(of.regressor, X, of.n_configs, 1)),
    )
    _check(of, found, X)
    yield Row(what=f"{what}: the best", value=took.median_s, seen=str(took), most=MOST_S, unit=" s")
    yield times_faster(f"{what}: than {peer}.predict", median(theirs_s), took.median_s, least)


def last(surface: Surface, k: int) -> Incumbent:
    """What a scan ends with."""
    *_, found = scan(surface, k, np.random.default_rng(0))
    return found


def _check(of: Case, found: Incumbent, X: np.ndarray) -> None:
    """Who is wrong is not fast."""
    seen = of.regressor.peer(X).min()
    if found.gap > 0 or found.values[0] > seen + 1e-9:
        raise SystemExit(f"The scan's best is {found.values[0]}, but `predict` has seen {seen}.")


def _share(of: Case, what: str, options: Options) -> Row:
    """By turns with the peak; of both the best counts."""
    surface, n = of.surface(), 32 * of.n_configs
    ours, peak = 0.0, 0.0
    for _ in range(options.repeats):
        peak = max(peak, *(_peak() for _ in range(N_BURSTS)))
        start = time.perf_counter()
        last(surface, 1)
        ours = max(ours, n / (time.perf_counter() - start))
    return Row(
        what=f"{what}: max+adds/s, of the peak",
        value=100 * ours / peak,
        seen=f"{100 * ours / peak:.0f} % ({ours / 1e9:.0f} of {peak / 1e9:.0f} G/s)",
        least=100 * PEAK_SHARE,
        unit=" %",
    )


def _peak() -> float:
    """Max+adds of float32 a second, of all cores together."""
    n_threads = len(os.sched_getaffinity(0))
    x = np.random.default_rng(0).normal(size=PEAK_SIZE).astype(np.float32)
    _max_add(x, np.float32(0), 1)

    def work(_: int) -> Any:
        return _max_add(x, np.float32(0), PEAK_N)

    with ThreadPoolExecutor(n_threads) as pool:
        start = time.perf_counter()
        list(pool.map(work, range(n_threads)))
        return n_threads * PEAK_N * PEAK_SIZE / (time.perf_counter() - start)


@njit(nogil=True, fastmath=True)
def _max_add(x: Any, cut: Any, n: int) -> Any:
    total = np.float32(0)
    for _ in range(n):
        for i in range(len(x)):
            total += x[i] if x[i] > cut else cut
        cut = cut + np.float32(1e-9)  # or all passes would be the same, and be done once
    return total
