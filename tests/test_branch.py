"""Tests for branch and bound, and for the bounds that it stands on."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surfaces import random_surface, tree_surface

from mlflow_meta.search import branch, relaxed_trees
from mlflow_meta.search.best import all_rows
from mlflow_meta.search.boxes import Cliques, boxes_of
from mlflow_meta.search.branch import branch_and_bound
from mlflow_meta.search.cliques import violated
from mlflow_meta.search.fold import fold
from mlflow_meta.search.program import solved
from mlflow_meta.search.relaxed import relaxation_of
from mlflow_meta.search.surface import Surface, TreeSurface

KINDS = ("additive", "trees", "relu")
SIZES = st.lists(st.integers(1, 8), min_size=1, max_size=5)


def rows_of(surface: Surface, allowed: np.ndarray) -> np.ndarray:
    offsets = np.concatenate([[0], np.cumsum(surface.sizes)])
    return all_rows(tuple(np.flatnonzero(allowed[a:b]) for a, b in itertools.pairwise(offsets)))


@given(kind=st.sampled_from(KINDS), sizes=SIZES, seed=st.integers(0, 2**16), coarse=st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_bound_is_never_above_a_row_of_its_node_and_strikes_out_none_that_counts(
    kind: str, sizes: list[int], seed: int, coarse: bool
) -> None:
    rng = np.random.default_rng(seed)
    surface = random_surface(kind, sizes, rng, is_coarse=coarse)
    relaxation = relaxation_of(surface)
    values = surface.values(all_rows(tuple(np.arange(n) for n in sizes)))
    assert relaxation.floor <= values.min() + 1e-9
    cut = float(np.quantile(values, rng.choice([0.0, 0.2, 0.7]))) + 0.01
    allowed, state = np.ones(sum(sizes), dtype=bool), None
    for _ in range(4):  # ever smaller nodes, as a search has them
        before = rows_of(surface, allowed)
        bound, state = relaxation.tighten(allowed, cut, state)
        values = surface.values(before)
        assert min(bound, cut) <= values.min() + 1e-9
        kept = {tuple(row) for row in rows_of(surface, allowed)} if bound < cut else set()
        low = {tuple(row) for row in before[values < cut - 1e-9]}
        assert low <= kept, "a row below the cut is never lost"
        if bound >= cut:
            return
        p = int(rng.integers(len(sizes)))
        start = sum(sizes[:p])
        own = np.flatnonzero(allowed[start : start + sizes[p]])
        allowed[start + own[: len(own) // 2]] = False


@given(kind=st.sampled_from(KINDS), sizes=SIZES, seed=st.integers(0, 2**16), coarse=st.booleans(),
       k=st.sampled_from([1, 4, 40]))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_branching_to_the_last_row_finds_what_brute_force_does(
    kind: str, sizes: list[int], seed: int, coarse: bool, k: int
) -> None:
    rng = np.random.default_rng(seed)
    surface = random_surface(kind, sizes, rng, is_coarse=coarse)
    every = all_rows(tuple(np.arange(n) for n in sizes))
    by_row = dict(zip(map(tuple, every), surface.values(every), strict=True))
    values = np.sort(list(by_row.values()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch, "MAX_VALUED", 1)
        patch.setattr(branch, "N_STARTS", 0)
        patch.setattr(branch, "STEP_S", 0.0)  # every node is a step
        patch.setattr(relaxed_trees, "LP_DEPTH", int(rng.integers(1, 4)))
        steps = list(branch_and_bound(surface, k, rng))
    assert steps[-1].gap == 0
    np.testing.assert_allclose(steps[-1].values, values[:k], atol=1e-9)
    np.testing.assert_allclose(surface.values(steps[-1].rows), steps[-1].values)
    for step in steps:
        found = {tuple(row) for row in step.rows}
        others = [value for row, value in by_row.items() if row not in found]
        assert min(others, default=np.inf) >= step.rest - 1e-9
    gaps = [step.gap for step in steps if len(step.values) == min(k, len(values))]
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(gaps))


@pytest.mark.parametrize("seed", [0, 4, 7, 13, 32])
def test_no_row_is_in_two_boxes_of_a_clique_and_the_bound_rises_with_them(seed: int) -> None:
    sizes = (5, 6, 4, 7, 5)
    surface = random_surface("trees", sizes, np.random.default_rng(seed))
    assert isinstance(surface, TreeSurface)
    rows = all_rows(tuple(np.arange(n) for n in sizes))
    lowest = surface.values(rows).min()
    boxes = boxes_of(surface)
    first = solved(boxes)
    assert first is not None
    cliques = Cliques(*violated(boxes.all_words, first.share, boxes.group, boxes.word_first))
    assert len(cliques.first) > 1, "the linear program alone is not enough"
    starts = np.cumsum([0, *sizes[:-1]])
    bits = np.unpackbits(boxes.all_words.view(np.uint8), axis=1, bitorder="little")
    levels = np.concatenate([64 * p + np.arange(n) for p, n in enumerate(sizes)])
    holds = bits[:, levels].astype(bool)
    for a, b in itertools.pairwise(cliques.first):
        members = cliques.member[a:b]
        inside = holds[members][:, starts + rows].all(axis=2)
        assert inside.sum(axis=0).max() <= 1
        assert first.share[members].sum() > 1
    second = solved(replace(boxes, cliques=cliques))
    assert second is not None
    bounds = [boxes.constant + s.share[: len(boxes.value)] @ boxes.value for s in (first, second)]
    assert bounds[0] < bounds[1] <= lowest + 1e-9


@given(sizes=SIZES, seed=st.integers(0, 2**16), coarse=st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_narrowed_node_keeps_every_row_whose_leaves_are_kept(
    sizes: list[int], seed: int, coarse: bool
) -> None:
    rng = np.random.default_rng(seed)
    surface = random_surface("trees", sizes, rng, is_coarse=coarse)
    assert isinstance(surface, TreeSurface)
    boxes = boxes_of(surface)
    allowed = rng.random(sum(sizes)) < 0.8
    allowed[np.cumsum([0, *sizes[:-1]])] = True
    is_kept = rng.random(len(boxes.value)) < 0.9
    narrowed = boxes.narrowed(allowed, is_kept)
    rows = rows_of(surface, allowed)
    at = np.concatenate([[0], np.cumsum(sizes)])[:-1] + rows
    bits = np.unpackbits(boxes.all_words.view(np.uint8), axis=1, bitorder="little")
    levels = np.concatenate([64 * p + np.arange(n) for p, n in enumerate(sizes)])
    inside = bits[: len(boxes.value), levels].astype(bool)[:, at].all(axis=2)
    counts = ~(inside & ~is_kept[:, None]).any(axis=0)
    kept = {tuple(row) for row in rows_of(surface, narrowed.allowed)}
    assert {tuple(row) for row in rows[counts]} <= kept
    values = boxes.constant + inside[:, counts].T @ boxes.value
    np.testing.assert_allclose(values, surface.values(rows[counts]), atol=1e-9)


def test_boosted_trees_over_10_to_the_15_are_proven() -> None:
    surface = tree_surface((11,) * 15, 1, n_trees=200)
    *_, last = branch_and_bound(surface, 100, np.random.default_rng(0))
    assert last.gap == 0 and len(last.values) == 100
    np.testing.assert_allclose(surface.values(last.rows), last.values)


def test_bounds_of_trees_are_as_good_as_the_linear_program() -> None:
    """A sum of many trees is closed at once or nearly so where the sum of their minima is far."""
    rng = np.random.default_rng(0)
    surface = random_surface("trees", [7] * 12, rng)
    *_, last = branch_and_bound(surface, 10, rng)
    assert last.gap == 0 and last.n_assessed == 7**12


@pytest.mark.parametrize("sizes", [[10] * 15, [2] * 60])
def test_a_sum_over_10_to_the_15_is_folded_exactly(sizes: list[int]) -> None:
    surface = random_surface("additive", sizes, np.random.default_rng(0))
    (folded,) = fold(surface, 100, np.random.default_rng(0))
    *_, proven = branch_and_bound(surface, 100, np.random.default_rng(0))
    assert folded.gap == proven.gap == 0
    np.testing.assert_allclose(folded.values, proven.values)
    assert len(np.unique(folded.rows, axis=0)) == 100
