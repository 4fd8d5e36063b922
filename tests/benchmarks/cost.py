"""How well is it told how long a run takes, and what does that save? On tables of real trainings.

    python tests/benchmarks/cost.py durations hours

durations  median absolute percentage error for configurations that were not run, beside the mean
           of the runs, and beside the same meta-model taught by `end - start`, which has the time
           that a run has waited in it
hours      regret after equal hours, at most 0.7 of what a search that is blind to time has, which
           may run 20 (two batches of ten after 30 random runs)

Needs the extra `[bench]`; nothing is downloaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import click
import numpy as np
import pandas as pd
from quality_report import table
from quality_scenario import Scenario, Vector
from quality_tables import TABLES, from_table, recorded, scenario

from mlflow_meta import propose
from mlflow_meta.errors import Exhausted
from mlflow_meta.models.durations import Durations
from mlflow_meta.proposal import in_context
from mlflow_meta.trials import Config

N_OTHER, N_OWN, N_ASKED = 200, 30, 500
MEAN_WAIT_S = 600.0  # in a queue, exponentially distributed
N_BATCH, N_BATCHES = 10, 2
MOST = 0.7


def seconds(name: str) -> Scenario:
    """The table of a name, but a configuration's worth is how long its training took."""
    return from_table(name, scenario(name).space, recorded(name, "train_time"))


def timed(known: Scenario, took: Scenario, task: str, configs: Sequence[Config]) -> pd.DataFrame:
    """`configs` as runs of `task`, with how long they took."""
    return known.frame(task, configs).assign(duration_s=took.loss(task, configs))


def errors(name: str, seed: int) -> list[list[float]]:
    """For each target and number of own runs: errors of ours, of the mean, of ours with queue."""
    known, took = scenario(name), seconds(name)
    found = []
    for task in known.targets(4):
        for n_own in (N_OWN, 0):
            rng = np.random.default_rng([seed, n_own])
            runs = pd.concat(
                [
                    timed(known, took, t, known.space.sample(n, rng))
                    for t in known.tasks
                    if (n := n_own if t == task else N_OTHER)
                ],
                ignore_index=True,
            )
            asked = known.space.sample(N_ASKED, rng)
            frame, true = in_context(asked, known.space, task, {}), took.loss(task, asked)
            waited = runs["duration_s"] + rng.exponential(MEAN_WAIT_S, len(runs))
            like = runs[runs["task"] == task] if n_own else runs
            said: list[Vector] = [
                Durations.learn(runs, known.space).seconds(frame),
                np.full(N_ASKED, like["duration_s"].mean()),
                Durations.learn(runs.assign(duration_s=waited), known.space).seconds(frame),
            ]
            found.append([n_own, *(float(np.median(np.abs(s - true) / true)) for s in said)])
    return found


def show_durations(n_seeds: int) -> None:
    """The table of errors."""
    lines = []
    for name in TABLES:
        rows = pd.DataFrame([row for seed in range(n_seeds) for row in errors(name, seed)])
        for n_own, mean in rows.groupby(0).mean().iterrows():
            ours, naive, queue = mean.tolist()
            ratios = [f"{ours / naive:.2f}", f"{ours / queue:.2f}"]
            lines.append([name, n_own, *(f"{m:.3f}" for m in (ours, naive, queue)), *ratios])
    header = ["table", "own runs", "ours", "mean", "ours of end - start", "x mean", "x queue"]
    click.echo("Median absolute percentage error of the duration\n" + table(header, lines))


def spent(
    known: Scenario, took: Scenario, task: str, seed: int, hours_s: float | None
) -> tuple[float, float, int]:
    """Regret, seconds and runs of a search: 20 runs where `hours_s` is None, else so long."""
    start = known.random_runs(task, seed, N_OWN)
    configs = start.filter(like="params.").rename(columns=lambda c: c.removeprefix("params."))
    runs = start.assign(duration_s=took.loss(task, configs.to_dict("records")))
    rng, used, n_batches = np.random.default_rng([2, seed]), 0.0, 0
    while n_batches < N_BATCHES if hours_s is None else used < hours_s:
        left = None if hours_s is None else hours_s - used
        try:
            new = propose(runs, known.space, task=task, n=N_BATCH, rng=rng, budget_s=left)
        except Exhausted:
            break  # nothing fits into what is left
        batch = timed(known, took, task, new)
        ended = used + batch["duration_s"].cumsum()
        if hours_s is not None:
            batch = batch[ended <= hours_s]  # what has not ended by then has told nothing
        used += float(batch["duration_s"].sum())
        runs = pd.concat([runs, batch], ignore_index=True)
        n_batches += 1
        if hours_s is not None and len(batch) < len(new):
            break
    return known.regret(task, float(runs["value"].min())), used, len(runs) - N_OWN


def show_hours(n_seeds: int, names: Sequence[str]) -> bool:
    """The table of regrets; and whether what is needed was met."""
    lines, is_met = [], True
    for name in names:
        known, took = scenario(name), seconds(name)
        rows = []
        for seed, task in itertools.product(range(n_seeds), known.targets(4)):
            blind, used, n_blind = spent(known, took, task, seed, None)
            aware, _, n_aware = spent(known, took, task, seed, used)
            rows.append([blind, aware, n_blind, n_aware])
        mean = np.mean(rows, axis=0)
        ratio = mean[1] / mean[0]
        is_met &= ratio <= MOST
        cells = [f"{100 * m:.2f}" for m in mean[:2]]
        lines.append([name, *cells, f"{ratio:.2f}", *(f"{m:.0f}" for m in mean[2:]), len(rows)])
    header = ["table", "blind to time", "with a budget", "ratio", "runs", "runs", "searches"]
    click.echo(f"Regret x100 after equal hours: at most {MOST}\n" + table(header, lines))
    return is_met


@click.command(help=__doc__)
@click.argument("parts", nargs=-1, type=click.Choice(["durations", "hours"]))
@click.option("--seeds", default=5, show_default=True, help="Repetitions of each target.")
@click.option("--tables", default="hpobench,hpolib", show_default=True, help="For the hours.")
def main(parts: Sequence[str], seeds: int, tables: str) -> None:
    """Print what was asked for, or all."""
    wanted = parts or ("durations", "hours")
    if "durations" in wanted:
        show_durations(min(seeds, 3))
    if "hours" in wanted and not show_hours(seeds, tables.split(",")):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
