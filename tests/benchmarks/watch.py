"""Replay recorded curves: how many training hours early stopping saves, and what it loses.

`python tests/benchmarks/watch_curves.py`, then `python tests/benchmarks/watch.py`. The runs of each
task are trained again in random orders, one after the other, by their recorded curves; a method
may stop each at any epoch. What a method learns from is what it has let go on to the end (Optuna's
pruners also see the beginnings of what they have pruned).

saved        share of all training seconds that were not spent, mean of the tasks
false stops  share of the runs which would have become the best so far, and were stopped; after the
             first `MIN_CURVES` runs of an order, when every method is at work
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import optuna
from numpy.typing import NDArray
from watch_curves import OUT

from mlflow_meta.errors import TooLittle
from mlflow_meta.outlook import MIN_CURVES, Curve, Outlooks, Standing

Array = NDArray[np.float64]

MAX_FALSE = 0.02
HUGE = 1e12  # what a diverged training has for a loss
LEARN_EVERY = 5  # finished runs


class Stopper(Protocol):
    """A way to stop trainings early, from the first run of an order on."""

    def trained(self, values: Array) -> int:
        """Train the next run; after how many of its epochs it is stopped, all of them if never.

        Args:
            values: `(k,)` its curve. What is beyond the epoch is not to be looked at.
        """
        ...


@dataclass
class Ours:
    """`mlflow_meta.outlook`, as `watch --stop` uses it at every epoch."""

    finished: list[Curve] = field(default_factory=list)
    learned: Outlooks | None = None
    n_learned: int = 0

    def trained(self, values: Array) -> int:
        curve = Curve.of(np.arange(len(values)), values)
        n = len(self.finished)
        if n >= MIN_CURVES and (self.learned is None or n >= self.n_learned + LEARN_EVERY):
            self.n_learned = n
            try:
                self.learned = Outlooks.learn(self.finished)
            except TooLittle:
                self.learned = None
        if self.learned is not None:
            incumbent = min(c.value("last") for c in self.finished)
            for look in self.learned.looks:  # between looks nothing changes
                if look.step + 1 >= len(values):
                    break
                shown = Curve(curve.steps[: look.step + 1], curve.values[: look.step + 1])
                if self.learned.of(shown, incumbent).standing is Standing.WILL_NOT:
                    return look.step + 1
        self.finished.append(curve)
        return len(values)


@dataclass
class LastValue:
    """Takes the value at an epoch for the end; from the middle of a median run on."""

    ends: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def trained(self, values: Array) -> int:
        if len(self.ends) >= MIN_CURVES:
            half = math.ceil(np.median(self.lengths) / 2)
            if half < len(values) and values[half - 1] > min(self.ends):
                return half
        self.ends.append(values[-1])
        self.lengths.append(len(values))
        return len(values)


@dataclass
class LargestFall:
    """The value at an epoch, less the most that any finished run has still fallen from there."""

    finished: list[Array] = field(default_factory=list)

    def trained(self, values: Array) -> int:
        if len(self.finished) >= MIN_CURVES:
            best = min(v[-1] for v in self.finished)
            for t in range(2, len(values)):
                falls = [v[t - 1] - v[-1] for v in self.finished if len(v) > t]
                if len(falls) >= MIN_CURVES / 2 and values[t - 1] - max(falls) > best:
                    return t
        self.finished.append(values)
        return len(values)


class Pruner:
    """One of Optuna's."""

    def __init__(self, pruner: optuna.pruners.BasePruner) -> None:
        self.study = optuna.create_study(pruner=pruner)

    def trained(self, values: Array) -> int:
        trial = self.study.ask()
        for epoch, value in enumerate(values[:-1], start=1):
            trial.report(value, epoch)
            if trial.should_prune():
                self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                return epoch
        self.study.tell(trial, values[-1])
        return len(values)


