"""What past runs are worth to an Optuna study: `MetaSampler` with them and without, TPE and GP.

    python tests/benchmarks/optuna_bridge.py --targets 3 --seeds 3
    python tests/benchmarks/optuna_bridge.py --scenarios hpobench --methods warm tpe

Every method has 20 trials on a task of the full tables in ../shared/quality (HPOBench, HPOLib and
NAS-Bench-201), asked one after the other by the same objective; an ordered choice is asked for by
its place. `warm` knows 200 runs of each other task, `cold` nothing. GP needs PyTorch.

regret: 0 is the best of the table, 1 the median of random configurations; of the best of 20, x100
ask:    seconds of the processor from `ask` to the last `suggest_*`, a trial
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for each method

import numpy as np
import optuna
import pandas as pd
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import Trial
from quality_report import Need, table

from mlflow_meta.optuna import MetaSampler

QUALITY = Path(__file__).parents[3] / "shared" / "quality"
SCENARIOS = ("hpobench", "hpolib", "nasbench201")
N_TRIALS = 20
NEEDED = 0.5  # share of a cold peer's mean regret

Make = Callable[[int, pd.DataFrame], BaseSampler]
METHODS: dict[str, Make] = {
    "warm": lambda seed, history: MetaSampler(seed=seed, history=history),
    "cold": lambda seed, _: MetaSampler(seed=seed),
    "tpe": lambda seed, _: TPESampler(seed=seed, multivariate=True),
    "gp": lambda seed, _: GPSampler(seed=seed, deterministic_objective=True),
}


def known_before(bench: Any, space: Any, scenario: str, task: str, seed: int) -> pd.DataFrame:
    """The runs of the other tasks, with the places of ordered choices, as `propose` takes them."""
    runs = bench.load_history(scenario, seed)
    runs = runs[runs["task"] != task].reset_index(drop=True)
    columns = {}
    for name, param in space.params.items():
        values = runs[name]
        if param["type"] == "ord":
            away = np.abs(np.subtract.outer(values.to_numpy(float), np.array(param["choices"])))
            values = pd.Series(away.argmin(axis=1))
        columns[f"params.{name}"] = values
    sign = 1.0 if space.goal == "min" else -1.0
    return pd.DataFrame({"task": runs["task"], "value": sign * runs["metric"], **columns})


def run(objective: Any, space: Any, task: str, sampler: BaseSampler) -> tuple[float, float]:
    """Regret of the best of the trials, and seconds that a trial was waited for."""
    study = optuna.create_study(
        study_name=task, sampler=sampler, direction=f"{space.goal}imize"
    )  # fmt: skip
    spent_s = 0.0
    for _ in range(N_TRIALS):
        begun = time.process_time()
        trial = study.ask()
        config = ask_all(trial, space)
        spent_s += time.process_time() - begun
        metrics, _ = objective.evaluate(task, pd.DataFrame([space.clean(config)])[space.names])
        study.tell(trial, float(metrics[0]))
    return float(objective.regret(task, study.best_value)), spent_s / N_TRIALS


def ask_all(trial: Trial, space: Any) -> dict[str, Any]:
    """What an objective asks for, as the benchmark spells it."""
    config: dict[str, Any] = {}
    for name, param in space.params.items():
        match param["type"]:
            case "cat":
                config[name] = trial.suggest_categorical(name, param["choices"])
            case "ord":
                place = trial.suggest_int(name, 0, len(param["choices"]) - 1)
                config[name] = param["choices"][place]
            case "int":
                log = bool(param.get("log"))
                config[name] = trial.suggest_int(name, param["low"], param["high"], log=log)
            case _:
                log = bool(param.get("log"))
                config[name] = trial.suggest_float(name, param["low"], param["high"], log=log)
    return config


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """A row for each scenario, task, seed and method; seeds outermost."""
    sys.path.insert(0, str(QUALITY))
    bench, spaces = importlib.import_module("bench"), importlib.import_module("spaces")
    rows = []
    for seed in range(args.seeds):
        for scenario in args.scenarios:
            objective = spaces.Objective(scenario)
            for task in bench.targets(objective.space, args.targets):
                history = known_before(bench, objective.space, scenario, task, seed)
                for method in args.methods:
                    sampler = METHODS[method](seed, history)
                    regret, ask_s = run(objective, objective.space, task, sampler)
                    what = {"scenario": scenario, "task": task, "seed": seed, "method": method}
                    rows.append({**what, "regret": regret, "ask_s": ask_s})
                    print(f"{what} {100 * regret:.2f} {ask_s:.2f} s", file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def report(rows: pd.DataFrame) -> tuple[str, list[Need]]:
    """The tables, and what is needed: the mean over scenarios beside each cold peer."""
    cells = rows.pivot_table(index="method", columns="scenario", values="regret") * 100
    cells["mean"] = cells.mean(axis=1)
    ask_s = rows.groupby("method")["ask_s"].mean()
    methods = list(dict.fromkeys(rows["method"]))
    columns = list(cells.columns)
    header = [f"regret x100 after {N_TRIALS}", *columns, "ask, s"]
    lines = [[m, *(f"{cells.loc[m, c]:.2f}" for c in columns), f"{ask_s[m]:.3f}"] for m in methods]
    needs = []
    for peer in methods if "warm" in methods else []:
        if peer == "warm":
            continue
        shares = cells.loc["warm"] / cells.loc[peer]
        lines.append([f"warm / {peer}", *(f"{shares[c]:.2f}" for c in columns), ""])
        if peer != "cold":
            what = f"mean regret of warm, of that of cold {peer}"
            needs.append(Need(what=what, value=float(shares["mean"]), high=NEEDED))
    return table(header, lines), needs


def main() -> int:
    """Measure, and print the tables; 1 if something that is needed was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--targets", type=int, default=3, help="tasks of each scenario, at most 6")
    parser.add_argument("--seeds", type=int, default=3, help="at most 5")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--out", type=Path, help="parquet file of the rows")
    args = parser.parse_args()
    if not QUALITY.exists():
        print("skipped: there are no tables of real trainings (../shared/quality)")
        return 0
    if "gp" in args.methods and find_spec("torch") is None:
        print("GP is left out: it needs PyTorch (pip install torch)")
        args.methods.remove("gp")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    rows = measure(args)
    if args.out:
        rows.to_parquet(args.out)
    text, needs = report(rows)
    print(text, *needs, sep="\n")
    return 0 if all(need.met for need in needs) else 1


if __name__ == "__main__":
    sys.exit(main())
