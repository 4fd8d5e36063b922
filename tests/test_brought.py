"""Tests for brought.py, and for the history that `monitor` keeps on a real store."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Metric

from mlflow_meta import harvest, monitor, suggest, train
from mlflow_meta.brought import COLUMNS, brought
from mlflow_meta.cli import main
from mlflow_meta.store import MlflowStore
from mlflow_meta.trials import Direction

START = pd.Timestamp("2026-01-01", tz="UTC")
NOBODY = (math.nan, math.nan)


def frame(rows: list[tuple[float, float, float, float]]) -> pd.DataFrame:
    """Runs an hour after the other: result, duration in hours, and low and high where suggested."""
    return pd.DataFrame(
        [
            {
                "run_id": f"{i}",
                "ended_at": START + pd.Timedelta(hours=i),
                "realised": got,
                "duration_s": 3600 * hours,
                "predicted": (low + high) / 2,
                "low": low,
                "high": high,
            }
            for i, (got, hours, low, high) in enumerate(rows)
        ]
    )


@pytest.mark.parametrize("direction", list(Direction))
def test_what_suggestions_brought_is_counted_as_by_hand(direction: Direction) -> None:
    s = direction.sign
    ends = (1.0, 2.0) if s > 0 else (-2.0, -1.0)
    runs = frame(
        [
            (s * 3.0, 2.0, *NOBODY),
            (s * 5.0, 4.0, *NOBODY),
            (s * 1.5, 1.0, *ends),  # the best of all, as expected
            (s * 4.0, 1.0, *ends),  # worse than the best, and out of its interval
            (s * 1.0, 3.0, *NOBODY),  # somebody else finds the best
            (s * 1.2, 1.0, *ends),
        ]
    )
    found = brought(runs.sample(frac=1, random_state=0), direction)
    assert list(found) == list(COLUMNS)
    assert found["run_id"].tolist() == ["2", "3", "5"]
    assert found["is_inside"].tolist() == [True, False, True]
    assert found["is_better"].tolist() == [True, False, False]
    assert found["best_before"].tolist() == [s * 3.0, s * 1.5, s * 1.0]
    np.testing.assert_allclose(found["error"], [0.0, s * 2.5, -s * 0.3])
    np.testing.assert_allclose(found["regret"], [0.0, 2.5, 0.2])
    np.testing.assert_allclose(found["coverage_80"], [1.0, 1 / 2, 2 / 3])
    np.testing.assert_allclose(found["share_better"], [1.0, 1 / 2, 1 / 3])
    # (2 + 1) / (0 + 1) runs of 3 hours, less what was spent; then (3 + 1) / (1 + 1) runs of 3.
    np.testing.assert_allclose(found["hours_saved"], [9 - 1, 9 - 2, 6 - 3])


def test_of_no_runs_nothing_was_brought() -> None:
    assert brought(frame([(1.0, 1.0, *NOBODY)]), Direction.MINIMIZE).empty
    alone = brought(frame([(1.0, 1.0, 0.0, 2.0)]), Direction.MINIMIZE)
    assert alone["is_better"].tolist() == [False]
    assert alone[["best_before", "hours_saved"]].isna().all(axis=None)


def test_runs_that_a_random_search_makes_save_nothing_on_average() -> None:
    """The number is no flattery: runs drawn like those before are worth what they cost."""
    rng = np.random.default_rng(0)
    saved = []
    for _ in range(300):
        value = rng.normal(size=60)
        rows = [(v, 1.0, *(NOBODY if i < 30 else (-1.0, 1.0))) for i, v in enumerate(value)]
        saved.append(brought(frame(rows), Direction.MINIMIZE)["hours_saved"].iloc[-1])
    assert np.median(saved) < 5


@pytest.fixture
def suggested(store: MlflowStore) -> list[str]:
    harvest(store)
    train(store, metric="val_loss", kinds=["linear"])
    return list(suggest(store, "sweep-a", n=4).run_ids)


def ended(client: MlflowClient, run_id: str, value: float, at_ms: int) -> None:
    client.update_run(run_id, status="RUNNING")
    client.log_batch(run_id, metrics=[Metric("val_loss", value, at_ms, 0)])
    client.set_tag(run_id, "mlflow_meta.started_ms", str(at_ms - 60_000))
    client._tracking_client.store.update_run_info(run_id, 3, at_ms, None)


def histories(client: MlflowClient, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run_id, key)]


def test_the_history_grows_with_each_harvest_and_nothing_is_in_it_twice(
    store: MlflowStore, client: MlflowClient, suggested: list[str]
) -> None:
    nothing = monitor(store)
    assert [(seen.experiment, seen.n_suggested, seen.n_new) for seen in nothing] == [
        ("sweep-a", 4, 0)
    ]
    now = 1_900_000_000_000
    ended(client, suggested[0], 0.01, now)
    ended(client, suggested[1], 9.0, now + 1000)
    harvest(store)
    (first,) = monitor(store)
    assert (first.n_new, len(first.course)) == (2, 2)
    assert monitor(store)[0].n_new == 0
    ended(client, suggested[2], 0.2, now + 2000)
    harvest(store)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: monitor(MlflowStore(store.uri))[0], range(2)))
    assert {seen.run_id for seen in both} == {first.run_id}
    assert histories(client, first.run_id, "realised") == [(1, 0.01), (2, 9.0), (3, 0.2)]
    assert histories(client, first.run_id, "share_better") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert histories(client, first.run_id, "n_ended") == [(2, 2.0), (3, 3.0)]
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["regret"] == pytest.approx(0.2 - 0.01)
    table = pd.read_csv(client.download_artifacts(first.run_id, "brought.csv"))
    assert table["run_id"].tolist() == suggested[:3]
    assert table["best_before"].iloc[0] > 0.01


def test_monitor_tells_what_was_brought_and_writes_nothing_when_it_only_looks(
    store: MlflowStore, client: MlflowClient, suggested: list[str], tmp_path: Path
) -> None:
    ended(client, suggested[0], 0.01, 1_900_000_000_000)
    harvest(store)
    environment = {"MLFLOW_TRACKING_URI": store.uri}

    def said(*args: str) -> str:
        result = CliRunner().invoke(main, ["monitor", *args], env=environment)
        assert result.exit_code == 0, result.output
        return result.stdout

    (seen,) = json.loads(said("--dry-run", "--json"))["monitored"]
    assert (seen["run_id"], seen["n_suggested"], seen["n_ended"]) == ("", 4, 1)
    own = client.get_experiment_by_name("mlflow-meta").experiment_id
    assert not client.search_runs([own], "tags.`mlflow_meta.kind` = 'monitor'")
    told = said()
    assert "sweep-a" in told and "val_loss" in told
    assert len(client.search_runs([own], "tags.`mlflow_meta.kind` = 'monitor'")) == 1
    assert "No suggested run has ended yet." in said("-e", "sweep-b")
