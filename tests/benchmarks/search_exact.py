"""Part `exact`: the 100 best, with their proof, through `top_k` as a whole.

Of a sum the engine alone is timed too: around it, `top_k` makes the levels and the configurations.
How hard trees are depends on what they have learned: of those that are asked for in a second there
are five, fitted to different functions; judged is the one in the middle.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from statistics import median

import numpy as np
from search_models import Case, bits, case, numbers
from search_rows import (
    N_PREDICTED,
    Options,
    Row,
    Took,
    predict_s,
    say,
    seconds,
    timed,
    times_faster,
)

from mlflow_meta.search import ENGINES, Incumbent, TopK, top_k
from mlflow_meta.search.surface import Surface
from mlflow_meta.space import SearchSpace

K = 100
SUM_S, TREES_S, NETWORK_S = 0.01, 1.0, 2.0
N_MODELS = 5
AT = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the time, where a search that goes on is looked at


def rows(options: Options) -> Iterator[Row]:
    """See the module."""
    sums, n_bits, space = numbers(15, 10), 60, numbers(15, 11)
    networks = numbers(9, 10)
    if options.small:
        sums, n_bits, space, networks = numbers(6, 10), 20, numbers(6, 11), numbers(6, 10)
    yield from _sum(case("additive", sums), f"sum, 10^{len(sums.names)}", options)
    yield from _sum(case("additive", bits(n_bits)), f"sum, 2^{n_bits}", options)
    yield from _trees(space, options)
    many = case("trees", space, *((30, 16, 6) if options.small else (500, 16, 6)))
    yield from _hardest(many, options, is_asked=True)
    deep = case("trees", space, *((20, 31, 8) if options.small else (100, 31, 8)))
    yield from _hardest(deep, options)
    network = case("network", networks, 32)
    took, found = timed(lambda: _asked(network, options), options.repeats)
    yield Row(
        what=f"exact/network of 32 units, 10^{len(networks.names)}: top {K}",
        value=_if_exact(found, took),
        seen=_words(found, took),
        most=NETWORK_S,
        unit=" s",
    )


def _asked(of: Case, options: Options) -> TopK:
    rng = np.random.default_rng(0)
    return top_k(of.model, of.space, K, rng=rng, budget_s=options.seconds)


def _if_exact(found: TopK, took: Took) -> float:
    """Seconds; what is not proven has not been found in any."""
    return took.median_s if found.is_exact and len(found.values) == K else np.inf


def _words(found: TopK, took: Took) -> str:
    return str(took) if found.is_exact else f"{took}, not proved"


def _sum(of: Case, what: str, options: Options) -> Iterator[Row]:
    say(what)
    surface = of.surface()
    took, _ = timed(
        lambda: list(ENGINES["fold"](surface, K, np.random.default_rng(0))), options.repeats
    )
    yield Row(
        what=f"exact/{what}: top {K}, the engine",
        value=1000 * took.median_s,
        seen=str(took),
        most=1000 * SUM_S,
        unit=" ms",
    )
    took, found = timed(lambda: _asked(of, options), options.repeats)
    yield Row(
        what=f"exact/{what}: top {K}, all of `top_k`",
        value=1000 * _if_exact(found, took),
        seen=_words(found, took),
        most=1000 * SUM_S,
        unit=" ms",
    )


def _trees(space: SearchSpace, options: Options) -> Iterator[Row]:
    sizes = (20, 16, 5) if options.small else (200, 16, 5)
    cases = [case("trees", space, *sizes, seed=seed) for seed in range(N_MODELS)]
    what = _named(cases[0])
    took_s = []
    for of in cases:
        say(what)
        took_s.append(np.inf)  # what is not proven has not been found in any time
        if _asked(of, options).is_exact:
            took_s[-1] = timed(lambda of=of: _asked(of, options), options.repeats)[0].median_s
    middle = float(median(took_s))
    each = ", ".join(f"{s:.2f}" if s < np.inf else f">{options.seconds:g}" for s in took_s)
    yield Row(
        what=f"{what}: top {K}",
        value=middle,
        seen=f"{seconds(middle)} (each: {each})",
        most=TREES_S,
        unit=" s",
    )
    n_proved = int(np.isfinite(took_s).sum())
    yield Row(
        what=f"{what}: proved within {options.seconds:g} s",
        value=n_proved,
        seen=f"{n_proved} of {len(cases)} models",
    )
    X = cases[0].sampled(N_PREDICTED)
    theirs_s = predict_s(cases[0].regressor, X, cases[0].n_configs, options.repeats)
    yield times_faster(f"{what}: than Booster.predict", theirs_s, middle)


def _named(of: Case) -> str:
    trees = of.regressor
    size = f"{trees.n_trees} x {trees.n_leaves}, depth {trees.depth}"
    return f"exact/LightGBM {size}, 11^{len(of.space.names)}"


def _hardest(of: Case, options: Options, *, is_asked: bool = False) -> Iterator[Row]:
    """Solved, or, where the time is not enough, a gap that shrinks."""
    what = _named(of)
    say(what)
    steps: list[tuple[float, Incumbent]] = []
    start = time.perf_counter()

    def watched(surface: Surface, k: int, rng: np.random.Generator) -> Iterator[Incumbent]:
        for step in ENGINES["branch"](surface, k, rng):
            steps.append((time.perf_counter() - start, step))
            yield step

    rng = np.random.default_rng(0)
    found = top_k(of.model, of.space, K, rng=rng, budget_s=options.seconds, engine=watched)
    took_s = time.perf_counter() - start
    seen = f"{seconds(took_s)}, {'solved' if found.is_exact else 'not closed'}"
    yield Row(
        what=f"{what}: top {K}",
        value=took_s if found.is_exact else np.inf,
        seen=seen,
        most=options.seconds if is_asked else None,
        unit=" s",
    )
    last_s = steps[-1][0]
    looks = [next(step for step in steps if step[0] >= share * last_s) for share in AT]
    for at_s, step in looks:
        yield Row(
            what=f"{what}: after {at_s:.2f} s",
            value=step.gap,
            seen=f"gap {step.gap:.4f} (best {step.values[0]:.4f}, rest {step.rest:.4f})",
        )
    gaps = [step.gap for _, step in looks]
    shrinks = all(after <= before for before, after in itertools.pairwise(gaps))
    value = float(shrinks and (gaps[-1] < gaps[0] or gaps[-1] == 0))
    yield Row(
        what=f"{what}: the gap shrinks",
        value=value,
        seen=f"{gaps[0]:.4f} to {gaps[-1]:.4f}",
        least=1.0 if is_asked else None,
    )
