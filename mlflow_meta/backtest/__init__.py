"""Backtest: a task's own history gone through again, as if the product had chosen the order.

own:     a task's finished trials in the order of their start, `(n_start + n,)`
start:   the first `n_start` of them, which every way is told
pool:    the other n, among which a way chooses: what a config that nobody ran would have given
         is not known
course:  `(n,)` the lowest value among the first 1, 2, ..., n runs of the pool that a way chooses;
         the start is there to be learned from and does not count. Lower is better.
regret:  course - min(pool), in the metric's units, >= 0
share:   regret / (median(pool) - min(pool)): 0 at the pool's best, 1 at its median
"""

from mlflow_meta.backtest.replay import (
    Backtest,
    Coverage,
    Way,
    backtest,
    most_promising,
    replay,
)

__all__ = ["Backtest", "Coverage", "Way", "backtest", "most_promising", "replay"]