METHODS: dict[str, Callable[[int], Stopper]] = {
    "mlflow-meta watch": lambda _: Ours(),
    "largest fall so far": lambda _: LargestFall(),
    "last value at half": lambda _: LastValue(),
    "Optuna median": lambda _: Pruner(optuna.pruners.MedianPruner()),
    "Optuna successive halving": lambda _: Pruner(optuna.pruners.SuccessiveHalvingPruner()),
    "Optuna Hyperband": lambda n: Pruner(optuna.pruners.HyperbandPruner(max_resource=n)),
}


@dataclass
class Tally:
    """What a method has saved and lost in one task."""

    saved_s: float = 0.0
    total_s: float = 0.0
    late_s: float = 0.0  # of the total, after the first `MIN_CURVES` runs
    n_stopped: int = 0
    n_best: int = 0
    n_false: int = 0


def replay(stopper: Stopper, runs: list[tuple[Array, Array]], tally: Tally) -> None:
    """The runs, `(values, seconds)` each, one after the other."""
    best = math.inf
    for place, (values, seconds) in enumerate(runs):
        n = stopper.trained(values)
        is_stopped = n < len(values)
        tally.saved_s += seconds[n:].sum()
        tally.total_s += seconds.sum()
        tally.n_stopped += is_stopped
        tally.late_s += seconds.sum() if place >= MIN_CURVES else 0.0
        if place >= MIN_CURVES and values[-1] < best:
            tally.n_best += 1
            tally.n_false += is_stopped
        best = min(best, values[-1])


def recorded(path: Path) -> dict[str, list[tuple[Array, Array]]]:
    """Task -> its runs, as values and seconds of each epoch."""
    with np.load(path) as saved:
        task, values, seconds = saved["task"], saved["values"], saved["seconds"]
    found: dict[str, list[tuple[Array, Array]]] = {}
    for name, of_values, of_seconds in zip(task.tolist(), values, seconds, strict=True):
        there = np.isfinite(of_seconds)
        loss = np.nan_to_num(of_values[there], nan=HUGE, posinf=HUGE)
        found.setdefault(name, []).append((np.minimum(loss, HUGE), of_seconds[there]))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=Path, default=OUT)
    parser.add_argument("--orders", type=int, default=10, help="of each task")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tasks = recorded(args.curves)
    hours = sum(seconds.sum() for runs in tasks.values() for _, seconds in runs) / 3600
    n_runs = sum(map(len, tasks.values()))
    print(f"{n_runs} runs of {len(tasks)} tasks, {hours:.2f} h of CPU, {args.orders} orders each")
    print(f"{'':28}{'saved':>8}{'false stops':>22}{'of all stops':>15}{'time':>8}")
    met = True
    for method in args.methods:
        began = time.perf_counter()
        tallies = []
        for task, runs in tasks.items():
            tally = Tally()
            longest = max(len(values) for values, _ in runs)
            for order in range(args.orders):
                rng = np.random.default_rng([order, list(tasks).index(task)])
                shuffled = [runs[i] for i in rng.permutation(len(runs))]
                replay(METHODS[method](longest), shuffled, tally)
            tallies.append(tally)
        n_false, n_best = (sum(getattr(t, name) for t in tallies) for name in ("n_false", "n_best"))
        saved = float(np.mean([t.saved_s / t.total_s for t in tallies]))
        stopped = sum(t.n_stopped for t in tallies)
        false = n_false / max(n_best, 1)
        print(
            f"{method:28}{saved:8.1%}{false:8.1%} ({n_false:3} of {n_best:3})"
            f"{n_false / max(stopped, 1):13.2%}{time.perf_counter() - began:8.0f} s",
            flush=True,
        )
        if method == next(iter(METHODS)):
            met = false <= MAX_FALSE
            each = (f"{k} {t.saved_s / t.total_s:.0%}" for k, t in zip(tasks, tallies, strict=True))
            print(f"    {', '.join(each)}")
            late = np.mean([t.saved_s / t.late_s for t in tallies])
            print(f"    {late:.1%} of what the runs after the first {MIN_CURVES} take")
    print(f"missed: {int(not met)}")
    return int(not met)


if __name__ == "__main__":
    raise SystemExit(main())
