"""Which configurations to try together: not the best one by one, but those that add most.

draws:  `(k, m)` joint draws of the objective at m candidates, each a world as it may be; lower is
        better
best:   `(k,)` the incumbent's value in each of these worlds; inf where there is none
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

NEAR = 0.15  # distance, per parameter on the unit scale, within which two configs teach the same
_TIE = 1e-6  # share of the plain mean in the criterion, which tells candidates that add nothing


def jointly_best(draws: Matrix, best: Vector, n: int) -> list[int]:
    """Up to `n` candidates that together are expected to reach lowest, chosen greedily.

    Each choice takes E[min(best, f(x_1), ..., f(x_q))] down the most. For draws given the task's
    own trials that is expected improvement of a batch (q-EI by Monte Carlo: Ginsbourger et al.,
    2010); for draws that are other tasks, a zero-shot portfolio. Both gains are submodular, so
    the greedy choice has at least 63% of the best batch's.

    Returns:
        Places of the candidates in `draws`, in the order in which they were chosen.
    """
    free = np.ones(draws.shape[1])
    return _greedy(draws, best, n, free, np.inf, free)


def jointly_best_by_cost(
    draws: Matrix, best: Vector, n: int, costs: Vector, budget: float = np.inf
) -> list[int]:
    """Up to `n` candidates that together are expected to reach lowest for what they cost.

    Each choice is the one that gains most per cost. Within a budget the batch by plain gain is
    made too, and the better one taken: that has at least 31% of the best affordable batch's gain,
    where either alone may have next to nothing of it (Leskovec et al., 2007).

    Args:
        draws: See above.
        best: See above.
        n: How many at most.
        costs: `(m,)`, > 0.
        budget: What the batch may cost together.

    Returns:
        Places of the candidates in `draws`, in the order in which they were chosen; none where
        each costs more than the budget.
    """
    # Without an incumbent any gain would do: then it is what is gained on the median candidate.
    best = np.where(np.isfinite(best), best, np.median(draws, axis=1))
    by_cost = _greedy(draws, best, n, costs, budget, costs)
    if np.isinf(budget):
        return by_cost
    plain = _greedy(draws, best, n, costs, budget, np.ones(len(costs)))
    return min(by_cost, plain, key=lambda chosen: _reached(draws, best, chosen))


def _greedy(
    draws: Matrix, best: Vector, n: int, costs: Vector, budget: float, per: Vector
) -> list[int]:
    """Always the affordable candidate whose gain, divided by `per`, is greatest."""
    reached = np.where(np.isfinite(best), best, draws.max(axis=1))
    chosen: list[int] = []
    means = draws.mean(axis=0)
    left = budget
    for _ in range(min(n, draws.shape[1])):
        lowest = np.minimum(draws, reached[:, None])
        gain = reached.mean() - lowest.mean(axis=0) + _TIE * (means.max() - means)
        worth = np.where(costs <= left, gain / per, -np.inf)
        worth[chosen] = -np.inf
        if np.isneginf(worth.max()):
            break
        chosen.append(int(np.argmax(worth)))
        left -= costs[chosen[-1]]
        reached = lowest[:, chosen[-1]]
    return chosen


def _reached(draws: Matrix, best: Vector, chosen: list[int]) -> float:
    """What a batch is expected to reach."""
    return float(np.minimum(best, draws[:, chosen].min(axis=1, initial=np.inf)).mean())


def worthy_and_apart(
    worth: Vector, positions: Matrix, n: int, *, costs: Vector, budget: float = np.inf
) -> list[int]:
    """Up to `n` of the worthiest candidates, each away from the ones before it.

    For a model that cannot say how candidates vary together: nearness to an earlier choice takes
    off worth, since two neighbours would teach the same.

    Args:
        worth: `(m,)`, to be maximised.
        positions: Where the candidates lie in the unit cube, `(m, d)`.
        n: How many at most.
        costs: `(m,)`, >= 0.
        budget: What they may cost together.
    """
    worth = worth - worth.min() + 1e-12  # so that a penalty always makes it smaller
    near = NEAR * np.sqrt(positions.shape[1])
    chosen: list[int] = []
    for _ in range(min(n, len(worth))):
        i = int(np.argmax(np.where(costs <= budget, worth, -np.inf)))
        if worth[i] < 0 or costs[i] > budget:
            break
        chosen.append(i)
        budget -= costs[i]
        distance = np.linalg.norm(positions - positions[i], axis=1)
        worth = worth * (1 - np.exp(-0.5 * (distance / near) ** 2))
        worth[i] = -1.0
    return chosen


def covering(positions: Matrix, tried: Matrix, n: int) -> list[int]:
    """Up to `n` candidates that, with what was tried, cover the candidates evenly.

    Greedy facility location: each choice lowers the mean distance of the candidates to the nearest
    choice the most. The point farthest from the others would always lie in a corner.

    Args:
        positions: Where the candidates lie in the unit cube, `(m, d)`.
        tried: Where that lies which was tried, `(k, d)`.
        n: How many.
    """
    away = cdist(positions, positions)
    distance = np.min(cdist(tried, positions), axis=0, initial=np.sqrt(positions.shape[1]))
    chosen: list[int] = []
    for _ in range(min(n, len(positions))):
        gains = np.maximum(distance - away, 0.0).sum(axis=1)
        gains[chosen] = -1.0
        chosen.append(int(np.argmax(gains)))
        distance = np.minimum(distance, away[chosen[-1]])
    return chosen
