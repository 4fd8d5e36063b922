"""`propose` as a method of a quality benchmark.

The benchmark makes one object a target, and calls `suggest` once a batch with the history so far:
a frame with `task`, `is_target`, `metric` and a column a parameter, missing where inactive. Its
space has `target`, `goal` (`max` or `min`), and `params`: name -> `type` (`float`, `int`, `cat`,
or `ord` for an ordered list of numbers), `low`, `high`, `log`, `choices`, `cond` (`parent`, `in`).
"""

from typing import Any, Protocol

import numpy as np
import pandas as pd

from mlflow_meta import SearchSpace, propose


class BenchmarkSpace(Protocol):
    params: dict[str, dict[str, Any]]
    goal: str
    target: str


class Propose:
    """What is proposed for the benchmark's target."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def suggest(self, history: pd.DataFrame, space: BenchmarkSpace, n: int) -> list[dict]:
        """The `n` configurations to try next, with None for what is inactive."""
        sign = 1.0 if space.goal == "min" else -1.0
        params = history[list(space.params)].add_prefix("params.")
        trials = params.assign(
            task=history["task"].astype(str).where(~history["is_target"], space.target),
            value=sign * history["metric"].to_numpy(float),
        )
        ours = SearchSpace.from_dict({k: _entry(param) for k, param in space.params.items()})
        configs = propose(trials, ours, task=space.target, n=n, rng=self._rng)
        return [{name: config.get(name) for name in space.params} for config in configs]


def _entry(param: dict[str, Any]) -> dict[str, Any]:
    """A benchmark's parameter as our space spells it."""
    condition = param.get("cond")
    when = {"when": {condition["parent"]: list(condition["in"])}} if condition else {}
    if param["type"] in ("cat", "ord"):
        choices = param["choices"]
        log = param["type"] == "ord" and bool(param.get("log")) and min(choices) > 0
        return {"type": "categorical", "choices": list(choices), "log": log, **when}
    bounds = {key: param[key] for key in ("low", "high")}
    return {"type": param["type"], **bounds, "log": bool(param.get("log")), **when}
