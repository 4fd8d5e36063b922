"""The exhaustive scan, against a list of all rows that the surface itself values."""

import itertools
import math
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_meta.search import scan as module
from mlflow_meta.search.scan import scan
from mlflow_meta.search.surface import (
    AdditiveSurface,
    Incumbent,
    ReluSurface,
    Surface,
    TreeSurface,
    n_rows,
)
from mlflow_meta.search.walk import Split, walked

RNG = np.random.default_rng(0)
Sizes = tuple[int, ...]


def relu_surface(
    rng: np.random.Generator, sizes: Sizes, n_units: int, *, step: float = 0.0, spread: float = 1.0
) -> ReluSurface:
    """Random units; all numbers are multiples of `step`, units differ in size by e^spread."""

    def numbers(*shape: int) -> np.ndarray:
        drawn = rng.normal(size=shape) * np.exp(rng.normal(0.0, spread, size=shape[-1]))
        return np.round(drawn / step) * step if step else drawn

    return ReluSurface(
        constant=float(rng.normal()),
        tables=tuple(numbers(n, n_units) for n in sizes),
        bias=numbers(n_units),
        out=numbers(n_units),
    )


def tree_surface(
    rng: np.random.Generator, sizes: Sizes, n_trees: int, depth: int, *, step: float = 0.0
) -> TreeSurface:
    """Random trees, half of their splits by order; leaves are multiples of `step`."""
    param, left, right, value, goes_left = [], [], [], [], []

    def grow(levels_left: int) -> int:
        node = len(param)
        p = int(rng.integers(len(sizes)))
        is_leaf = levels_left == 0 or rng.random() < 0.1
        ways = np.zeros(max(sizes), dtype=bool)
        by_order = np.arange(sizes[p]) < rng.integers(sizes[p] + 1)
        ways[: sizes[p]] = by_order if rng.random() < 0.5 else rng.random(sizes[p]) < 0.5
        leaf = rng.standard_t(3)
        param.append(-1 if is_leaf else p)
        value.append(float(np.round(leaf / step) * step if step else leaf))
        goes_left.append(ways & (not is_leaf))
        left.append(node)
        right.append(node)
        if not is_leaf:
            left[node], right[node] = grow(levels_left - 1), grow(levels_left - 1)
        return node

    roots = [grow(depth) for _ in range(n_trees)]
    return TreeSurface(
        sizes=sizes,
        constant=float(rng.normal()),
        roots=np.array(roots),
        param=np.array(param),
        goes_left=np.array(goes_left),
        left=np.array(left),
        right=np.array(right),
        value=np.array(value),
    )


def all_values(surface: Surface, chunk: int = 100_000) -> np.ndarray:
    n = n_rows(surface.sizes)
    parts = []
    for start in range(0, n, chunk):
        places = np.arange(start, min(start + chunk, n))
        parts.append(surface.values(np.stack(np.unravel_index(places, surface.sizes), axis=1)))
    return np.concatenate(parts)


def leaf_of(surface: TreeSurface, root: int, row: np.ndarray) -> int:
    node = root
    while (p := surface.param[node]) >= 0:
        ways = surface.left if surface.goes_left[node, row[p]] else surface.right
        node = int(ways[node])
    return node


def last(incumbents: Iterator[Incumbent]) -> Incumbent:
    *_, found = incumbents
    return found


def check(surface: Surface, k: int, found: Incumbent, *, off: float = 1e-11) -> None:
    """`found` has the k lowest of all values, at rows that have them."""
    values = np.sort(all_values(surface))
    scale = off * (1.0 + float(np.abs(values).max()))
    n = min(k, len(values))
    assert len(np.unique(found.rows, axis=0)) == len(found.rows) == n
    np.testing.assert_allclose(found.values, values[:n], rtol=0.0, atol=scale)
    np.testing.assert_allclose(surface.values(found.rows), found.values, rtol=0.0, atol=scale)
    assert np.all(np.diff(found.values) >= 0.0)
    assert found.n_assessed == len(values)
    assert found.gap == 0.0
    assert math.isinf(found.rest) == (k >= len(values))


def sizes_up_to(n: int, most: int) -> st.SearchStrategy[Sizes]:
    some = st.lists(st.integers(1, most), min_size=1, max_size=6).map(tuple)
    return some.filter(lambda sizes: n_rows(sizes) <= n)


