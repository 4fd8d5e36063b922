"""How good are the predictions, how honest the intervals, and is noise refused?

spearman:    rank correlation of predicted and true on configurations that were not learned from
coverage:    share of such runs' values that lie inside the 80% and the 90% interval
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightgbm import LGBMRegressor
from quality_methods import unit_cube
from quality_report import Job, Need, Row, table
from quality_scenario import Scenario
from sklearn.ensemble import RandomForestRegressor

from mlflow_meta.columns import config_of
from mlflow_meta.metrics import coverage, spearman
from mlflow_meta.models.choice import Candidate, compare

SIZES = (50, 200, 1000)  # runs that are learned from, on one task
KNOWN = (0, 10, 30)  # random runs on the target, beside 200 on each other task
N_HELD_OUT = 1000
NEEDED_WITHIN = {50: 0.82, 200: 0.92, 1000: 0.955}
NEEDED_ACROSS = {0: 0.70, 10: 0.76, 30: 0.85}
NEEDED_COVERAGE = {80: (78.0, 85.0), 90: (88.0, 94.0)}  # level -> % that they cover
PICKED = "picked"  # what `compare` puts first
N_REFUSALS, N_SHUFFLED = 100, 50  # data sets, and runs in each


def within_jobs(
    scenarios: Sequence[Scenario], n_targets: int, n_seeds: int, sizes: Sequence[int]
) -> list[Job]:
    """Learn from N random runs of a task, predict others of the same task."""
    return [
        (
            {"part": "within", "scenario": s.name, "task": task, "seed": seed, "n": n},
            partial(_within, s, task, seed, n),
        )
        for n in sizes
        for seed in range(n_seeds)
        for s in scenarios
        for task in s.targets(n_targets)
    ]


def across_jobs(
    scenarios: Sequence[Scenario], n_targets: int, n_seeds: int, folder: Path
) -> list[Job]:
    """Learn from 200 runs of each other task and a few of the target, predict the target's."""
    return [
        (
            {"part": "across", "scenario": s.name, "task": task, "seed": seed, "n": n},
            partial(_across, s, task, seed, n, folder),
        )
        for n in KNOWN
        for seed in range(n_seeds)
        for s in scenarios
        for task in s.targets(n_targets)
    ]


def refusal_jobs(scenarios: Sequence[Scenario], n_targets: int, n: int) -> list[Job]:
    """Models of `n` data sets, each as it is and with its values shuffled."""
    places = [(s, task) for s in scenarios for task in s.targets(n_targets)]
    return [
        (
            {"part": "refusal", "scenario": s.name, "task": task, "seed": i},
            partial(_refusal, s, task, i),
        )
        for i, (s, task) in enumerate(places[i % len(places)] for i in range(n))
    ]


def _within(scenario: Scenario, task: str, seed: int, n: int) -> list[Row]:
    train = scenario.random_runs(task, seed, n)
    return _measured(scenario, train, _held_out(scenario, task, seed, train))


def _across(scenario: Scenario, task: str, seed: int, n: int, folder: Path) -> list[Row]:
    others = [scenario.history(o, seed, folder) for o in scenario.tasks if o != task]
    own = scenario.random_runs(task, seed, n)
    train = pd.concat([*others, own] if n else others, ignore_index=True)
    return _measured(scenario, train, _held_out(scenario, task, seed, own))


def _held_out(scenario: Scenario, task: str, seed: int, seen: pd.DataFrame) -> pd.DataFrame:
    """Later runs of the task: random ones, none of them seen."""
    known = {scenario.space.key(config_of(row)) for row in seen.to_dict("records")}
    rng = np.random.default_rng([3, scenario.seed(task, seed)])
    drawn = scenario.space.sample(N_HELD_OUT, rng)
    return scenario.frame(task, [c for c in drawn if scenario.space.key(c) not in known])


