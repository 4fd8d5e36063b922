"""How good are the configurations that are proposed? Five batches of ten, beside the peers.

regret: 0 is the best there is, 1 the median of random configurations; of the best so far, x100
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from quality_methods import METHODS
from quality_report import Job, Need, Row, table
from quality_scenario import Scenario
from quality_tables import TABLES

BATCH, ROUNDS = 10, 5
AT = (10, 20, 50)
WARM = 30  # random runs on the target, where nothing else is known
TIE = 1e-9
NEEDED = {"transfer": (1.5, 0.9, 0.3), "single": (7.1, 4.4, 1.8)}
WINS = {"transfer": {"tpe": 0.75, "portfolio": 0.75}, "single": {"tpe": 0.80}}
RUN = ["scenario", "task", "seed"]


def known_before(part: str, scenario: Scenario, task: str, seed: int, folder: Path) -> pd.DataFrame:
    """What a method is given: 200 runs on each other task, or 30 random ones on the target."""
    if part == "single":
        return scenario.random_runs(task, seed, WARM)
    others = [other for other in scenario.tasks if other != task]
    return pd.concat([scenario.history(o, seed, folder) for o in others], ignore_index=True)


def run(method: str, scenario: Scenario, task: str, seed: int, history: pd.DataFrame) -> list[Row]:
    """One method on one task: regret after each of `AT`; seconds of the clock and of the cores."""
    proposer = METHODS[method](scenario.space, task, scenario.seed(task, seed))
    n_before, wall_s, cpu_s = int((history["task"] == task).sum()), 0.0, 0.0
    rng = np.random.default_rng([2, seed])
    for _ in range(ROUNDS):
        wall, cpu = time.perf_counter(), _cpu_s()
        configs = proposer.suggest(history, BATCH)
        wall_s, cpu_s = wall_s + time.perf_counter() - wall, cpu_s + _cpu_s() - cpu
        configs += scenario.space.sample(BATCH - len(configs), rng)
        history = pd.concat([history, scenario.frame(task, configs)], ignore_index=True)
    best = np.minimum.accumulate(history.loc[history["task"] == task, "value"].to_numpy(float))
    regrets = {n: scenario.regret(task, best[n_before + n - 1]) for n in AT}
    return [
        {"n": n, "regret": regret, "wall_s": wall_s, "cpu_s": cpu_s}
        for n, regret in regrets.items()
    ]


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def jobs(
    part: str,
    scenarios: Sequence[Scenario],
    methods: Sequence[str],
    n_targets: int,
    n_seeds: int,
    folder: Path,
) -> list[Job]:
    """Every method on every target, seeds outermost, so that a part of it is a fair part."""

    def job(scenario: Scenario, task: str, seed: int, method: str) -> Job:
        what = {
            "part": part, "scenario": scenario.name, "task": task, "seed": seed, "method": method
        }  # fmt: skip

        def measure() -> list[Row]:
            history = known_before(part, scenario, task, seed, folder)
            return run(method, scenario, task, seed, history)

        return what, measure

    return [
        job(scenario, task, seed, method)
        for seed in range(n_seeds)
        for scenario in scenarios
        for task in scenario.targets(n_targets)
        for method in methods
    ]


def report(part: str, rows: pd.DataFrame) -> tuple[str, list[Need]]:
    """The tables, and what is needed beside them.

    What is needed of the mean regret is needed of the tables; of the wins, of all that was run.
    """
    scenarios = list(rows["scenario"].unique())
    cells = rows.pivot_table(index="method", columns=["scenario", "n"], values="regret") * 100
    tables = [name for name in scenarios if name in TABLES]
    seconds = rows.groupby("method")[["wall_s", "cpu_s"]].mean()
    lines = []
    for method in rows["method"].unique():
        line = [" / ".join(f"{cells.loc[method, (s, n)]:.2f}" for n in AT) for s in scenarios]
        mean = " / ".join(f"{_mean(cells, method, tables or scenarios, n):.2f}" for n in AT)
        wall_s, cpu_s = seconds.loc[method]
        ratio = cpu_s / seconds["cpu_s"].get("gp", np.nan)
        lines.append([method, *line, mean, f"{wall_s:.1f}", f"{cpu_s:.1f}", f"{ratio:.2f}"])
    title = "P1, runs on other tasks" if part == "transfer" else "P2, 30 random runs on the target"
    over = "mean of tables" if tables else "mean"
    header = [f"{title}: regret x100 after {AT}", *scenarios, over, "s/run", "CPU s/run", "x gp"]
    text = table(header, lines)
    needs: list[Need] = []
    if "ours" in cells.index:
        duels = _duels(rows)
        text += "\n\n" + table([f"ours, after {AT[-1]}, against", "wins", "losses", "ties"], duels)
        if tables:
            needs += [
                Need(
                    what=f"{part}: mean regret x100 after {n}",
                    value=_mean(cells, "ours", tables, n),
                    high=high,
                )
                for n, high in zip(AT, NEEDED[part], strict=True)
            ]
        needs += [need for duel in duels for need in _duel_needs(part, *duel)]
    return text, needs


def _mean(cells: pd.DataFrame, method: str, scenarios: Sequence[str], n: int) -> float:
    return float(np.mean([cells.loc[method, (name, n)] for name in scenarios]))


def _duels(rows: pd.DataFrame) -> list[tuple[str, int, int, int]]:
    """Peer, and how many runs ours has won, lost and tied against it."""
    last = rows[rows["n"] == AT[-1]].pivot_table(index=RUN, columns="method", values="regret")
    found = []
    for peer in last.columns.drop("ours"):
        gain = (last[peer] - last["ours"]).dropna()
        won, lost = int((gain > TIE).sum()), int((gain < -TIE).sum())
        found.append((str(peer), won, lost, len(gain) - won - lost))
    return found


def _duel_needs(part: str, peer: str, won: int, lost: int, tied: int) -> list[Need]:
    if peer in WINS[part]:
        share = won / max(won + lost + tied, 1)
        what = f"{part}: wins at {AT[-1]} against {peer}, % of runs"
        return [Need(what=what, value=100 * share, low=100 * WINS[part][peer])]
    if peer != "gp":
        return []
    if part == "single":
        return [Need(what="single: wins less losses against gp", value=won - lost, low=1)]
    what = "transfer: wins less twice the losses against gp"
    return [Need(what=what, value=won - 2 * lost, low=0)]