@pytest.fixture
def listing_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small surfaces go through the blocks too, many of which do not beat what is known."""
    monkeypatch.setattr(module, "N_LISTED", 3)


@pytest.mark.usefixtures("listing_few")
@settings(max_examples=150, deadline=None)
@given(
    sizes=sizes_up_to(30_000, 70),
    n_units=st.integers(1, 20),
    k=st.sampled_from([1, 3, 10, 200]),
    step=st.sampled_from([0.0, 0.1, 1.0]),
    spread=st.sampled_from([0.0, 1.0, 5.0]),
    seed=st.integers(0, 10**6),
)
def test_the_lowest_rows_of_units_are_those_of_the_list(
    sizes: Sizes, n_units: int, k: int, step: float, spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    surface = relu_surface(rng, sizes, n_units, step=step, spread=spread)
    check(surface, k, last(scan(surface, k, RNG)))


@pytest.mark.usefixtures("listing_few")
@settings(max_examples=150, deadline=None)
@given(
    sizes=sizes_up_to(30_000, 70),
    n_trees=st.integers(1, 20),
    depth=st.integers(0, 8),
    k=st.sampled_from([1, 3, 10, 200]),
    step=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_the_lowest_rows_of_trees_are_those_of_the_list(
    sizes: Sizes, n_trees: int, depth: int, k: int, step: float, seed: int
) -> None:
    surface = tree_surface(np.random.default_rng(seed), sizes, n_trees, depth, step=step)
    check(surface, k, last(scan(surface, k, RNG)))


@pytest.mark.parametrize("k", [1, 7, 5000])
@pytest.mark.parametrize("sizes", [(1,), (9,), (20_000,), (200, 1, 100), (3,) * 10, (1, 1, 5000)])
def test_any_shape_of_space_is_scanned(sizes: Sizes, k: int) -> None:
    rng = np.random.default_rng(1)
    for surface in (relu_surface(rng, sizes, 6), tree_surface(rng, sizes, 12, 5)):
        check(surface, k, last(scan(surface, k, RNG)))


def test_units_that_cancel_out_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    half = relu_surface(rng, (12,) * 4, 8)
    surface = ReluSurface(
        constant=half.constant,
        tables=tuple(np.tile(table, 2) + rng.normal(0, 1e-4, 16) for table in half.tables),
        bias=np.tile(half.bias, 2),
        out=np.concatenate([1e4 * half.out, -1e4 * half.out]),
    )
    check(surface, 20, last(scan(surface, 20, RNG)))


def test_one_huge_leaf_does_not_hide_small_differences() -> None:
    surface = tree_surface(np.random.default_rng(3), (12,) * 4, 20, 5)
    surface.value[surface.param < 0] += np.where(
        np.random.default_rng(3).random((surface.param < 0).sum()) < 0.02, 1e9, 0.0
    )
    check(surface, 20, last(scan(surface, 20, RNG)), off=1e-14)


@pytest.mark.parametrize(("n_up", "n_down"), [(1, 0), (0, 1), (9, 0), (0, 9), (7, 8)])
def test_units_are_searched_below_the_width_of_a_code(n_up: int, n_down: int) -> None:
    """One level a million worse than the rest makes codes so wide that all the rest share one."""
    rng = np.random.default_rng(9)
    out = np.repeat([1.0, -1.0], [n_up, n_down])
    tables = tuple(rng.random((12, n_up + n_down)) for _ in range(4))
    for table in tables:
        table[0] = out * 1e6 * rng.uniform(0.5, 1.0, len(out))
    surface = ReluSurface(
        constant=0.0, tables=tables, bias=rng.uniform(1e7, 2e7, len(out)), out=out
    )
    check(surface, 300, last(scan(surface, 300, RNG)), off=1e-14)


@pytest.mark.parametrize("n_trees", [1, 9])
def test_trees_are_searched_below_the_width_of_a_code(n_trees: int) -> None:
    """One leaf a million below the rest makes codes so wide that all the rest share one."""
    surface = tree_surface(np.random.default_rng(10), (12,) * 4, n_trees, 11)
    row = np.random.default_rng(11).integers(12, size=4)
    for root in surface.roots:
        surface.value[leaf_of(surface, root, row)] -= 1e6
    check(surface, 3000, last(scan(surface, 3000, RNG)), off=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_units_that_a_prefix_switches_on_or_off_are_searched(seed: int) -> None:
    surface = relu_surface(np.random.default_rng(seed), (200, 100), 9)
    for p in (0, 1):
        tables = tuple(1e4 * table if q == p else table for q, table in enumerate(surface.tables))
        switched = ReluSurface(
            constant=surface.constant, tables=tables, bias=surface.bias, out=surface.out
        )
        check(switched, 300, last(scan(switched, 300, RNG)), off=1e-14)


@pytest.mark.parametrize("k", [1, 50, 6000])
def test_a_constant_surface_gives_any_rows(k: int) -> None:
    tables = tuple(np.zeros((10, 3)) for _ in range(5))
    nothing = ReluSurface(constant=2.0, tables=tables, bias=np.ones(3), out=np.ones(3))
    dead = tree_surface(np.random.default_rng(0), (10,) * 5, 3, 0)
    for surface in (nothing, dead):
        found = last(scan(surface, k, RNG))
        check(surface, k, found)


def test_a_plateau_of_equal_rows_takes_little_longer_than_the_rest() -> None:
    rng = np.random.default_rng(4)
    sizes = (10,) * 7
    tables = tuple(rng.normal(size=(n, 16)) for n in sizes)
    mostly_off = ReluSurface(constant=1.0, tables=tables, bias=np.full(16, -6.0), out=np.ones(16))
    places = rng.integers(0, 10, size=(10_000, 7))
    assert (mostly_off.values(places) == 1.0).mean() > 0.3
    start = time.perf_counter()
    found = last(scan(mostly_off, 1000, RNG))
    assert time.perf_counter() - start < 10.0
    np.testing.assert_array_equal(found.values, 1.0)
    assert len(np.unique(found.rows, axis=0)) == 1000


@pytest.mark.slow
def test_ten_million_rows_of_units_are_all_looked_at() -> None:
    surface = relu_surface(np.random.default_rng(5), (10,) * 7, 16)
    steps = list(scan(surface, 25, RNG))
    check(surface, 25, steps[-1])


@pytest.mark.slow
def test_millions_of_rows_of_trees_are_all_looked_at() -> None:
    surface = tree_surface(np.random.default_rng(6), (11, 3, 40, 9, 2, 12, 5), 20, 4)
    check(surface, 25, last(scan(surface, 25, RNG)))


def test_every_incumbent_is_no_worse_than_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PER_ROUND_S", 0.001)
    monkeypatch.setattr(module, "PER_PIECE_S", 0.0001)
    surface = relu_surface(np.random.default_rng(7), (10,) * 7, 32)
    steps = list(scan(surface, 10, RNG))
    assert len(steps) > 2
    for before, after in itertools.pairwise(steps):
        assert np.all(after.values <= before.values)
        assert after.n_assessed > before.n_assessed
        assert before.rest == -math.inf
    for step in steps:
        np.testing.assert_allclose(surface.values(step.rows), step.values, rtol=1e-12)


def test_a_scan_that_is_closed_leaves_no_thread() -> None:
    before = threading.active_count()
    surface = relu_surface(np.random.default_rng(8), (12,) * 10, 32)
    running = scan(surface, 10, RNG)
    next(running)
    start = time.perf_counter()
    running.close()  # type: ignore[attr-defined]
    assert time.perf_counter() - start < 0.5
    assert threading.active_count() == before


@pytest.mark.parametrize("sizes", [(4, 3, 5), (2, 1, 2), (7,), ()])
def test_a_walk_meets_every_prefix_and_changes_one_class_by_one(sizes: Sizes) -> None:
    digits, _ = walked(np.arange(math.prod(sizes)), sizes)
    assert len(np.unique(digits, axis=0)) == math.prod(sizes)
    assert np.all(np.abs(np.diff(digits, axis=0)).sum(axis=1) == 1)


@given(sizes=sizes_up_to(10**9, 60), limit=st.integers(1, 3000))
def test_a_split_numbers_every_row_once(sizes: Sizes, limit: int) -> None:
    split = Split.by(sizes, [float(p % 3) for p in range(len(sizes))], limit)
    n = len(split.block)
    assert n <= limit
    assert split.n_steps * n == n_rows(sizes)
    step, place = np.divmod(np.arange(min(n_rows(sizes), 5000)), n)
    assert len(np.unique(split.rows(step, place), axis=0)) == len(step)


def test_what_can_not_be_scanned_is_refused() -> None:
    additive = AdditiveSurface(constant=0.0, tables=(np.zeros(3),))
    with pytest.raises(TypeError, match="AdditiveSurface"):
        next(scan(additive, 1, RNG))
    surface = relu_surface(np.random.default_rng(0), (2,) * 70, 2)
    with pytest.raises(ValueError, match="64 bits"):
        next(scan(surface, 1, RNG))
    with pytest.raises(ValueError, match="k must"):
        next(scan(surface, 0, RNG))
