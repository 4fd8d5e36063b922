"""Tests for benchmarks/: they run through, on a small store; how fast, only they themselves say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SHARED, need

HARVEST = Path(__file__).parent / "benchmarks" / "harvest.py"
SERVING = Path(__file__).parent / "benchmarks" / "serving.py"
BRIDGE = Path(__file__).parent / "benchmarks" / "optuna_bridge.py"
SEARCH = Path(__file__).parent / "benchmarks" / "search.py"
FEATURES = Path(__file__).parent / "benchmarks" / "feature_selection.py"
ROWS = (
    "read by SQL, wall s, times faster",
    "read by SQL, CPU s",
    "read by SQL, memory added, MB",
    "read over REST, 1 worker, wall s",
    "read over REST, 1 worker, client CPU s",
    "read over REST, 1 worker, memory added, MB",
    "read over REST, 1 worker, memory in all, MB",
    "read over REST, 4 workers, wall s",
    "read over REST, 4 workers, client CPU s",
    "read over REST, 4 workers, memory added, MB",
    "read over REST, 4 workers, memory in all, MB",
    "harvest by SQL, end to end, wall s",
    "harvest by SQL, end to end, memory in all, MB",
    "second harvest over REST, 1 worker, times faster",
    "second harvest over REST, 1 worker, same bytes as a full one",
    "second harvest over REST, 4 workers, times faster",
    "second harvest over REST, 4 workers, same bytes as a full one",
)
LOOKS = 5  # at a search that takes its time
SEARCHED = (
    "scan/network of 32 units, 10^6: the best",
    "scan/network of 32 units, 10^6: than MLPRegressor.predict",
    "scan/network of 32 units, 10^6: max+adds/s, of the peak",
    "scan/LightGBM 100 x 16, 10^6: the best",
    "scan/LightGBM 100 x 16, 10^6: than Booster.predict",
    "scan: peak memory",
    "exact/sum, 10^6: top 100, the engine",
    "exact/sum, 10^6: top 100, all of `top_k`",
    "exact/sum, 2^20: top 100, the engine",
    "exact/sum, 2^20: top 100, all of `top_k`",
    "exact/LightGBM 20 x 16, depth 5, 11^6: top 100",
    "exact/LightGBM 20 x 16, depth 5, 11^6: proved within 60 s",
    "exact/LightGBM 20 x 16, depth 5, 11^6: than Booster.predict",
    "exact/LightGBM 30 x 16, depth 6, 11^6: top 100",
    *["exact/LightGBM 30 x 16, depth 6, 11^6: after"] * LOOKS,
    "exact/LightGBM 30 x 16, depth 6, 11^6: the gap shrinks",
    "exact/LightGBM 20 x 31, depth 8, 11^6: top 100",
    *["exact/LightGBM 20 x 31, depth 8, 11^6: after"] * LOOKS,
    "exact/LightGBM 20 x 31, depth 8, 11^6: the gap shrinks",
    "exact/network of 32 units, 10^6: top 100",
    "exact: peak memory",
)


@pytest.mark.slow
def test_the_search_benchmark_prints_every_row_and_proves_what_is_small() -> None:
    argv = [sys.executable, str(SEARCH), "scan", "exact", "--small", "--repeats", "1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    *lines, verdict = done.stdout.splitlines()
    rows = [line for line in lines if line.startswith(("scan", "exact"))]
    named = [re.sub(r"after [\d.]+ s$", "after", re.split(r" {2,}", row)[0]) for row in rows]
    assert named == list(SEARCHED), done.stderr
    n_missed = sum(row.endswith("MISSED") for row in rows)
    assert (verdict, done.returncode) == (f"missed: {n_missed}", int(n_missed > 0))
    assert not [row for row in rows if re.search(">60|not proved|not closed", row)]
    assert "5 of 5 models" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "rows"),
    [
        (["sql", "end-to-end"], [row for row in ROWS if "by SQL" in row]),
        pytest.param([], list(ROWS), marks=pytest.mark.nightly),
    ],
    ids=["database", "all"],
)
def test_the_harvest_benchmark_prints_every_row_and_a_second_harvest_has_the_same_bytes(
    parts: list[str], rows: list[str]
) -> None:
    argv = [sys.executable, str(HARVEST), "--runs", "200", "--repeats", "1"]
    argv += ["--parts", *parts] if parts else []
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("sqlite: ")]
    named = [re.split(r" {2,}", line.removeprefix("sqlite: "))[0] for line in lines]
    assert named == rows, done.stderr
    assert done.stdout.splitlines()[-1].startswith("missed: ")
    assert done.returncode in (0, 1)  # a small store on a busy machine may miss any of the ratios
    assert parts or lines[-1].endswith("met")


@pytest.mark.slow
def test_the_serving_benchmark_prints_a_row_for_each_kind_of_model() -> None:
    small = ["--rounds", "1", "--requests", "3", "--loads", "1", "--trials", "15"]
    argv = [sys.executable, str(SERVING), "--kinds", "linear", *small]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    row, verdict = done.stdout.splitlines()
    number = r"[\d.]+"
    told = rf"p95 {number} ms, {number} times; median {number} ms, {number} times; load {number} s"
    assert re.match(rf"linear +{told}, [+-]{number} s  (met|MISSED)$", row), done.stderr
    assert (verdict, done.returncode) in (("missed: 0", 0), ("missed: 1", 1))


@pytest.mark.slow
def test_the_bridge_benchmark_prints_regrets_and_what_they_are_of_each_peer() -> None:
    need((SHARED / "quality").exists(), "there are no tables of real trainings (../shared/quality)")
    few = ["--scenarios", "hpolib", "--targets", "1", "--seeds", "1", "--methods", "warm", "tpe"]
    argv = [sys.executable, str(BRIDGE), *few]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    first = [re.split(r" {2,}", line)[0] for line in lines]
    assert first[:4] == ["regret x100 after 20", "warm", "tpe", "warm / tpe"], done.stderr
    assert lines[-1].endswith("met") == (done.returncode == 0)


@pytest.mark.slow
def test_the_feature_benchmark_prints_a_row_for_each_way_to_select() -> None:
    argv = [sys.executable, str(FEATURES), "--data", "diabetes", "--runs", "30", "--seeds", "1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    _, title, _, *rows = done.stdout.splitlines()
    assert title.startswith("diabetes: "), done.stderr
    ways = {re.split(r" {2,}", row)[0]: [float(v) for v in row.split()[-6:]] for row in rows}
    assert list(ways) == ["suggested", "best of history", "all columns", "LASSO", "RFE, as many",
                          "SelectKBest, as many"]  # fmt: skip
    for precision, original, recall, n_columns, _, _ in ways.values():
        assert 0 <= precision <= original <= 1 and 0 <= recall <= 1 and n_columns <= 20
    assert ways["all columns"][2:4] == [1.0, 20.0] and ways["best of history"][-1] == 1.0