def _measured(scenario: Scenario, train: pd.DataFrame, test: pd.DataFrame) -> list[Row]:
    candidates = compare(train, scenario.space)
    rows = [{"model": c.name, **_judged(c, test)} for c in candidates]
    rows.append({**rows[0], "model": PICKED})
    # The peers learn ranks within a task, without which tasks could not be pooled.
    ranks = train.groupby("task")["value"].rank(pct=True)
    X, X_test = (
        unit_cube(scenario.space, [config_of(row) for row in frame.to_dict("records")])
        for frame in (train, test)
    )
    peers: dict[str, Callable[[], Any]] = {
        "LightGBM defaults": partial(LGBMRegressor, verbosity=-1, n_jobs=1),
        "random forest": partial(RandomForestRegressor, random_state=0),
    }
    for name, make in peers.items():
        predicted = np.asarray(make().fit(X, ranks).predict(X_test))
        found = spearman(test["value"].to_numpy(float), predicted)
        rows.append({"model": name, "spearman": found})
    return rows


def _judged(candidate: Candidate, test: pd.DataFrame) -> Row:
    true = test["value"].to_numpy(float)
    inputs = test.drop(columns="value")
    covered = {
        f"cover{level}": coverage(true, *candidate.model.interval(inputs, level / 100))
        for level in NEEDED_COVERAGE
    }
    return {"spearman": spearman(true, candidate.model.score(inputs).mean), **covered}


def _refusal(scenario: Scenario, task: str, seed: int) -> list[Row]:
    real = scenario.random_runs(task, seed, N_SHUFFLED)
    shuffled = real.assign(value=np.random.default_rng(seed).permutation(real["value"]))
    return [
        {"real": is_real, "accepted": compare(runs, scenario.space)[0].model.has_signal}
        for is_real, runs in ((True, real), (False, shuffled))
    ]


def accuracy_report(rows: pd.DataFrame) -> tuple[str, list[Need]]:
    """Spearman by model, learned within a task or across tasks; the mean over the tasks."""
    part = rows["part"].iloc[0]
    needed = NEEDED_WITHIN if part == "within" else NEEDED_ACROSS
    found = rows.pivot_table(index="model", columns="n", values="spearman")
    what = "runs on the task" if part == "within" else "runs on the target, 200 on each other"
    header = [f"Spearman, by {what}", *(str(n) for n in found.columns)]
    text = table(header, [[m, *(f"{v:.3f}" for v in found.loc[m])] for m in found.index])
    needs = [
        Need(what=f"{part}: Spearman with {n} {what}", value=found.loc[PICKED, n], low=needed[n])
        for n in found.columns
        if n in needed
    ]
    return text, needs


def coverage_report(rows: pd.DataFrame) -> tuple[str, list[Need]]:
    """What the intervals cover, by how many runs were learned from."""
    ours = rows.dropna(subset=["cover80"])
    levels = list(NEEDED_COVERAGE)
    values = [f"cover{level}" for level in levels]
    found = 100 * ours.pivot_table(index="model", columns="n", values=values)
    columns = [(f"cover{level}", n) for level in levels for n in sorted(ours["n"].unique())]
    header = ["% covered, interval @ runs", *(f"{c.removeprefix('cover')}@{n}" for c, n in columns)]
    text = table(header, [[m, *(f"{found.loc[m, c]:.1f}" for c in columns)] for m in found.index])
    needs = []
    for column, n in columns:
        level = int(column.removeprefix("cover"))
        low, high = NEEDED_COVERAGE[level]
        value = float(found.loc[PICKED, (column, n)])
        what = f"coverage: % in the {level}% interval, {n} runs"
        needs.append(Need(what=what, value=value, low=low, high=high))
    return text, needs


def refusal_report(rows: pd.DataFrame) -> tuple[str, list[Need]]:
    """How many were told from noise, in %."""
    real, noise = (rows[rows["real"] == is_real]["accepted"].mean() * 100 for is_real in (1, 0))
    text = table(
        [f"% of {len(rows) // 2}, {N_SHUFFLED} runs each", "accepted", "refused"],
        [
            [what, f"{accepted:.0f}", f"{100 - accepted:.0f}"]
            for what, accepted in (("as they are", real), ("values shuffled", noise))
        ],
    )
    return text, [
        Need(what="refusal: % of shuffled that are refused", value=100 - noise, low=95),
        Need(what="refusal: % of real that are accepted", value=real, low=95),
    ]
