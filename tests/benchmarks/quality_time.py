"""How long does it take, and how much memory?"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from multiprocessing.queues import Queue

import numpy as np
import pandas as pd
import quality_own
import quality_proposals
from quality_report import Job, Need, Row, table

from mlflow_meta.models.choice import compare, score_table
from mlflow_meta.space import SearchSpace

N_TASKS, RUNS_EACH = 19, 200  # other tasks that 50 proposals are made from
GP_SHARE = 1 / 3  # of GPSampler's seconds, at most
TRAININGS = {10_000: (60.0, 2.0), 100_000: (300.0, 4.0)}  # runs -> seconds, GB of memory, at most
N_FEATURES = 30
PATIENCE_S = 900.0  # after which a training is ended


def jobs(sizes: list[int]) -> list[Job]:
    """Proposals of ours and GPSampler's, and trainings each in a process of its own."""
    found: list[Job] = [
        ({"part": "time", "what": f"propose: {m}"}, lambda m=m: [_proposals(m)])
        for m in ("ours", "gp")
    ]
    found += [({"part": "time", "what": f"train: {n}"}, lambda n=n: [_training(n)]) for n in sizes]
    return found


def _proposals(method: str) -> Row:
    scenario = quality_own.analytic(N_TASKS + 1)
    target, *others = scenario.tasks
    runs = [scenario.random_runs(task, 0, RUNS_EACH) for task in others]
    history = pd.concat(runs, ignore_index=True)
    last = quality_proposals.run(method, scenario, target, 0, history)[-1]
    return {"wall_s": last["wall_s"], "cpu_s": last["cpu_s"]}


def _training(n: int) -> Row:
    # All cores, as `mlflow-meta train` would have.
    os.environ.pop("OMP_NUM_THREADS", None)
    context = multiprocessing.get_context("spawn")
    answer: Queue[Row] = context.Queue()
    child = context.Process(target=_train, args=(n, answer))
    child.start()
    child.join(PATIENCE_S)
    if child.is_alive():
        child.kill()
        child.join()
    if child.exitcode != 0:
        return {"wall_s": float("inf"), "cpu_s": float("inf"), "gigabytes": float("inf")}
    return answer.get(timeout=10)


def _train(n: int, answer: Queue[Row]) -> None:
    trials, space = big_history(n)
    wall, cpu = time.perf_counter(), time.process_time()
    score_table(compare(trials, space), trials)
    took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    answer.put({**took, "gigabytes": peak * unit_bytes / 1e9})


def big_history(n: int) -> tuple[pd.DataFrame, SearchSpace]:
    """`n` runs on 10 tasks over 20 numbers and 10 categories, a third of which matter."""
    rng = np.random.default_rng(0)
    numbers = rng.random((n, 2 * N_FEATURES // 3))
    codes = rng.integers(4, size=(n, N_FEATURES - numbers.shape[1]))
    value = (numbers[:, :7] - 0.5) ** 2 @ np.arange(1.0, 8.0) + 0.2 * codes[:, :3].sum(axis=1)
    trials = pd.DataFrame(
        {"task": [f"task{i % 10}" for i in range(n)], "value": value + 0.1 * rng.normal(size=n)}
    )
    choices = np.array(["a", "b", "c", "d"])
    columns = {f"params.x{i}": numbers[:, i] for i in range(numbers.shape[1])}
    columns |= {f"params.c{i}": choices[codes[:, i]] for i in range(codes.shape[1])}
    spec: dict[str, dict[str, object]] = {}
    for column in columns:
        name = column.removeprefix("params.")
        number = {"type": "float", "low": 0.0, "high": 1.0}
        category = {"type": "categorical", "choices": choices.tolist()}
        spec[name] = number if name.startswith("x") else category
    return pd.concat([trials, pd.DataFrame(columns)], axis=1), SearchSpace.from_dict(spec)


def report(rows: pd.DataFrame) -> tuple[str, list[Need]]:
    """Seconds and memory, and how they compare with what is allowed.

    The ratio is of the cores' seconds, since each of the two has one core and other work on the
    machine does not count in them; a training's are those of the clock.
    """
    found = rows.set_index("what").reindex(columns=["wall_s", "cpu_s", "gigabytes"])
    lines = [
        [what, f"{row.wall_s:.1f}", f"{row.cpu_s:.1f}", f"{row.gigabytes:.2f}"]
        for what, row in found.iterrows()
    ]
    text = table(["50 proposals from 3,800 runs; training", "s", "CPU s", "GB"], lines)
    ratio = found.cpu_s["propose: ours"] / found.cpu_s["propose: gp"]
    needs = [Need(what="time: 50 proposals, ours to GPSampler's", value=ratio, high=GP_SHARE)]
    for n, (seconds, gigabytes) in TRAININGS.items():
        if f"train: {n}" in found.index:
            row = found.loc[f"train: {n}"]
            what = f"time: training on {n:,} runs x {N_FEATURES}"
            needs.append(Need(what=f"{what}, s", value=row.wall_s, high=seconds))
            needs.append(Need(what=f"{what}, GB", value=row.gigabytes, high=gigabytes))
    return text, needs
