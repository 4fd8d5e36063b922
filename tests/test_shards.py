"""Tests for search/shards.py, on processes of a real cluster of Dask."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, Event, LocalCluster
from surfaces import all_rows, brute_force, relu_surface

from mlflow_meta.search.shards import ended, gathered, rows_in, split, submitted
from mlflow_meta.search.surface import Box, Incumbent, Surface, n_rows

Searched = Callable[[Surface, Box, int], Incumbent]

SIZES = (6, 1, 7, 8, 5)
pytestmark = pytest.mark.slow


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


def searched(surface: Surface, box: Box, seed: int) -> Incumbent:
    part = surface.restricted(box)
    found = next(brute_force(part, 3, np.random.default_rng(seed)))
    return replace(found, rows=rows_in(box, found.rows))


def dies_once(marker: Path, surface: Surface, box: Box, seed: int) -> Incumbent:
    """Takes the first worker that runs it down with it."""
    if not marker.exists():
        marker.touch()
        os._exit(1)
    return searched(surface, box, seed)


def fails_twice(marker: Path, surface: Surface, box: Box, seed: int) -> Incumbent:
    """Leaves a byte in the file for every time that it has failed."""
    n_failures = marker.stat().st_size if marker.exists() else 0
    if n_failures < 2:
        with marker.open("a") as file:
            file.write(".")
        raise OSError(f"failure {n_failures}")
    return searched(surface, box, seed)


def always_fails(surface: Surface, box: Box, seed: int) -> Incumbent:
    raise ZeroDivisionError("by the engine")


def endless(diary: Path, stop: str, surface: Surface, box: Box, seed: int) -> Incumbent:
    def steps() -> Iterator[Incumbent]:
        while True:
            diary.write_text(str(time.time()))
            time.sleep(0.05)
            yield searched(surface, box, seed)

    return ended(steps(), stop)


def search(client: Client, one: Searched, surface: Surface, n: int = 8) -> list[Incumbent]:
    """What `n` shards have found."""
    boxes = split(whole(surface.sizes), n)
    stop, seeds = Event(client=client), np.arange(len(boxes))
    found = []
    with submitted(client, one, surface, boxes, seeds, stop) as left:
        while left:
            some, left = gathered(client, left, 0.1)
            found += some
    assert len(found) == len(boxes)
    return found


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


@pytest.mark.parametrize("flawed", [dies_once, fails_twice])
def test_a_worker_that_is_lost_or_fails_loses_no_row(
    client: Client, tmp_path: Path, flawed: Callable[..., Incumbent]
) -> None:
    surface = relu_surface(SIZES, 3)
    found = search(client, partial(flawed, tmp_path / "marker"), surface)
    assert (tmp_path / "marker").exists()
    assert sum(part.n_assessed for part in found) == n_rows(SIZES)
    assert min(part.values[0] for part in found) == surface.values(all_rows(SIZES)).min()
    for part in found:
        assert part.values.tolist() == surface.values(part.rows).tolist()


def test_a_shard_that_fails_three_times_fails_the_search(client: Client) -> None:
    with pytest.raises(ZeroDivisionError, match="by the engine"):
        search(client, always_fails, relu_surface(SIZES, 0))


def test_a_search_that_is_left_stops_its_workers(client: Client, tmp_path: Path) -> None:
    client.wait_for_workers(2, timeout=20)  # a lost one may still be on its way back
    surface, diary = relu_surface(SIZES, 0), tmp_path / "diary"
    stop, boxes = Event(client=client), split(whole(SIZES), 4)
    one = partial(endless, diary, stop.name)
    with submitted(client, one, surface, boxes, np.arange(len(boxes)), stop) as left:
        while not diary.exists():
            found, left = gathered(client, left, 0.1)
            assert not found
    # A worker with its one thread still in a shard would not come to this.
    asked = [client.submit(sum, [1, 2], workers=[name], pure=False) for name in client.nthreads()]
    assert [answer.result(timeout=20) for answer in asked] == [3, 3]
