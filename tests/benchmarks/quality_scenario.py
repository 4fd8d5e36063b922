"""What a scenario of the quality benchmark is, and the runs that its tasks have had before.

A history is a frame as `propose` takes it: `task`, `value` (minimised), `params.<name>`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.columns import frame_of
from mlflow_meta.space import Integer, SearchSpace
from mlflow_meta.trials import Config

Vector = NDArray[np.float64]
Loss = Callable[[str, Sequence[Config]], Vector]

N_RANDOM = 100  # of a task's earlier runs; as many again are a TPE study's
MAX_TARGETS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenario:
    """Where configurations are proposed, and what they turn out to be worth.

    Attributes:
        name: What it is called.
        space: What may be proposed.
        tasks: Which tasks share the space.
        loss: Task and `n` configurations -> their losses `(n,)`, minimised; deterministic.
        best: Task -> the least loss there is, or that a long search has found.
        median: Task -> the median loss of random configurations.
    """

    name: str
    space: SearchSpace
    tasks: tuple[str, ...]
    loss: Loss
    best: Mapping[str, float]
    median: Mapping[str, float]

    def regret(self, task: str, value: float) -> float:
        """How far `value` is from the best: 0 is perfect, 1 the median or worse."""
        best = self.best[task]
        return float(np.clip((value - best) / (self.median[task] - best), 0.0, 1.0))

    def targets(self, n: int) -> list[str]:
        """Up to `n` of the tasks, at most 6, spread over the list."""
        spread = np.linspace(0, len(self.tasks) - 1, MAX_TARGETS).round().astype(int)
        few = len(self.tasks) <= MAX_TARGETS
        tasks = list(self.tasks) if few else [self.tasks[i] for i in spread]
        return [tasks[i] for i in (0, 3, 1, 4, 2, 5) if i < len(tasks)][:n]

    def frame(self, task: str, configs: Sequence[Config]) -> pd.DataFrame:
        """`configs` as runs of `task`, with what they are worth."""
        columns = frame_of(configs, self.space.names).convert_dtypes()
        # A run that lacks one would have an object there, and a file of many runs floats.
        whole = [name for name, param in self.space.params.items() if isinstance(param, Integer)]
        columns = columns.astype({f"params.{name}": "Int64" for name in whole})
        columns.insert(0, "value", self.loss(task, configs))
        columns.insert(0, "task", task)
        return columns

    def seed(self, task: str, seed: int) -> int:
        """A seed for one task and one repetition, the same for every method."""
        return zlib.crc32(f"{self.name}{task}{seed}".encode()) % 100_000

    def random_runs(self, task: str, seed: int, n: int) -> pd.DataFrame:
        """`n` random runs; the first of many are those of few."""
        rng = np.random.default_rng([1, self.seed(task, seed)])
        return self.frame(task, [self.space.sample(1, rng)[0] for _ in range(n)])

    def history(self, task: str, seed: int, folder: Path) -> pd.DataFrame:
        """100 random runs and 100 of a TPE study, made once and then kept in `folder`."""
        path = folder / f"{self.name}-{task}-{seed}.parquet"
        if not path.exists():
            runs = pd.concat(
                [self.random_runs(task, seed, N_RANDOM), self._study(task, seed)],
                ignore_index=True,
            )
            runs.to_parquet(path)
        return pd.read_parquet(path)

    def _study(self, task: str, seed: int) -> pd.DataFrame:
        from quality_methods import Tpe  # which needs the extra

        study = Tpe(self.space, task, self.seed(task, seed))
        runs = self.frame(task, [])
        for _ in range(N_RANDOM):
            run = self.frame(task, study.suggest(runs, 1))
            runs = run if runs.empty else pd.concat([runs, run], ignore_index=True)
        return runs
