"""Reinforcement learning as a search: the meta-model is the simulator that episodes are played in.

An episode chooses one level for every parameter and is rewarded by the negated value of that row.
It has as many steps as there are parameters but is rewarded at its end alone, so that nothing is
lost by choosing all levels at once, by the policy

    pi(x) = prod_p pi_p(x_p),

a categorical distribution of every parameter's levels. Two ways to learn it are engines. A policy
that has settled is a local optimum of the expected reward: several are learned, each from a start
of its own, and from the best rows that each has played coordinate descent goes on.

P, n_p, L: parameters; levels of parameter p; the largest n_p
B:         episodes of a batch
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.enumerated import enumerated
from mlflow_meta.search.seen import Seen, descended, lowest, widened
from mlflow_meta.search.surface import Incumbent, Matrix, Places, Surface, Vector, n_rows

MAX_ENUMERATED = 4096  # rows up to which there is nothing to learn
N_EPISODES = 300  # of a batch
MAX_BATCHES = 60  # of a policy
N_STALLED = 4  # batches in a row without a better mean, after which a policy has settled
START_SPREAD = 1.5  # standard deviation of a fresh policy's logits
MAX_DESCENTS = 8  # rows of every policy that coordinate descent starts from
N_NEIGHBOURS = 20_000  # of all these rows together, unless one alone has more
MIN_POLICIES, MAX_POLICIES = 12, 40
N_IN_VAIN = 10  # policies in a row without a better row, after which the search ends
MAX_VALUED = 500_000  # rows after which no further policy is begun

ELITE_SHARE = 0.1
SMOOTHING = 0.6  # weight of the new elite in a refit
EXPLORED = 0.2  # parameters of a row whose level is drawn from all, on average

STEP = 2.0  # along the natural gradient
DAMPING = 0.005  # added to the probability that a gradient is divided by
ENTROPY_WEIGHT = 0.1  # of a fresh policy
ENTROPY_DECAY = 0.9  # of the weight, by batch
BASELINE_MEMORY = 0.5  # weight of the batches before in the baseline


class Policy(Protocol):
    """A distribution over rows, and what it learns by."""

    @property
    def probabilities(self) -> Matrix:
        """Of every level, `(P, L)`; 0 beyond the levels of a parameter."""
        ...

    def after(self, rows: Places, values: Vector) -> Policy:
        """The policy that has learned from a batch, `rows (B, P)` and their `values (B,)`."""
        ...


Start = Callable[[tuple[int, ...], np.random.Generator], Policy]


@dataclass(frozen=True, slots=True, kw_only=True)
class ElitePolicy:
    """The cross-entropy method: the policy most likely to have played the best of its episodes.

    pi_p <- (1 - e) ((1 - a) pi_p + a frequency_p of the elite) + e / n_p, with a for smoothing and
    e for exploration (Rubinstein and Kroese, The Cross-Entropy Method, 2004).

    Attributes:
        is_level: `(P, L)` false beyond the levels of a parameter.
        probabilities: See `Policy`.
    """

    is_level: NDArray[np.bool_]
    probabilities: Matrix

    @classmethod
    def start(cls, sizes: tuple[int, ...], rng: np.random.Generator) -> ElitePolicy:
        """A policy that has learned nothing."""
        is_level = _levels(sizes)
        logits = rng.normal(0.0, START_SPREAD, size=is_level.shape)
        return cls(is_level=is_level, probabilities=_softmax(logits, is_level))

    def after(self, rows: Places, values: Vector) -> ElitePolicy:
        """See `Policy`."""
        elite, _ = lowest(rows, values, max(int(ELITE_SHARE * len(rows)), 1))
        share = _weights(elite, np.full(len(elite), 1.0 / len(elite)), self.is_level.shape)
        explored = EXPLORED / len(self.is_level)
        learned = (1.0 - SMOOTHING) * self.probabilities + SMOOTHING * share
        even = self.is_level / self.is_level.sum(axis=1, keepdims=True)
        return replace(self, probabilities=(1.0 - explored) * learned + explored * even)


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientPolicy:
    """REINFORCE: logits rise along the gradient of the expected reward, as estimated by a batch.

    With the advantage A = (baseline - value) / (std of the values), the gradient by the logit of
    level l of parameter p is g_pl = E[A (1[x_p = l] - pi_p(l))] (Williams, Simple Statistical
    Gradient-Following Algorithms, 1992). The step is along the natural gradient: the Fisher matrix
    of pi_p is diag(pi_p) - pi_p pi_p^T, its inverse times g is g_pl / pi_p(l) up to a constant,
    damped here for levels that are hardly ever played. The natural gradient of the entropy is
    minus the logit, up to a constant.

    Attributes:
        is_level: `(P, L)` false beyond the levels of a parameter.
        logits: `(P, L)`.
        baseline: Running mean of the values; nan before the first batch.
        entropy_weight: What a nat of entropy is worth, in standard deviations of the value.
    """

    is_level: NDArray[np.bool_]
    logits: Matrix
    baseline: float
    entropy_weight: float

    @classmethod
    def start(cls, sizes: tuple[int, ...], rng: np.random.Generator) -> GradientPolicy:
        """A policy that has learned nothing."""
        is_level = _levels(sizes)
        return cls(
            is_level=is_level,
            logits=rng.normal(0.0, START_SPREAD, size=is_level.shape),
            baseline=np.nan,
            entropy_weight=ENTROPY_WEIGHT,
        )

    @property
    def probabilities(self) -> Matrix:
        """See `Policy`."""
        return _softmax(self.logits, self.is_level)

    def after(self, rows: Places, values: Vector) -> GradientPolicy:
        """See `Policy`."""
        mean, spread = float(values.mean()), float(values.std())
        old = mean if np.isnan(self.baseline) else self.baseline
        baseline = BASELINE_MEMORY * old + (1.0 - BASELINE_MEMORY) * mean
        advantage = (baseline - values) / spread if spread > 0 else np.zeros(len(values))
        pi = self.probabilities
        played = _weights(rows, advantage / len(rows), pi.shape)
        gradient = played - pi * advantage.mean()
        step = gradient / (pi + DAMPING) - self.entropy_weight * self.logits
        logits = self.logits + STEP * step
        return replace(
            self,
            logits=logits - np.where(self.is_level, logits, -np.inf).max(axis=1, keepdims=True),
            baseline=baseline,
            entropy_weight=ENTROPY_DECAY * self.entropy_weight,
        )


def cross_entropy(surface: Surface, k: int, rng: np.random.Generator) -> Iterator[Incumbent]:
    """An `Engine`: see `ElitePolicy`. Proves nothing, but for spaces of a few thousand rows."""
    return _search(surface, k, rng, ElitePolicy.start)


def reinforce(surface: Surface, k: int, rng: np.random.Generator) -> Iterator[Incumbent]:
    """An `Engine`: see `GradientPolicy`. Proves nothing, but for spaces of a few thousand rows."""
    return _search(surface, k, rng, GradientPolicy.start)


def _search(
    surface: Surface, k: int, rng: np.random.Generator, start: Start
) -> Iterator[Incumbent]:
    if n_rows(surface.sizes) <= MAX_ENUMERATED:
        yield from enumerated(surface, k, rng)
        return
    seen = Seen(surface, k)
    best, n_in_vain = np.inf, 0
    for n_policies in range(MAX_POLICIES):
        is_done = n_policies >= MIN_POLICIES and n_in_vain >= N_IN_VAIN
        if is_done or seen.best.n_assessed > MAX_VALUED:
            break
        yield from _learned(seen, start(surface.sizes, rng), rng)
        n_in_vain = 0 if seen.best.values[0] < best else n_in_vain + 1
        best = float(seen.best.values[0])
    yield from widened(seen, k)


def _learned(seen: Seen, policy: Policy, rng: np.random.Generator) -> Iterator[Incumbent]:
    """Train one policy until it has settled, then descend from the best that it has played.

    The best of early batches as well as of late ones: these are all of one valley.
    """
    n_descents = min(max(N_NEIGHBOURS // sum(seen.sizes), 1), MAX_DESCENTS)
    winners: list[Places] = []
    means: list[float] = []
    while len(means) < MAX_BATCHES and not _has_settled(means):
        batch = drawn(policy.probabilities, seen.sizes, N_EPISODES, rng)
        rewarded = seen.values(batch)
        yield seen.best
        policy = policy.after(batch, rewarded)
        means.append(float(rewarded.mean()))
        winners.append(batch[np.argmin(rewarded)])
    chosen = np.linspace(len(winners) - 1, 0, n_descents).round().astype(int)
    yield from descended(seen, np.stack(winners)[np.unique(chosen)], rng)


def _has_settled(means: list[float]) -> bool:
    """Whether the last of the batches, whose mean values are given, have brought nothing."""
    return len(means) > N_STALLED and min(means[-N_STALLED:]) > min(means)


def drawn(pi: Matrix, sizes: tuple[int, ...], n: int, rng: np.random.Generator) -> Places:
    """`n` rows `(n, P)` of the policy `pi (P, L)`."""
    below = np.cumsum(pi, axis=1)
    chance = rng.random((len(sizes), n))
    levels = [
        # Without the last, which rounding may leave below what is drawn.
        np.searchsorted(below[p, : size - 1], chance[p], side="right")
        for p, size in enumerate(sizes)
    ]
    return np.stack(levels, axis=1).astype(np.int64)


def _weights(rows: Places, weights: Vector, shape: tuple[int, ...]) -> Matrix:
    """Sum of the weights `(n,)` of the rows `(n, P)` that have a level, `(P, L)`."""
    found = np.zeros(shape)
    np.add.at(found, (np.arange(shape[0]), rows), weights[:, None])
    return found


def _levels(sizes: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.arange(max(sizes)) < np.array(sizes)[:, None]


def _softmax(logits: Matrix, is_level: NDArray[np.bool_]) -> Matrix:
    masked = np.where(is_level, logits, -np.inf)
    odds = np.exp(masked - masked.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))
