"""Tests for search/sharded.py, on processes of a real cluster of Dask."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from surfaces import all_rows, brute_force, relu_surface, tree_surface

from mlflow_meta.search.policy import cross_entropy
from mlflow_meta.search.sharded import sharded, split
from mlflow_meta.search.surface import Incumbent, Surface, n_rows

SIZES = (6, 1, 7, 8, 5)
pytestmark = [
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as opened,
    ):
        yield opened


def whole(sizes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    return tuple(np.arange(size) for size in sizes)


def dies_once(
    marker: Path, surface: Surface, k: int, rng: np.random.Generator
) -> Iterator[Incumbent]:
    """Takes the first worker that runs it down with it."""
    if not marker.exists():
        marker.touch()
        os._exit(1)
    yield from brute_force(surface, k, rng)


def fails_twice(
    marker: Path, surface: Surface, k: int, rng: np.random.Generator
) -> Iterator[Incumbent]:
    """Leaves a byte in the file for every time that it has failed."""
    n_failures = marker.stat().st_size if marker.exists() else 0
    if n_failures < 2:
        with marker.open("a") as file:
            file.write(".")
        raise OSError(f"failure {n_failures}")
    yield from brute_force(surface, k, rng)


def always_fails(surface: Surface, k: int, rng: np.random.Generator) -> Iterator[Incumbent]:
    raise ZeroDivisionError("by the engine")
    yield


def endless(diary: Path, surface: Surface, k: int, rng: np.random.Generator) -> Iterator[Incumbent]:
    while True:
        diary.write_text(str(time.time()))
        time.sleep(0.05)
        yield from brute_force(surface, k, rng)


@pytest.mark.parametrize("sizes", [SIZES, (5, 5, 5, 5), (1000, 3, 2), (2, 2, 2), (1, 1), (97,)])
@pytest.mark.parametrize("n_shards", [1, 2, 3, 7, 8, 40])
def test_shards_are_even_and_have_every_row_once(sizes: tuple[int, ...], n_shards: int) -> None:
    boxes = split(whole(sizes), n_shards)
    rows = np.concatenate(
        [np.stack(np.meshgrid(*box), axis=-1).reshape(-1, len(sizes)) for box in boxes]
    )
    assert len(np.unique(rows, axis=0)) == len(rows) == n_rows(sizes)
    assert len(boxes) <= n_shards
    n_of = [n_rows([len(levels) for levels in box]) for box in boxes]
    assert max(n_of) <= 2 * min(n_of)


@pytest.mark.parametrize("k", [1, 10, 300, 5000])
def test_shards_of_an_exact_engine_have_its_result_and_its_proof(client: Client, k: int) -> None:
    for surface in (tree_surface(SIZES, 1), relu_surface(SIZES, 1)):
        alone = next(brute_force(surface, k, np.random.default_rng(0)))
        steps = list(sharded(brute_force, client)(surface, k, np.random.default_rng(0)))
        assert len(steps) >= 8
        assert steps[-1].rows.tolist() == alone.rows.tolist()
        assert steps[-1].values.tolist() == alone.values.tolist()
        assert (steps[-1].rest, steps[-1].n_assessed) == (alone.rest, alone.n_assessed)
        for before, after in pairwise(steps):
            assert before.rest == -np.inf
            assert np.all(after.values[: len(before.values)] <= before.values)
            assert after.n_assessed >= before.n_assessed


def test_a_policy_is_learned_in_every_shard(client: Client) -> None:
    surface = relu_surface((12, 9, 1, 14, 10, 6), 2)
    engine = sharded(cross_entropy, client, 3)
    first, second = (list(engine(surface, 5, np.random.default_rng(7)))[-1] for _ in range(2))
    assert first.rows.tolist() == second.rows.tolist()
    assert first.values.tolist() == surface.values(first.rows).tolist()
    assert first.values[0] == surface.values(all_rows(surface.sizes)).min()
    assert first.rest == -np.inf


@pytest.mark.parametrize("flawed", [dies_once, fails_twice])
def test_a_worker_that_is_lost_or_fails_loses_no_row(
    client: Client, tmp_path: Path, flawed: Callable[..., Iterator[Incumbent]]
) -> None:
    surface = relu_surface(SIZES, 3)
    engine = sharded(partial(flawed, tmp_path / "marker"), client)
    *_, found = engine(surface, 10, np.random.default_rng(0))
    alone = next(brute_force(surface, 10, np.random.default_rng(0)))
    assert (tmp_path / "marker").exists()
    assert found.rows.tolist() == alone.rows.tolist()
    assert (found.rest, found.n_assessed) == (alone.rest, n_rows(SIZES))


def test_an_engine_that_fails_three_times_fails_the_search(client: Client) -> None:
    with pytest.raises(ZeroDivisionError, match="by the engine"):
        list(sharded(always_fails, client)(relu_surface(SIZES, 0), 3, np.random.default_rng(0)))


def test_a_search_that_is_closed_stops_its_workers(client: Client, tmp_path: Path) -> None:
    client.wait_for_workers(2, timeout=20)  # a lost one may still be on its way back
    surface, diary = relu_surface(SIZES, 0), tmp_path / "diary"
    started = sharded(partial(endless, diary), client)(surface, 3, np.random.default_rng(0))
    first = next(started)
    assert first.values.tolist() == surface.values(first.rows).tolist()
    while not diary.exists():
        assert next(started).gap == np.inf
    started.close()
    # A worker with its one thread still in a shard would not come to this.
    asked = [client.submit(sum, [1, 2], workers=[name], pure=False) for name in client.nthreads()]
    assert [answer.result(timeout=20) for answer in asked] == [3, 3]


def test_less_than_one_shard_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="at least 1 shard"):
        sharded(brute_force, client, 0)
